"""The page in a real Chromium, as a program of its own: Playwright brings an event loop that is not Trio's.

``python tests/support/chromium_page.py talk URL MICROPHONE.wav`` prints what came of it as JSON.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from bench.parts.browser.chromium import AT_MOST_MS, open_chromium, open_tab, state, until
from bench.parts.browser.ear import LISTEN, listen_to

QUIET_MS = 4000
"""Nothing new for so long: the agent has said all it had to say."""


@contextmanager
def open_page(url: str, microphone: str) -> Iterator[Page]:
    """The page, with a microphone that plays a file once; without a file the microphone is refused."""
    allowed = bool(microphone)
    with open_chromium(microphone, allowed=allowed) as browser, open_tab(browser, bypass_csp=True) as page:
        page.add_init_script(LISTEN)
        page.goto(url)
        yield page


def until_quiet(page: Page) -> None:
    """Wait until the captions do not change any more."""
    said, quiet_ms, waited_ms = "", 0, 0
    while quiet_ms < QUIET_MS and waited_ms < AT_MOST_MS:
        page.wait_for_timeout(250)
        now = page.inner_text("#captions")
        quiet_ms, said = (quiet_ms + 250 if now == said and now else 0), now
        waited_ms += 250


def report(page: Page) -> dict[str, Any]:
    """What the page shows and played."""
    data = page.evaluate("({...document.documentElement.dataset})")
    return {
        **data,
        "trouble": page.inner_text("#trouble") if page.is_visible("#trouble") else "",
        "captions": page.inner_text("#captions"),
        "latency": page.inner_text("#latency"),
        "played": listen_to(page).played,
    }


def talk(url: str, microphone: str, *, cut_s: float = 0.0) -> dict[str, Any]:
    """A whole call by keyboard alone; with ``cut_s`` the network is away for so long in the middle of it."""
    with open_page(url, microphone) as page:
        while not page.evaluate("document.activeElement.id === 'call'"):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        until(page, "talking")
        states = ["talking"]
        if cut_s:
            page.wait_for_timeout(1200)
            page.context.set_offline(True)
            page.wait_for_timeout(cut_s * 1000)
            states.append(state(page))
            page.context.set_offline(False)
            until(page, "talking")
        until_quiet(page)
        page.keyboard.press("Space")  # the focus is where the button was that began it
        until(page, "ended")
        return {**report(page), "states": states}


def restart(url: str, microphone: str) -> dict[str, Any]:
    """Somebody stops the server once we talk, and starts it again: what is said, and the next call."""
    with open_page(url, microphone) as page:
        page.get_by_role("button", name="Call").click()
        until(page, "talking")
        page.wait_for_function("document.querySelector('#captions .agent')?.textContent.length > 20")
        print("talking", flush=True)  # noqa: T201 - its output
        until(page, "error")
        trouble = page.inner_text("#trouble")
        input()
        page.get_by_role("button", name="Call").click()
        until(page, "talking")
        page.get_by_role("button", name="Hang up").click()
        until(page, "ended")
        return {**report(page), "trouble": trouble}


def unplugged(url: str, microphone: str) -> dict[str, Any]:
    """The microphone is pulled out in mid-call."""
    with open_page(url, microphone) as page:
        page.add_init_script("""
          const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (wanted) => (window.theStream = await ask(wanted));
        """)
        page.reload()
        page.get_by_role("button", name="Call").click()
        until(page, "talking")
        page.evaluate("theStream.getTracks()[0].dispatchEvent(new Event('ended'))")
        until(page, "error")
        page.wait_for_timeout(6000)  # less than the 10 s that a browser is waited for
        return report(page)


def refused(url: str, _microphone: str) -> dict[str, Any]:
    """No microphone is given."""
    with open_page(url, "") as page:
        page.get_by_role("button", name="Call").click()
        until(page, "error")
        return report(page)


def widget(url: str, microphone: str) -> dict[str, Any]:
    """Another site's page: whether the phone behind its button works; if not, what is said."""
    with open_page(url, microphone) as page:
        page.get_by_role("button", name="Talk to us").click()
        frame, notice = page.frame_locator("iframe"), page.get_by_role("alert")
        page.locator("iframe:visible, [role=alert]:visible").first.wait_for(timeout=AT_MOST_MS)
        if notice.is_visible():
            return {"shown": False, "notice": notice.inner_text(), "framed": _may_be_framed(page)}
        frame.get_by_role("button", name="Call").click()
        frame.locator('html[data-call="talking"]').wait_for(timeout=AT_MOST_MS, state="attached")
        return {"shown": True}


def _may_be_framed(page: Page) -> bool:
    """Whether the page gets the phone into a frame without asking."""
    page.evaluate("""() => {
      const source = new URL("widget", document.querySelector("script").src);
      document.body.append(Object.assign(document.createElement("iframe"), {id: "other", src: source}));
    }""")
    try:
        page.frame_locator("#other").get_by_role("button", name="Call").wait_for(timeout=3000)
    except PlaywrightTimeout:
        return False
    return True


def cut(url: str, microphone: str) -> dict[str, Any]:
    """The network is away for five seconds in the middle of an answer."""
    return talk(url, microphone, cut_s=5.0)


if __name__ == "__main__":
    _, what, *arguments = sys.argv
    commands: dict[str, Callable[..., dict[str, Any]]]
    commands = {
        "talk": talk,
        "cut": cut,
        "refused": refused,
        "restart": restart,
        "unplugged": unplugged,
        "widget": widget,
    }
    print(json.dumps(commands[what](*arguments)))  # noqa: T201 - its output
