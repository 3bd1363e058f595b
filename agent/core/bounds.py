"""What the model may do in one call, and for one caller across calls (DO-4). Each bound is a setting.

A model can be talked into things: whatever it does with tools is done by whoever is on the phone.
"""

from typing import Literal

import attrs


@attrs.frozen
class ModelBounds:
    """The bounds; their defaults are those of the settings."""

    tool_uses: int = 50
    """Uses of tools in one call, of all kinds; hanging up is always possible."""
    appointments: int = 3
    """Appointments made in one call."""
    appointments_a_day: int = 5
    """Appointments made within 24 hours by calls from one number, or for one number."""
    transfers: int = 3
    """Transfers tried in one call."""
    lookups: int = 5
    """Look-ups of the caller in one call: each may be a guess at a name or a date."""
    other_numbers: Literal["confirmed", "any"] = "confirmed"
    """Which numbers a tool may be given besides the caller's own: those the caller said or keyed in, or any."""
    responses: int = 1000
    """Responses of the model in one call; an hour of lively talk has a few hundred."""
    text: int = 200_000
    """Characters of transcript of one call, of both sides; an hour of talk has 60,000."""
