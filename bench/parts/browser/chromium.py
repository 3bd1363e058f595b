"""Debian's Chromium, driven by Playwright, with a microphone that plays a file.

Playwright brings an event loop of its own, so what uses this runs in a program without Trio.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOW_TO_GET_IT: Final = "no Chromium: apt-get install chromium gets it"
AT_MOST_MS: Final = 40_000
_ALWAYS: Final = ("--no-sandbox", "--disable-background-networking", "--use-fake-device-for-media-stream")
_ALLOWED: Final = ("--use-fake-ui-for-media-stream",)
_REFUSED: Final = ("--deny-permission-prompts",)


def chromium() -> str | None:
    """Where it is; None: it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def open_chromium(microphone: str = "", *, allowed: bool = True) -> Iterator[Browser]:
    """A browser whose microphone plays the file ``microphone`` once, or beeps; or asks and is refused."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the [dev] extra

    arguments = [*_ALWAYS, *(_ALLOWED if allowed else _REFUSED)]
    if microphone:
        arguments.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()


@contextmanager
def open_tab(browser: Browser, **context: Any) -> Iterator[Page]:
    """A tab of its own. Raises RuntimeError when the page raised an error that it did not catch."""
    tab = browser.new_context(**context).new_page()
    tab.set_default_timeout(AT_MOST_MS)
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    tab.context.close()
    if errors:
        raise RuntimeError(f"the page did not catch: {errors}")


def state(page: Page) -> str:
    """What ``<html data-call>`` says."""
    return str(page.evaluate("document.documentElement.dataset.call"))


def until(page: Page, wanted: str, at_most_ms: float = AT_MOST_MS) -> None:
    """Wait for a state."""
    page.wait_for_selector(f'html[data-call="{wanted}"]', timeout=at_most_ms, state="attached")
