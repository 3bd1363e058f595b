"""The web side as ASGI applications: webhooks and readiness for all, metrics and more for the operator."""

import hmac
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated, Any, Final

import trio
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agent.carrier.front_door import STREAM_PATH
from agent.carrier.signature import path_prefix, stream_url
from agent.carrier.webhooks import VoiceWebhooks, voice_routes

NAME: Final = "call-agent"
VERSION: Final = version(NAME)
Figures = Callable[[], Awaitable[bytes]]
"""The metrics as Prometheus reads them. Raises trio.TooSlowError."""


def make_app(
    webhooks: VoiceWebhooks, admin_token: str | None = None, *more: APIRouter, figures: Figures | None = None
) -> FastAPI:
    """What the public port serves, ``more`` included. With ``admin_token`` also the operator's pages."""
    app = _bare_app()
    # A proxy may keep the public URL's prefix in front of our paths, or take it off.
    for prefix in dict.fromkeys(("", path_prefix(webhooks.check.public_url))):
        for routes in (voice_routes(webhooks), _readiness(webhooks), *more):
            app.include_router(routes, prefix=prefix, include_in_schema=not prefix)
    if admin_token is not None:
        app.include_router(_operators(webhooks, app, admin_token, figures), include_in_schema=False)
    app.middleware_stack = app.build_middleware_stack()  # 30 ms, else of the first request
    return app


def make_admin_app(
    webhooks: VoiceWebhooks, public: FastAPI, admin_token: str | None, figures: Figures | None = None
) -> FastAPI:
    """What the operator's port serves; to anybody there if there is no token."""
    app = _bare_app()
    app.include_router(_readiness(webhooks))
    app.include_router(_operators(webhooks, public, admin_token, figures))
    return app


def _bare_app() -> FastAPI:
    """Its interactive pages are off: they would load scripts from elsewhere."""
    return FastAPI(title=NAME, version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)


def _readiness(webhooks: VoiceWebhooks) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> dict[str, bool]:
        """Whether the process is alive."""
        return {"alive": True}

    @routes.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether calls can be taken: 200, or 503."""
        ready = not webhooks.admission.not_ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    return routes


def _operators(webhooks: VoiceWebhooks, public: FastAPI, token: str | None, figures: Figures | None) -> APIRouter:
    async def has_token(authorization: Annotated[str, Header()] = "") -> None:
        given = authorization.encode(errors="replace")
        if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise HTTPException(401, "this needs the admin token", {"WWW-Authenticate": "Bearer"})

    routes = APIRouter(dependencies=[Depends(has_token)])
    threads = trio.CapacityLimiter(1)

    async def own_figures() -> bytes:
        registry = webhooks.events.telemetry.registry
        return await trio.to_thread.run_sync(generate_latest, registry, limiter=threads)

    @routes.get("/")
    async def about() -> dict[str, Any]:
        """What this is, whether it takes calls, and where to go on."""
        base = webhooks.check.public_url or "https://..."
        return {
            "service": NAME,
            "version": VERSION,
            "what": "A phone agent: point a Twilio number's voice webhook (POST) at voice_webhook.",
            "voice_webhook": f"{base}/voice/incoming",
            "status_callback": f"{base}/voice/status",
            "media_stream": stream_url(base, STREAM_PATH),
            "not_ready": webhooks.admission.not_ready(),
            "see_also": ["/metrics", "/openapi.json"],
        }

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus; written in a thread, because that takes over a millisecond."""
        try:
            return Response(await (figures or own_figures)(), media_type=CONTENT_TYPE_LATEST)
        except trio.TooSlowError:
            raise HTTPException(503, "the parent of the server's processes does not answer") from None

    @routes.get("/openapi.json")
    async def description() -> dict[str, Any]:
        """The public port's routes."""
        return public.openapi()

    return routes
