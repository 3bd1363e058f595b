"""Summary and particulars of a call by a model of OpenAI's REST API; the rules of ``extraction`` without a key.

Requests are made by the ``openai`` package's own post(): its typed methods build their types when first used,
on the event loop of a process that may be talking (ST-3).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import openai
import stamina
import trio
from typing_extensions import override

from agent.core.errors import ProviderError
from agent.core.settings import Settings
from agent.core.tenant import Tenant
from agent.pipeline.analysis.extraction import (
    Analyst,
    Extraction,
    TranscriptLine,
    extract_by_rules,
    summarise_by_rules,
)
from agent.pipeline.analysis.request import (
    extraction_request,
    is_worth_reading,
    read_extraction,
    read_summary,
    summary_request,
)
from agent.pipeline.openai_client import judged, open_openai_client, retry_soon

REQUEST_S: Final = 60.0
"""For one request; a reasoning model takes 5 to 20 s over a long call."""
ANALYSIS_S: Final = 120.0
"""For one summary or extraction with all its retries; the ledger's own retries come after that."""
ATTEMPTS: Final = 3
_ADVICE: Final = {
    400: "check AGENT_SUMMARY_MODEL: the model must take structured outputs",
    401: "set OPENAI_API_KEY to a valid key, then call-agent calls retry",
    403: "the key's project may not use this model or region; change it, then call-agent calls retry",
    404: "set AGENT_SUMMARY_MODEL to a model of the key's project, and the worker goes on",
}
_OTHERWISE: Final = "check OPENAI_BASE_URL and AGENT_SUMMARY_MODEL"


@attrs.define(eq=False)
class OpenAiAnalyst(Analyst):
    """``Analyst`` by the Responses API with ``model``; ``client`` is closed by whoever opened it."""

    client: openai.AsyncOpenAI
    model: str
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @override
    async def summarise(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> str:
        """Takes ANALYSIS_S at most."""
        if not is_worth_reading(conversation):
            return ""
        return read_summary(await self._ask(summary_request, conversation, tenant))

    @override
    async def extract(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> Extraction:
        """Takes ANALYSIS_S at most."""
        if not is_worth_reading(conversation):
            return Extraction()
        return read_extraction(await self._ask(extraction_request, conversation, tenant), tenant)

    async def _ask(
        self,
        make: Callable[[str, Sequence[TranscriptLine], Tenant], dict[str, Any]],
        conversation: Sequence[TranscriptLine],
        tenant: Tenant,
    ) -> object:
        """The answer's JSON, after quick retries. Raises as ``judged`` says."""
        # In a thread: the transcript of an hour takes some milliseconds.
        body = await trio.to_thread.run_sync(
            make, self.model, conversation, tenant, limiter=self._threads, abandon_on_cancel=True
        )
        try:
            with trio.fail_after(ANALYSIS_S):
                async for attempt in stamina.retry_context(
                    on=retry_soon, attempts=ATTEMPTS, timeout=ANALYSIS_S, wait_initial=0.5, wait_max=8.0
                ):
                    with attempt:
                        return await self.client.post("/responses", body=body, cast_to=object)
        except trio.TooSlowError:
            raise ProviderError(f"{self.model} gave no answer within {ANALYSIS_S:g} s") from None
        except openai.APIError as error:
            raise judged(error, self.model, _ADVICE, _OTHERWISE) from None
        except ValueError:
            raise ProviderError("the OpenAI API answered with something that is not JSON") from None
        raise AssertionError("stamina's last attempt returns or raises")


@attrs.define(eq=False)
class ThreadedRules(Analyst):
    """``Analyst`` by rules in a thread: a long call takes them 50 ms, which calls must not wait for (ST-3)."""

    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @override
    async def summarise(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> str:
        return await trio.to_thread.run_sync(
            summarise_by_rules, conversation, tenant, limiter=self._threads, abandon_on_cancel=True
        )

    @override
    async def extract(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> Extraction:
        return await trio.to_thread.run_sync(
            extract_by_rules, conversation, tenant, limiter=self._threads, abandon_on_cancel=True
        )


@asynccontextmanager
async def open_analyst(settings: Settings) -> AsyncIterator[Analyst]:
    """The analyst that ``settings`` ask for: OpenAI's model when there is a key, else the rules."""
    if settings.openai_api_key is None:
        yield ThreadedRules()
        return
    async with open_openai_client(settings, request_s=REQUEST_S) as client:
        yield OpenAiAnalyst(client, settings.summary_model)
