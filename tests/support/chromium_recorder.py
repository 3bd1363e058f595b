"""The page in low bandwidth, in a real Chromium: a program of its own, as ``chromium_page`` is.

``python tests/support/chromium_recorder.py low URL MICROPHONE.wav`` prints what came of it as JSON.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from chromium_page import open_page, report, until_quiet
from playwright.sync_api import Page, WebSocket

from bench.parts.browser.chromium import AT_MOST_MS, state, until

OLD = "delete window.AudioWorkletNode; delete window.AudioWorklet;"
"""A browser without AudioWorklet."""
STUCK = """
window.waiting = 0;
Object.defineProperty(WebSocket.prototype, "bufferedAmount", { get: () => window.waiting });
"""
"""A network of which a test says how much waits for it."""


def until_understood(page: Page) -> None:
    """Wait until the question was written down, and then until nothing more is said."""
    page.wait_for_selector("#captions:has-text('opening hours?')", timeout=AT_MOST_MS, state="attached")
    until_quiet(page)


class Sent:
    """What the page sends."""

    def __init__(self, page: Page) -> None:
        self.hello = ""
        self.audio: list[bytes] = []
        page.on("websocket", self._watch)

    def _watch(self, socket: WebSocket) -> None:
        socket.on("framesent", self._take)

    def _take(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            self.audio.append(payload)
        elif '"hello"' in payload:
            self.hello = payload

    def report(self) -> dict[str, Any]:
        """In figures."""
        return {
            "format": json.loads(self.hello)["format"],
            "chunks": len(self.audio),
            "bytes": sum(map(len, self.audio)),
            "headers": sum(piece.startswith(b"\x1a\x45\xdf\xa3") for piece in self.audio),
        }


def converse(page: Page) -> dict[str, Any]:
    """A call until nothing more is said."""
    sent = Sent(page)
    page.get_by_role("button", name="Call").click()
    until(page, "talking")
    chosen = page.get_by_label("Low bandwidth")
    locked = chosen.is_visible() and chosen.is_disabled()
    until_understood(page)
    page.get_by_role("button", name="Hang up").click()
    until(page, "ended")
    return {**report(page), **sent.report(), "locked": locked}


def low(url: str, microphone: str) -> dict[str, Any]:
    """A conversation in low bandwidth; whether the choice is remembered."""
    with open_page(url, microphone) as page:
        page.get_by_label("Low bandwidth").check()
        page.reload()
        remembered = page.get_by_label("Low bandwidth").is_checked()
        return {**converse(page), "remembered": remembered}


def old(url: str, microphone: str) -> dict[str, Any]:
    """A conversation without AudioWorklet."""
    with open_page(url, microphone) as page:
        page.add_init_script(OLD)
        page.reload()
        choice = page.get_by_label("Low bandwidth").is_visible()
        return {**converse(page), "choice": choice}


def not_here(url: str, microphone: str) -> dict[str, Any]:
    """Low bandwidth is asked of a server that does not take it; then by a browser that can do nothing else."""
    with open_page(url, microphone) as page:
        page.get_by_label("Low bandwidth").check()
        sent = Sent(page)
        page.get_by_role("button", name="Call").click()
        until(page, "talking")
        page.wait_for_timeout(300)
        notice = page.inner_text("#trouble")
        page.get_by_role("button", name="Hang up").click()
        until(page, "ended")
        page.add_init_script(OLD)
        page.reload()
        page.get_by_role("button", name="Call").click()
        until(page, "error")
        return {**sent.report(), "notice": notice, "without": page.inner_text("#trouble")}


def stuck(url: str, microphone: str, chosen: str = "") -> dict[str, Any]:
    """More than 2 MB wait for the network, for two seconds of a call."""
    with open_page(url, microphone) as page:
        page.add_init_script(STUCK)
        page.reload()
        if chosen:
            page.get_by_label("Low bandwidth").check()
        sent = Sent(page)
        page.get_by_role("button", name="Call").click()
        until(page, "talking")
        page.wait_for_timeout(1000)
        page.evaluate("window.waiting = 3e6")
        page.wait_for_timeout(500)
        before, states = len(sent.audio), [state(page)]
        page.wait_for_timeout(1500)
        meanwhile, notice = len(sent.audio) - before, page.inner_text("#trouble")
        page.evaluate("window.waiting = 1e6")  # less, but not little: it stays closed
        page.wait_for_timeout(1200)
        meanwhile += len(sent.audio) - before
        page.evaluate("window.waiting = 0")
        page.wait_for_timeout(1500)
        states.append(state(page))
        after, cleared = len(sent.audio) - before, page.inner_text("#trouble") == ""
        until_understood(page)
        page.get_by_role("button", name="Hang up").click()
        until(page, "ended")
        told = {"states": states, "meanwhile": meanwhile, "after": after, "notice": notice, "cleared": cleared}
        return {**report(page), **sent.report(), **told}


if __name__ == "__main__":
    _, what, *arguments = sys.argv
    commands: dict[str, Callable[..., dict[str, Any]]]
    commands = {"low": low, "old": old, "not_here": not_here, "stuck": stuck}
    print(json.dumps(commands[what](*arguments)))  # noqa: T201 - its output
