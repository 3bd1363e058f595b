"""All that the steps use outside the database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs

from agent.core.settings import Settings
from agent.pipeline.analysis.extraction import Analyst
from agent.pipeline.analysis.openai_rest import open_analyst
from agent.pipeline.recording.carrier_media import open_twilio_recordings
from agent.pipeline.recording.download import RecordingSource
from agent.pipeline.transcription.transcribing import Transcriber, open_transcriber
from agent.pipeline.webhook.delivery import Delivery, deliver


@attrs.frozen
class Backends:
    """All that the steps use outside the database."""

    carrier: RecordingSource | None
    """None: there are no credentials for it."""
    transcriber: Transcriber
    analyst: Analyst
    recordings: Path
    """The folder that recordings are fetched into."""
    models: Mapping[str, str] = attrs.field(factory=dict)
    """The provider's model that a step uses, by step."""
    allow_inward: bool = False
    deliver: Callable[..., Awaitable[Delivery]] = deliver


@asynccontextmanager
async def open_backends(settings: Settings) -> AsyncIterator[Backends]:
    """The backends that the settings ask for: with a key OpenAI's, else those of this machine."""
    summary, recording = settings.summary_model, settings.recording_model
    models = {"transcription": recording, "summary": summary, "extraction": summary}
    async with AsyncExitStack() as stack:
        yield Backends(
            carrier=await stack.enter_async_context(open_twilio_recordings(settings)),
            transcriber=await stack.enter_async_context(open_transcriber(settings)),
            analyst=await stack.enter_async_context(open_analyst(settings)),
            recordings=settings.data_dir.absolute() / "recordings",
            models=models if settings.openai_api_key else {},
            allow_inward=settings.allow_inward_webhooks,
        )
