"""OpenAI's REST API for what is done after calls: its client, and what its refusals mean to the ledger.

Both may run in a process whose calls are talking, so nothing here may hold the event loop (ST-3).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import httpx
import httpx2
import openai
import trio

from agent.core.errors import ModelGoneError, ProviderError, StepDeadError
from agent.core.settings import Settings
from agent.pipeline.analysis.extraction import clean, cut

CONNECT_S: Final = 5.0
RETRY_AFTER_S: Final = 20.0
"""The longest Retry-After that is waited for within a step; a longer one is left to the ledger."""
MOST_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""The transcription of five minutes with its times has 100 kB."""
_LONGEST_DETAIL: Final = 300
_NO_MODEL: Final = "model_not_found"
"""Comes with a 404, or with a 403 when the key's project may not use the model."""
_NO_QUOTA: Final = "insufficient_quota"
"""The code of a 429 that waiting does not help: the account's quota is used up."""
_PASSING: Final = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.CONFLICT, httpx.codes.TOO_MANY_REQUESTS)


@asynccontextmanager
async def open_openai_client(settings: Settings, *, request_s: float) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client with the key of ``settings`` (which must have one) that does not retry; closed when left.

    Proxies and certificates of the environment count, as they do for the package itself.
    """
    if settings.openai_api_key is None:
        raise ValueError("there is no OPENAI_API_KEY")
    key = settings.openai_api_key.get_secret_value()

    def make() -> openai.AsyncOpenAI:
        trio.run(_rehearse)
        timeout = openai.Timeout(request_s, connect=CONNECT_S)
        http = openai.DefaultAsyncHttpxClient(
            timeout=timeout,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [_bound]},
        )
        return openai.AsyncOpenAI(
            api_key=key, base_url=settings.openai_base_url, timeout=timeout, max_retries=0, http_client=http
        )

    # In a thread: certificates are read, and packages are imported.
    client = await trio.to_thread.run_sync(make)
    async with client:
        yield client


async def _bound(response: httpx2.Response) -> None:
    """Before the body is read. What is compressed without having been asked for could be any size in memory."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise httpx2.DecodingError(f"the answer is compressed ({encoding[:40]}), which was not asked for")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedStream(response.stream)


@attrs.frozen
class _BoundedStream(httpx2.AsyncByteStream):
    """Raises httpx2.DecodingError beyond MOST_ANSWER_BYTES."""

    inner: httpx2.AsyncByteStream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts, size_bytes = self.inner.__aiter__(), 0
        try:
            async for part in parts:
                size_bytes += len(part)
                if size_bytes > MOST_ANSWER_BYTES:
                    raise httpx2.DecodingError(f"the answer does not end after {MOST_ANSWER_BYTES} bytes")
                yield part
        finally:
            # As in agent.pipeline.recording.carrier_media: every generator inside is ended by a cancel.
            with trio.CancelScope(shield=True) as scope:
                scope.cancel(reason="the body is left")
                async for _ in parts:
                    pass

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _rehearse() -> None:
    """The first requests of the package import and build what they need: here, in a thread."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(httpx.codes.OK, json={"text": ""}))
    http = openai.DefaultAsyncHttpxClient(transport=transport)
    async with openai.AsyncOpenAI(api_key="rehearsal", http_client=http, max_retries=0) as client:
        await client.post("/responses", body={}, cast_to=object)
        await client.audio.transcriptions.with_raw_response.create(file=("rehearsal.wav", b""), model="")


def retry_soon(error: Exception) -> bool | float:
    """For stamina: whether to try again at once, or after how many seconds."""
    if not isinstance(error, openai.APIStatusError):
        return isinstance(error, openai.APIConnectionError | trio.TooSlowError)
    if not _is_passing(error) or error.code == _NO_QUOTA:
        return False
    wait_s = _retry_after_s(error.response.headers.get("retry-after"))
    if wait_s is None:
        return True
    return wait_s if wait_s <= RETRY_AFTER_S else False


def judged(
    error: openai.APIError, model: str, advice: Mapping[int, str], otherwise: str
) -> ProviderError | ModelGoneError | StepDeadError:
    """What the ledger understands: to be tried later, with another model, or never, and what to do about it.

    ``advice`` is by HTTP status. The text of a 401 repeats part of the key, so it is left out.
    """
    if isinstance(error, openai.APITimeoutError):
        return ProviderError("the OpenAI API did not answer in time")
    if not isinstance(error, openai.APIStatusError):
        cause = error.__cause__
        detail = f"{type(cause).__name__}: {cause}" if cause else str(error)
        return ProviderError(f"the OpenAI API cannot be reached: {cut(detail, _LONGEST_DETAIL)}")
    status = error.status_code
    body = error.body if isinstance(error.body, dict) else {}
    words = "" if status == httpx.codes.UNAUTHORIZED else clean(str(body.get("message") or ""))
    said = f"the OpenAI API answers HTTP {status} for {model}"
    if words:
        said += f": {cut(words, _LONGEST_DETAIL)}"
    if _is_passing(error):
        quota = "; the account's quota is used up, check its billing" if error.code == _NO_QUOTA else ""
        return ProviderError(said + quota)
    if status == httpx.codes.NOT_FOUND or error.code == _NO_MODEL or error.param == "model":
        return ModelGoneError(f"{said}; {advice[httpx.codes.NOT_FOUND]}", model)
    return StepDeadError(f"{said}; {advice.get(status, otherwise)}")


def _is_passing(error: openai.APIStatusError) -> bool:
    """Whether a later try may do better."""
    return error.status_code in _PASSING or error.status_code >= httpx.codes.INTERNAL_SERVER_ERROR


def _retry_after_s(value: str | None) -> float | None:
    """Retry-After in its number form; OpenAI sends no dates."""
    try:
        wait_s = float(value) if value else None
    except ValueError:
        return None
    return wait_s if wait_s is not None and 0 <= wait_s < float("inf") else None
