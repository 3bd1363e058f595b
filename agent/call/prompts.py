"""What is said without the model: by the carrier in the caller's language, or from what is bundled."""

from array import array
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Final

from agent.audio.ulaw import LINEAR
from agent.carrier import twiml
from agent.carrier.rest import CarrierRest
from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.core.errors import CarrierError
from agent.core.event_log import EventLog
from agent.core.units import CallSid

UNAVAILABLE: Final = "unavailable"
"""The apology for a model that cannot be reached; English."""
APOLOGY: Final = (
    "I am very sorry, our assistant cannot be reached at the moment. Please call again later. Goodbye."
)
"""Its words, for the transcript."""


@cache
def prompt(name: str, audio: AudioFormat) -> bytes:
    """A bundled prompt; the first use of one in PCM16 takes some milliseconds (see ``warm_up``)."""
    ulaw = (files("agent.core") / "prompts" / f"{name}.ulaw").read_bytes()
    return ulaw if audio == ULAW_8K else _as_pcm16(ulaw, audio.rate_hz // ULAW_8K.rate_hz)


def warm_up(audio: AudioFormat) -> None:
    """Make the prompts of a format ready, before there are calls."""
    prompt(UNAVAILABLE, audio)


def _as_pcm16(ulaw: bytes, times: int) -> bytes:
    """At ``times`` the rate, with straight lines between the samples: good enough for telephone quality."""
    samples = [*map(LINEAR.__getitem__, ulaw), 0]
    between = (a + (b - a) * step // times for a, b in pairwise(samples) for step in range(times))
    return array("h", between).tobytes()


async def say_unavailable(rest: CarrierRest | None, call_sid: CallSid, language: str, events: EventLog) -> bool:
    """Have the carrier apologise in ``language`` and hang up; its stream with us ends by that.

    False: say the bundled prompt instead. It is English, as ``language`` is; or there is no carrier, or none that
    can say it. A cancel waits for the carrier's answer, which the end of the stream may overtake.
    """
    if rest is None or not twiml.has_words_in(language):
        return False
    try:
        await rest.instruct(call_sid, twiml.refuse_politely(twiml.UNAVAILABLE, language))
    except CarrierError as error:
        events.emit("APOLOGY_NOT_SAID", "error", error=str(error))
        return False
    events.emit("APOLOGY_LEFT_TO_CARRIER", language=language)
    return True
