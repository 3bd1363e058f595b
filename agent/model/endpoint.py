"""Which model answers, and how it is reached: the provider's Realtime API, or the embedded one without a key."""

import importlib
from contextlib import AbstractAsyncContextManager
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import attrs
import trio

from agent.core.errors import ModelUnavailableError
from agent.core.event_log import EventLog
from agent.core.settings import DEFAULT_REALTIME_URL, Settings
from agent.wire.websocket import MessageSocket, client_tls, open_client


def model_url(url: str, model: str) -> str:
    """``url`` with the model in its query, as the Realtime API wants it; one that names a model is kept."""
    parts = urlsplit(url)
    if "model" in parse_qs(parts.query):
        return url
    named = f"model={quote(model, safe='')}"
    return urlunsplit(parts._replace(query=f"{parts.query}&{named}" if parts.query else named))


@attrs.define(eq=False)
class ModelSide:
    """Opens model sockets for calls, once ``run`` has found out where."""

    settings: Settings
    events: EventLog
    embedded_url: str = ""
    """Where an embedded model is that somebody else runs; empty: we do, if it is wanted."""
    _url: str | None = attrs.field(default=None, init=False)

    @property
    def not_ready(self) -> str:
        """Why no call can be answered yet; empty when one can."""
        return "" if self._url else "the model is starting"

    def connect(self) -> AbstractAsyncContextManager[MessageSocket]:
        """A new session with the model. Entering raises as open_client; this itself ModelUnavailableError."""
        if self._url is None:
            raise ModelUnavailableError(self.not_ready)
        key = self.settings.openai_api_key
        headers = [("Authorization", f"Bearer {key.get_secret_value()}")] if key else []
        return open_client(self._url, headers=headers)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the model there until cancelled; started, with its URL, when calls can be answered.

        The provider is not called before the first call: whether it can be reached is ``doctor``'s question.
        Raises LocalModelMissingError when the embedded model is wanted and not installed.
        """
        settings = self.settings
        if not settings.uses_embedded_model:
            url = settings.realtime_url or DEFAULT_REALTIME_URL
            if url.startswith("wss:"):
                await trio.to_thread.run_sync(client_tls)
            self._ready(url)
            task_status.started(url)
            await trio.sleep_forever()
        if self.embedded_url:
            self._ready(self.embedded_url)
            task_status.started(self.embedded_url)
            await trio.sleep_forever()
        # Imported only here: with a key, nothing of the [local] extra is loaded.
        local = importlib.import_module("agent.local.process")
        async with local.open_local_model() as url:
            self._ready(url)
            task_status.started(url)
            try:
                await trio.sleep_forever()
            finally:
                self._url = None

    def _ready(self, url: str) -> None:
        self._url = model_url(url, self.settings.model)
        kind = "embedded" if self.settings.uses_embedded_model else "provider"
        self.events.emit("MODEL_READY", model=kind, url=url)
