"""Summary and particulars of a call by a model of OpenAI's REST API; the rules of ``extraction`` without a key.

Requests are made by the ``openai`` package's own post(): its typed methods build their types when first used,
70 ms on the event loop of a process that may be talking (ST-3).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import httpx
import openai
import stamina
import trio

from agent.errors import ProviderError, StepDeadError
from agent.pipeline.analysis_request import (
    extraction_request,
    is_worth_reading,
    read_extraction,
    read_summary,
    summary_request,
)
from agent.pipeline.extraction import Analyst, Extraction, Line, clean, cut, extract_by_rules, summarise_by_rules
from agent.settings import Settings
from agent.tenancy.tenant import Tenant

REQUEST_S: Final = 60.0
"""For one request; a reasoning model takes 5 to 20 s over a long call."""
ANALYSIS_S: Final = 120.0
"""For one summary or extraction with all its retries; the ledger's own retries come after that."""
ATTEMPTS: Final = 3
RETRY_AFTER_S: Final = 20.0
"""The longest Retry-After that is waited for within a step; a longer one is left to the ledger."""
_LONGEST_DETAIL: Final = 300
_NO_QUOTA: Final = "insufficient_quota"
"""A 429 that no waiting of seconds helps."""


@attrs.define(eq=False)
class OpenAiAnalyst:
    """``Analyst`` by the Responses API with ``model``; ``client`` is closed by whoever opened it."""

    client: openai.AsyncOpenAI
    model: str
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    async def summarise(self, conversation: Sequence[Line], tenant: Tenant) -> str:
        """See Analyst. Takes ANALYSIS_S at most."""
        if not is_worth_reading(conversation):
            return ""
        return read_summary(await self._ask(summary_request, conversation, tenant))

    async def extract(self, conversation: Sequence[Line], tenant: Tenant) -> Extraction:
        """See Analyst. Takes ANALYSIS_S at most."""
        if not is_worth_reading(conversation):
            return Extraction()
        return read_extraction(await self._ask(extraction_request, conversation, tenant), tenant)

    async def _ask(
        self,
        make: Callable[[str, Sequence[Line], Tenant], dict[str, Any]],
        conversation: Sequence[Line],
        tenant: Tenant,
    ) -> object:
        # In a thread: the transcript of an hour takes some milliseconds.
        body = await trio.to_thread.run_sync(
            make, self.model, conversation, tenant, limiter=self._threads, abandon_on_cancel=True
        )
        try:
            with trio.fail_after(ANALYSIS_S):
                return await self._post(body)
        except trio.TooSlowError:
            raise ProviderError(f"{self.model} gave no answer within {ANALYSIS_S:g} s") from None

    async def _post(self, body: dict[str, Any]) -> object:
        """The answer's JSON, after quick retries. Raises ProviderError and StepDeadError."""
        try:
            async for attempt in stamina.retry_context(
                on=_is_worth_a_retry, attempts=ATTEMPTS, timeout=ANALYSIS_S, wait_initial=0.5, wait_max=8.0
            ):
                with attempt:
                    return await self.client.post("/responses", body=body, cast_to=object)
        except openai.APIStatusError as error:
            raise _judged(error, self.model) from None
        except openai.APITimeoutError:
            raise ProviderError(f"the OpenAI API did not answer within {REQUEST_S:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            detail = f"{type(cause).__name__}: {cause}" if cause else str(error)
            raise ProviderError(f"the OpenAI API cannot be reached: {cut(detail, _LONGEST_DETAIL)}") from None
        except ValueError:
            raise ProviderError("the OpenAI API answered with something that is not JSON") from None
        raise AssertionError("stamina's last attempt returns or raises")


@attrs.define(eq=False)
class ThreadedRules:
    """``Analyst`` by rules in a thread: a long call takes them 50 ms, which calls must not wait for (ST-3)."""

    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    async def summarise(self, conversation: Sequence[Line], tenant: Tenant) -> str:
        """See Analyst."""
        return await trio.to_thread.run_sync(
            summarise_by_rules, conversation, tenant, limiter=self._threads, abandon_on_cancel=True
        )

    async def extract(self, conversation: Sequence[Line], tenant: Tenant) -> Extraction:
        """See Analyst."""
        return await trio.to_thread.run_sync(
            extract_by_rules, conversation, tenant, limiter=self._threads, abandon_on_cancel=True
        )


@asynccontextmanager
async def open_openai_client(settings: Settings) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client with the key of ``settings`` (which must have one) that does not retry; closed when left.

    Proxies and certificates of the environment count, as they do for the package itself.
    """
    if settings.openai_api_key is None:
        raise ValueError("there is no OPENAI_API_KEY")
    key = settings.openai_api_key.get_secret_value()

    def make() -> openai.AsyncOpenAI:
        timeout = openai.Timeout(REQUEST_S, connect=5.0)
        http = openai.DefaultAsyncHttpxClient(timeout=timeout, follow_redirects=False)
        return openai.AsyncOpenAI(
            api_key=key, base_url=settings.openai_base_url, timeout=timeout, max_retries=0, http_client=http
        )

    # Certificates are read, and the HTTP package is imported: 70 ms.
    client = await trio.to_thread.run_sync(make)
    async with client:
        yield client


@asynccontextmanager
async def open_analyst(settings: Settings) -> AsyncIterator[Analyst]:
    """The analyst that ``settings`` ask for: OpenAI's model when there is a key, else the rules."""
    if settings.openai_api_key is None:
        yield ThreadedRules()
        return
    async with open_openai_client(settings) as client:
        yield OpenAiAnalyst(client, settings.summary_model)


def _is_worth_a_retry(error: Exception) -> bool | float:
    """For stamina: whether to try again at once, or after how many seconds."""
    if not isinstance(error, openai.APIStatusError):
        return isinstance(error, openai.APIConnectionError)
    if not _is_passing(error) or error.code == _NO_QUOTA:
        return False
    wait_s = _retry_after_s(error.response.headers.get("retry-after"))
    if wait_s is None:
        return True
    return wait_s if wait_s <= RETRY_AFTER_S else False


def _retry_after_s(value: str | None) -> float | None:
    """Retry-After in its number form; OpenAI sends no dates."""
    try:
        wait_s = float(value) if value else None
    except ValueError:
        return None
    return wait_s if wait_s is not None and 0 <= wait_s < float("inf") else None


def _is_passing(error: openai.APIStatusError) -> bool:
    """Whether a later try may do better."""
    return (
        error.status_code
        in (
            httpx.codes.REQUEST_TIMEOUT,
            httpx.codes.CONFLICT,
            httpx.codes.TOO_MANY_REQUESTS,
        )
        or error.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
    )


_ADVICE: Final = {
    400: "check AGENT_SUMMARY_MODEL: the model must take structured outputs",
    401: "set OPENAI_API_KEY to a valid key, then call-agent calls retry",
    403: "the key's project may not use this model or region; change it, then call-agent calls retry",
    404: "set AGENT_SUMMARY_MODEL to a model of the key's project, then call-agent calls retry",
}


def _judged(error: openai.APIStatusError, model: str) -> ProviderError | StepDeadError:
    """What the ledger understands. The text of a 401 repeats part of the key, so it is left out."""
    status = error.status_code
    body = error.body if isinstance(error.body, dict) else {}
    said = (
        cut(clean(str(body.get("message") or "")), _LONGEST_DETAIL) if status != httpx.codes.UNAUTHORIZED else ""
    )
    detail = f"the OpenAI API answers HTTP {status} for {model}" + (f": {said}" if said else "")
    if _is_passing(error):
        quota = "; the account's quota is used up, check its billing" if error.code == _NO_QUOTA else ""
        return ProviderError(detail + quota)
    return StepDeadError(f"{detail}; {_ADVICE.get(status, 'check OPENAI_BASE_URL and AGENT_SUMMARY_MODEL')}")
