"""Every state of the page, one scene each, before a server that only plays its part: no agent runs.

A scene brings a fresh tab into its state. ``python -m bench screenshots`` takes pictures of them, and the tests
ask of each whether everybody can use it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from agent.browser.routes import read_page
from bench.parts.browser.chromium import until

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocketRoute

Scene = Callable[["Page"], None]
_PAGES: Final = read_page()
_FRAME: Final = bytes(960)
_TURNS: Final[tuple[dict[str, Any], ...]] = (
    {
        "id": "1",
        "role": "agent",
        "text": "Hello, this is Harbour Dental. How can I help you today?",
        "started_ms": 400,
        "length_ms": 3400,
    },
    {"id": "2", "role": "caller", "text": "When are you open?", "started_ms": 4600, "length_ms": 1300},
    {
        "id": "3",
        "role": "agent",
        "text": "We are open from Monday to Friday, from nine to six, and on Saturdays from nine to one.",
        "started_ms": 6300,
        "length_ms": 6200,
        "heard_ms": 2700,
        "heard": "We are open from Monday to Friday,",
        "interrupted": True,
    },
    {
        "id": "4",
        "role": "caller",
        "text": "תודה, אני רוצה לקבוע תור ליום ראשון בבוקר.",
        "started_ms": 9100,
        "length_ms": 2600,
    },
    {"id": "5", "role": "agent", "text": "בשמחה. מה השם שלך?", "started_ms": 12300, "length_ms": 1900},
)
_TIMES: Final = ((318, 92), (401, 61), (355, 70))


class _Page(BaseHTTPRequestHandler):
    """Serves the files of the page, and a token to whoever asks."""

    def do_GET(self) -> None:
        """A file."""
        path = urlsplit(self.path).path
        name = "index.html" if path in ("/", "/widget") else path.rpartition("/")[2]
        part = _PAGES.get(name)
        if part is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(part.content, part.media_type)

    def do_POST(self) -> None:
        """A token."""
        self._send(b'{"token": "T"}', "application/json")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Site(ThreadingHTTPServer):
    request_queue_size = 64
    """A tab opens half a dozen connections at once; one that finds no place here waits for seconds."""


@contextmanager
def open_site() -> Iterator[str]:
    """The page on a port of its own; its URL. Browsers let no test stand between them and their worklets."""
    site = _Site(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{site.server_address[1]}/"
    finally:
        site.shutdown()
        site.server_close()
        thread.join()


def _answering(page: Page, after: Callable[[WebSocketRoute], None], close: int | None = None) -> None:
    """A server that welcomes and does ``after``; or closes with a code."""

    def serve(socket: WebSocketRoute) -> None:
        def answer(message: str | bytes) -> None:
            if isinstance(message, bytes) or '"hello"' not in message:
                return
            if close is not None:
                socket.close(code=close, reason="")
                return
            _send(socket, "welcome", version=1, call="BR1", token="R", received=0, window_s=10)  # noqa: S106
            after(socket)

        socket.on_message(answer)

    page.route_web_socket("**/browser-stream", serve)
    page.reload()  # only what is opened from now on is routed


def _send(socket: WebSocketRoute, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def _converse(turns: int, times: int, then: Callable[[WebSocketRoute], None]) -> Callable[[WebSocketRoute], None]:
    def talk(socket: WebSocketRoute) -> None:
        for _ in range(10):
            socket.send(_FRAME)
        for turn in _TURNS[:turns]:
            whole = {"heard": turn["text"], "heard_ms": turn["length_ms"], "interrupted": False, **turn}
            _send(socket, "caption", **whole)
        for turn_ms, voice_ms in _TIMES[:times]:
            _send(socket, "latency", turn_ms=turn_ms, voice_ms=voice_ms, total_ms=turn_ms + voice_ms)
        then(socket)

    return talk


def _call(page: Page, wanted: str) -> None:
    page.click("#call")
    until(page, wanted)


def _talk(turns: int, times: int, wanted: str = "talking", then: Callable[[Any], None] = lambda _: None) -> Scene:
    def scene(page: Page) -> None:
        _answering(page, _converse(turns, times, then))
        _call(page, wanted)
        if turns:
            page.wait_for_function(f"document.querySelectorAll('#captions p').length === {turns}")

    return scene


def _closed(code: int) -> Scene:
    def scene(page: Page) -> None:
        _answering(page, lambda _: None, close=code)
        _call(page, "error")

    return scene


def _answered(status: int, detail: str = "") -> Scene:
    def scene(page: Page) -> None:
        page.route("**/browser/token", lambda route: route.fulfill(status=status, json={"detail": detail}))
        _call(page, "error")

    return scene


def _crippled(script: str) -> Scene:
    """Without what ``script`` takes away."""

    def scene(page: Page) -> None:
        page.evaluate(f"() => {{ {script}; }}")
        _call(page, "error")

    return scene


def _no_stream(error: str) -> str:
    return f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{error}'); }}"


def _connecting(page: Page) -> None:
    page.evaluate("() => { window.fetch = () => new Promise(() => {}); }")
    _call(page, "connecting")


def _keys(page: Page) -> None:
    _talk(1, 0)(page)
    page.keyboard.press("5")
    page.keyboard.press("#")


def _ended(outcome: str) -> Callable[[WebSocketRoute], None]:
    def end(socket: WebSocketRoute) -> None:
        _send(socket, "ended", outcome=outcome, reason="")
        socket.close(code=1000, reason="")

    return end


def _unplugged(page: Page) -> None:
    page.add_init_script("""
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => (window.theStream = await ask(wanted));
    """)
    _talk(2, 1)(page)
    page.evaluate("window.theStream.getTracks()[0].dispatchEvent(new Event('ended'))")
    until(page, "error")


def _lost(page: Page) -> None:
    _talk(3, 1, "reconnecting", lambda socket: socket.close(code=1001, reason=""))(page)
    page.evaluate("() => { const now = performance.now(); performance.now = () => now + 20000; }")
    until(page, "error")


def _unreachable(page: Page) -> None:
    page.route("**/browser/token", lambda route: route.abort())
    _call(page, "error")


def _nothing(_: Page) -> None:
    """As it is opened."""


SCENES: Final[Mapping[str, Scene]] = {
    "idle": _nothing,
    "connecting": _connecting,
    "talking": _talk(0, 0),
    "keys": _keys,
    "interrupted": _talk(3, 1),
    "reconnecting": _talk(3, 1, "reconnecting", lambda socket: socket.close(code=1001, reason="")),
    "ended": _talk(5, 3, "ended", _ended("caller_hung_up")),
    "ended-idle": _talk(1, 0, "ended", _ended("idle")),
    "ended-time": _talk(1, 0, "ended", _ended("time_limit")),
    "error-stopped": _talk(3, 1, "error", _ended("server_stopped")),
    "error-model": _talk(1, 0, "error", _ended("model_lost")),
    "error-unplugged": _unplugged,
    "error-lost": _lost,
    "error-unreachable": _unreachable,
    "error-insecure": _crippled("Object.defineProperty(window, 'isSecureContext', { value: false })"),
    "error-no-worklet": _crippled("window.AudioWorkletNode = window.MediaRecorder = undefined"),
    "error-no-microphone": _crippled(_no_stream("NotFoundError")),
    "error-taken": _crippled(_no_stream("NotReadableError")),
    "error-refused": _crippled(_no_stream("NotAllowedError")),
    "error-often": _answered(429),
    "error-nobody": _answered(404),
    "error-forbidden": _answered(403, "only this machine may phone"),
    "error-token": _closed(4401),
    "error-gone": _closed(4404),
    "error-release": _closed(4406),
    "error-elsewhere": _closed(4409),
    "error-flood": _closed(4413),
    "error-busy": _closed(4429),
}
"""By the name of their pictures."""
