"""What the doctor's checks find."""

from collections.abc import Sequence
from typing import Literal

import attrs

State = Literal["ok", "todo", "problem"]


@attrs.frozen
class Finding:
    """What one check found. ``todo``: not set up, and not needed for every use; ``problem``: must be fixed."""

    state: State
    detail: str
    advice: str = ""
    subject: str = ""
    """Empty: what the check that found it is about."""


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing that is required is wrong."""
    return all(finding.state != "problem" for finding in findings)
