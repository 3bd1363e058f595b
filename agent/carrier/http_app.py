"""The web side of the server as an ASGI application on hypercorn: webhooks, health, readiness, metrics."""

import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final, cast

import trio
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agent.carrier.front_door import PeekedStream
from agent.carrier.signature import path_prefix, stream_url
from agent.carrier.webhooks import STREAM_PATH, VoiceWebhooks, voice_routes

SERVICE: Final = "call-agent"
"""The name /healthz gives, by which ``dial`` and ``doctor`` know that they reached one of us."""
VERSION: Final = version(SERVICE)
KEEP_ALIVE_S: Final = 30.0
"""How long an idle connection is kept; proxies reuse theirs."""


def make_app(webhooks: VoiceWebhooks) -> FastAPI:
    """The ASGI application. Its interactive pages are off: they would load scripts from elsewhere."""
    app = FastAPI(title=SERVICE, version=VERSION, docs_url=None, redoc_url=None)
    # A proxy may keep the public URL's prefix in front of our paths, or take it off.
    for prefix in dict.fromkeys(("", path_prefix(webhooks.check.public_url))):
        for routes in (voice_routes(webhooks), _watch_routes(webhooks)):
            app.include_router(routes, prefix=prefix, include_in_schema=not prefix)

    @app.get("/")
    async def about(request: Request) -> dict[str, Any]:
        """What this is and where to go on."""
        base = webhooks.base(request)
        return {
            "service": SERVICE,
            "what": "A phone agent: point a Twilio number's voice webhook (POST) at voice_webhook.",
            "voice_webhook": f"{base}/voice/incoming",
            "status_callback": f"{base}/voice/status",
            "media_stream": stream_url(base, STREAM_PATH),
            "see_also": ["/healthz", "/readyz", "/metrics", "/openapi.json"],
        }

    @app.websocket("/{path:path}")
    async def no_websocket(socket: WebSocket) -> None:
        """Media streams never come here: the front door takes them off a fresh connection."""
        text = f"the only WebSocket here is {STREAM_PATH}, asked for as the first request of a connection\n"
        await socket.send_denial_response(PlainTextResponse(text, 404))

    return app


def _watch_routes(webhooks: VoiceWebhooks) -> APIRouter:
    routes = APIRouter()
    threads = trio.CapacityLimiter(1)

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process is alive."""
        return {"service": SERVICE, "version": VERSION}

    @routes.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether calls can be taken; 503 with the reason while not."""
        reason = webhooks.not_ready()
        return JSONResponse({"ready": not reason, "reason": reason}, 503 if reason else 200)

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus; written in a thread, because that takes over a millisecond."""
        registry = webhooks.events.telemetry.registry
        text = await trio.to_thread.run_sync(generate_latest, registry, limiter=threads)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return routes


def http_server(app: FastAPI) -> Callable[[PeekedStream], Awaitable[None]]:
    """Serves one connection after the other with ``app``: hypercorn without its accepting and starting.

    What hypercorn logs goes through our log's queue; it keeps no access log.
    """
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    context = WorkerContext(None)
    wrapped = ASGIWrapper(cast("Any", app))  # the two packages spell ASGI's types differently

    async def serve_http(stream: PeekedStream) -> None:
        # Any stream with a socket will do; the annotation is too narrow.
        await TCPServer(wrapped, config, context, {}, cast("Any", stream)).run()

    return serve_http
