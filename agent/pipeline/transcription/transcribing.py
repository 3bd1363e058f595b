"""Recordings to words: OpenAI's audio API, or without a key the local networks in a process of their own."""

import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import msgspec
import openai
import stamina
import trio
from typing_extensions import override

from agent.core.errors import ProviderError
from agent.core.provider_models import language_hint, tells_times
from agent.core.records import Turn
from agent.core.settings import Settings
from agent.pipeline.openai_client import judged, open_openai_client, retry_soon
from agent.pipeline.transcription.local_transcribing import LocalTranscriber
from agent.pipeline.transcription.talk_spans import Piece, has_sound, plan_pieces
from agent.pipeline.transcription.transcription import (
    ChannelWords,
    Transcriber,
    Transcription,
    make_transcription,
)
from agent.pipeline.transcription.wav_reading import WavFile, open_wav

__all__ = ["LocalTranscriber", "OpenAiTranscriber", "Transcriber", "open_transcriber"]

REQUEST_S: Final = 180.0
"""How long one piece may take: five minutes of audio take some 30 s."""
ATTEMPTS: Final = 4
"""Immediate retries within one attempt of the ledger."""
THREADS: Final = 2
_WITH_TIMES: Final = {"join_ms": 10_000, "most_ms": 300_000}
"""Five minutes of one channel are 4.8 MB; the API takes 25 MB."""
_WITHOUT_TIMES: Final = {"join_ms": 1_000, "most_ms": 60_000}
"""A piece is then one utterance: the shorter, the better the two channels fall into order."""
_NO_SPEECH: Final = 0.6
_UNLIKELY: Final = -1.0
"""A segment that is both rather silence and unlikely text is invented: Whisper's own rule and figures."""
_ADVICE: Final = {
    401: "check OPENAI_API_KEY, then retry the call",
    403: "allow the key's project to use this model, then retry the call",
    404: "set AGENT_RECORDING_MODEL to a model of the key's project, and the worker goes on",
}
_OTHERWISE: Final = "the recording or AGENT_RECORDING_MODEL is not accepted"
_T = TypeVar("_T")


class _TimedText(msgspec.Struct):
    start: float
    end: float
    text: str
    no_speech_prob: float = 0.0
    avg_logprob: float = 0.0


class _WithTimes(msgspec.Struct):
    segments: list[_TimedText]


class _Text(msgspec.Struct):
    text: str


@attrs.define(eq=False)
class OpenAiTranscriber(Transcriber):
    """``Transcriber`` on OpenAI's audio API, one request after the other; silence is not sent."""

    client: openai.AsyncOpenAI
    model: str
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(THREADS))

    @override
    async def transcribe(self, path: Path, *, language: str = "", turns: Sequence[Turn] = ()) -> Transcription:
        wav = await self._run(open_wav, path)
        levels = await self._run(wav.levels)
        limits = _WITH_TIMES if tells_times(self.model) else _WITHOUT_TIMES
        heard: list[list[ChannelWords]] = []
        for channel in range(wav.channels):
            heard.append([])
            for piece in await self._run(partial(plan_pieces, levels[channel], **limits)):
                heard[-1] += await self._piece(wav, channel, piece, levels[channel], language)
        return await self._run(make_transcription, heard, self.model, turns)

    async def _piece(
        self, wav: WavFile, channel: int, piece: Piece, levels: Sequence[float], language: str
    ) -> list[ChannelWords]:
        audio = await self._run(wav.cut, channel, piece)
        try:
            body = await self._ask(audio, language)
        except openai.APIError as error:
            raise judged(error, self.model, _ADVICE, _OTHERWISE) from None
        except trio.TooSlowError:
            raise ProviderError(f"the transcription API did not answer within {REQUEST_S:.0f} s") from None
        try:
            return _utterances(body, piece, levels, times=tells_times(self.model))
        except msgspec.DecodeError as error:
            raise ProviderError(f"the transcription API's answer makes no sense: {error}") from None

    async def _ask(self, audio: bytes, language: str) -> bytes:
        """One request, repeated while that may help soon; the answer's body."""
        async for attempt in stamina.retry_context(on=retry_soon, attempts=ATTEMPTS, timeout=None):
            # Closed, the file gives its memory back; requests and answers refer to each other and wait for the
            # garbage collector, which has been seen to leave ten of them lying.
            with attempt, trio.fail_after(REQUEST_S), io.BytesIO(audio) as file:
                answer = await self.client.audio.transcriptions.with_raw_response.create(
                    file=("recording.wav", file, "audio/wav"),
                    model=self.model,
                    response_format="verbose_json" if tells_times(self.model) else "json",
                    timeout=REQUEST_S,
                    **language_hint(self.model, language),
                )
                content: bytes = answer.content
                return content
        raise AssertionError("stamina raises when its attempts are used up")

    async def _run(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Files and computation off the event loop (ST-3)."""
        return await trio.to_thread.run_sync(partial(call, *arguments), limiter=self._threads)


@asynccontextmanager
async def open_transcriber(settings: Settings) -> AsyncIterator[Transcriber]:
    """OpenAI's with a key, the local one without; its connections are closed when left."""
    if settings.openai_api_key is None:
        yield LocalTranscriber()
        return
    async with open_openai_client(settings, request_s=REQUEST_S) as client:
        yield OpenAiTranscriber(client, settings.recording_model)


def _utterances(body: bytes, piece: Piece, levels: Sequence[float], *, times: bool) -> list[ChannelWords]:
    """An answer as utterances of the recording. Raises msgspec.DecodeError."""
    if not times:
        return [ChannelWords(piece.start_ms, piece.end_ms, msgspec.json.decode(body, type=_Text).text)]
    said = []
    for segment in msgspec.json.decode(body, type=_WithTimes).segments:
        start_ms = min(piece.start_ms + max(0, round(segment.start * 1000)), piece.end_ms)
        end_ms = min(piece.start_ms + max(0, round(segment.end * 1000)), piece.end_ms)
        invented = segment.no_speech_prob > _NO_SPEECH and segment.avg_logprob < _UNLIKELY
        if not invented and has_sound(levels, start_ms, end_ms):
            said.append(ChannelWords(start_ms, end_ms, segment.text))
    return said
