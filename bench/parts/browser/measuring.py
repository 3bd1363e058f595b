"""The figures of the browser's phone: a real server with the embedded model, and a real Chromium that listens.

Times in the speaker are those of a tap behind the page's own worklet, and what the browser says its output takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from bench.parts.browser.chromium import open_chromium, open_tab, state, until
from bench.parts.browser.cutting import Network, open_network
from bench.parts.browser.ear import LISTEN, Heard, answer_times_ms, listen_to, silence_times_ms
from bench.parts.browser.talking import newest_record, open_server, write_microphone

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from bench.rig.processes import Say

QUESTION: Final = "What are your opening hours?"
CLICKS: Final = 20
BETWEEN_S: Final = 3.2
"""An address gets 20 tokens a minute."""
TURNS: Final = 20
AWAY_S: Final = 5.0
ANSWER_MS: Final = 12_000
"""Longer than an answer to QUESTION: what a call ends with was heard to its end."""
_GREETING_MS: Final = 5000
_BETWEEN_MS: Final = 3600
"""From question to question: within the answer to the one before."""


@attrs.frozen
class Away:
    """A connection that broke in mid-answer."""

    silent_s: float
    """Without the agent's voice after the network was back."""
    played_ms: float
    """By the page, of that answer."""
    length_ms: int
    """Of that answer, as the record has it."""
    heard_ms: int


NOT_BACK: Final = Away(float("inf"), 0.0, 0, 0)
"""The call was given up."""


@attrs.frozen
class BrowserFigures:
    """Milliseconds, unless named otherwise."""

    first_words: list[float]
    leaving: list[float]
    """From the end of speech to the first audio leaving the server."""
    in_speaker: list[float]
    to_silence: list[float]
    heard_errors: list[float]
    """Of each answer: what the record says was heard, without what the page played."""
    closed: Away
    black_hole: Away
    page_bytes: int
    first_paint: float


def measure_browser(folder: Path, say: Say) -> BrowserFigures:
    """Measure all: five minutes. Needs Chromium; raises BenchError, and what Playwright raises."""
    asked = write_microphone(folder / "asked.wav", [(_GREETING_MS, QUESTION)], 60_000)
    asking = write_microphone(
        folder / "asking.wav", [(_GREETING_MS, QUESTION), *[(_BETWEEN_MS, QUESTION)] * (TURNS - 1)]
    )
    with open_server(folder / "agent") as server:
        url, calls = server.page, server.calls
        with open_chromium(str(asked)) as browser:
            say(f"{CLICKS} calls, to the first word")
            page_bytes, first_paint = _opened(browser, url)
            first_words = [_first_word(browser, url) for _ in range(CLICKS)]
            say("a connection that is closed in mid-answer, and one that swallows everything for 5 s")
            closed = _away(browser, url, calls, lambda network, _: network.break_connections())
            black_hole = _away(browser, url, calls, _swallow)
        say(f"a conversation of {TURNS} interruptions")
        with open_chromium(str(asking)) as browser:
            heard, record = _conversation(browser, url, calls)
    return BrowserFigures(
        first_words,
        [float(ms) for ms in record["metrics"]["turn_latencies_ms"]],
        answer_times_ms(heard),
        silence_times_ms(heard),
        heard_errors_ms(heard.played, record),
        closed,
        black_hole,
        page_bytes,
        first_paint,
    )


def heard_errors_ms(played: Mapping[str, float], record: Mapping[str, Any]) -> list[float]:
    """Of each answer the page played: what the record says, without what was played of it.

    The last frame of an answer is filled up with silence, which is played and is nothing to hear.
    """
    answers = [turn for turn in record["turns"] if turn["role"] == "agent" and turn["heard_ms"]]
    return [
        turn["heard_ms"] - min(played_ms, turn["audio_ms"])
        for turn, played_ms in zip(answers, (ms for ms in played.values() if ms), strict=True)
    ]


def _opened(browser: Browser, url: str) -> tuple[int, float]:
    """Bytes that the page takes on the wire, and its first paint."""
    with open_tab(browser) as page:
        page.goto(url)
        page.wait_for_timeout(1000)
        size = page.evaluate("""() => [...performance.getEntriesByType("navigation"),
            ...performance.getEntriesByType("resource")].reduce((sum, one) => sum + one.transferSize, 0)""")
        paint = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return int(size), float(paint)


def _first_word(browser: Browser, url: str) -> float:
    began_s = time.monotonic()
    with open_tab(browser) as page:
        page.goto(url)
        page.click("#call")
        page.wait_for_selector("html[data-first-word-ms]", state="attached")
        ms = float(page.evaluate("() => document.documentElement.dataset.firstWordMs"))
        _hang_up(page)
    time.sleep(max(BETWEEN_S - (time.monotonic() - began_s), 0))
    return ms


def _hang_up(page: Page) -> None:
    page.click("#hangup")
    until(page, "ended")


def _conversation(browser: Browser, url: str, calls: Path) -> tuple[Heard, dict[str, Any]]:
    with open_tab(browser, bypass_csp=True) as page:
        page.add_init_script(LISTEN)
        page.goto(url)
        page.click("#call")
        page.wait_for_function(
            f"document.querySelectorAll('#latency li').length >= {TURNS}", timeout=TURNS * 15_000
        )
        page.wait_for_timeout(ANSWER_MS)
        _hang_up(page)
        heard = listen_to(page)
    return heard, newest_record(calls)


def _swallow(network: Network, page: Page) -> None:
    network.swallow()
    page.wait_for_timeout(AWAY_S * 1000)
    network.pass_again()


def _away(browser: Browser, url: str, calls: Path, hurt: Callable[[Network, Page], None]) -> Away:
    """The network is hurt in the middle of the answer to a question; the answer is heard to its end."""
    with (
        open_network(int(url.rstrip("/").rpartition(":")[2])) as network,
        open_tab(browser, bypass_csp=True) as page,
    ):
        page.add_init_script(LISTEN)
        page.goto(f"http://localhost:{network.port}/")
        page.click("#call")
        page.wait_for_selector("#captions .caller", timeout=30_000)
        page.wait_for_timeout(2500)
        hurt(network, page)
        back_ms = float(page.evaluate("() => theEar.nowMs()"))
        page.wait_for_timeout(ANSWER_MS)
        if state(page) != "talking":
            return NOT_BACK
        _hang_up(page)
        heard, record = listen_to(page), newest_record(calls)
    answer = [turn for turn in record["turns"] if turn["role"] == "agent"][-1]
    return Away(
        silence_after(heard, back_ms) / 1000,
        list(heard.played.values())[-1],
        answer["audio_ms"],
        answer["heard_ms"],
    )


def silence_after(heard: Heard, back_ms: float) -> float:
    """Milliseconds until the agent's voice is heard after ``back_ms``; 0 while it is."""
    for spell in heard.speaker:
        if spell.end_ms >= back_ms:
            return max(spell.start_ms - back_ms, 0.0)
    return float("inf")
