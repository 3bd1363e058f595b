"""Recordings on disk, as the carrier makes them."""

from __future__ import annotations

from pathlib import Path

from agent.sim.carrier.rest.recordings import SimulatedRecording, Sound


def write_recording(path: Path, sound: Sound) -> Path:
    """Write ``sound`` as a WAV file."""
    recording = SimulatedRecording(
        sid="RE1", call_sid="CA1", status="completed", channels=sound.channels, sound=sound
    )
    with path.open("wb") as file:
        file.writelines(recording.read(0, recording.size))
    return path
