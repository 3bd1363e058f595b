"""What a browser is served besides the call: the page, the widget for other sites, and tokens."""

import mimetypes
import time
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Any, Final

import attrs
from fastapi import APIRouter, Body, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from agent.browser.admission import BrowserAdmission
from agent.browser.messages import PCM16
from agent.core.errors import AdmissionError

_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_STATUS: Final = {"browser_rate": 429, "browser_tenant": 404}
"""Of the answers to who may not phone, by kind; else 403."""
_NAME: Final = 100
"""Longest name of a tenant."""


@attrs.frozen
class PageFile:
    """A file of the page, in memory."""

    content: bytes
    media_type: str
    etag: str


def read_page() -> dict[str, PageFile]:
    """The files of the page by name."""
    found = {}
    for entry in files("agent.browser").joinpath("page").iterdir():
        suffix = f".{entry.name.rpartition('.')[2]}"
        media_type = _TYPES.get(suffix) or mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
        content = entry.read_bytes()
        found[entry.name] = PageFile(content, media_type, f'"{sha256(content).hexdigest()[:16]}"')
    return found


def browser_routes(admission: BrowserAdmission, formats: Sequence[str] = (PCM16,)) -> APIRouter:
    """The routes; whoever may not phone is served the page all the same, and told so when Call is pressed.

    ``formats`` are those of microphones that the server takes.
    """
    routes = APIRouter(include_in_schema=False)
    page = read_page()
    own = _policy("'none'")

    @routes.get("/")
    async def home(request: Request) -> Response:
        """The page."""
        return _answer(page["index.html"], request, own)

    @routes.get("/widget")
    async def widget(request: Request, tenant: str = "") -> Response:
        """The same page, in a frame of a site that may embed it."""
        return _answer(page["index.html"], request, _policy(admission.ancestors(tenant)))

    @routes.get("/browser/site")
    async def site(request: Request, tenant: str = "") -> Response:
        """What keeps the page that asks from phoning ``tenant``, in a sentence; none: nothing.

        Any site may ask, so that the widget can say what the browser would only show as an empty frame.
        """
        detail = admission.refusal(request.state.origin.client, request.headers, tenant)
        return JSONResponse({"detail": detail}, headers={"Access-Control-Allow-Origin": "*"})

    @routes.get("/widget.js")
    async def widget_script(request: Request) -> Response:
        """What another site includes."""
        return _answer(page["widget.js"], request, own)

    @routes.get("/browser/page/{name}")
    async def part(name: str, request: Request) -> Response:
        """A file of the page."""
        if name not in page:
            raise HTTPException(404, "no such file")
        return _answer(page[name], request, own)

    @routes.post("/browser/token")
    async def token(request: Request, asked: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        """A token for one call; ``tenant`` says who is to answer, by id or number."""
        client = request.state.origin.client
        tenant = str((asked or {}).get("tenant") or "")[:_NAME]
        try:
            origin = admission.check(client, request.headers, tenant)
            given = admission.issue(client, origin, tenant, time.time())
        except AdmissionError as error:
            raise HTTPException(_STATUS.get(error.kind, 403), error.detail) from None
        return {"token": given, "formats": formats}

    return routes


def _policy(ancestors: str) -> str:
    return (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; base-uri 'none'; "
        f"form-action 'none'; frame-ancestors {ancestors}"
    )


def _answer(part: PageFile, request: Request, policy: str) -> Response:
    headers = {
        "ETag": part.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    if request.headers.get("if-none-match") == part.etag:
        return Response(status_code=304, headers=headers)
    return Response(part.content, media_type=part.media_type, headers=headers)
