"""The page in a real Chromium, as a program of its own: Playwright brings an event loop that is not Trio's.

``python tests/support/chromium_page.py talk URL MICROPHONE.wav`` prints what came of it as JSON;
``python tests/support/chromium_page.py shots URL MICROPHONE.wav FOLDER`` takes a picture of each state.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

QUIET_MS = 2500
"""Nothing new for so long: the agent has said all it had to say."""
AT_MOST_MS = 40_000
SHAPES = {"phone": (390, 780), "desktop": (900, 900)}


def chromium() -> str | None:
    """Where it is; None: it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def open_page(url: str, microphone: str, **context: Any) -> Iterator[Page]:
    """The page, with a microphone that plays a file once; without a file the microphone is refused."""
    allowed = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    )
    refused = ("--use-fake-device-for-media-stream", "--deny-permission-prompts")
    arguments = ("--no-sandbox", "--disable-background-networking", *(allowed if microphone else refused))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(arguments))
        page = browser.new_context(**context).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        yield page
        assert not errors, errors
        browser.close()


def state(page: Page) -> str:
    """What ``<html data-call>`` says."""
    return str(page.evaluate("document.documentElement.dataset.call"))


def until(page: Page, wanted: str) -> None:
    """Wait for a state."""
    page.wait_for_selector(f'html[data-call="{wanted}"]', timeout=AT_MOST_MS, state="attached")


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
    }


def talk(url: str, microphone: str, *, cut_s: float = 0.0) -> dict[str, Any]:
    """A whole call by keyboard alone; with ``cut_s`` the network is away for so long in the middle of it."""
    with open_page(url, microphone) as page:
        page.get_by_role("button", name="Call").focus()
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
        page.get_by_role("button", name="Hang up").focus()
        page.keyboard.press("Enter")
        until(page, "ended")
        return {**report(page), "states": states}


def refused(url: str, _microphone: str) -> dict[str, Any]:
    """No microphone is given."""
    with open_page(url, "") as page:
        page.get_by_role("button", name="Call").click()
        until(page, "error")
        return report(page)


def shots(url: str, microphone: str, folder: str) -> dict[str, Any]:
    """A picture of each state, on a phone and on a desk, light and dark, in both directions of text."""
    for shape, (width, height) in SHAPES.items():
        for scheme in ("light", "dark"):
            for language in ("en", "he"):
                look: dict[str, Any] = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
                with open_page(f"{url}?lang={language}", microphone, **look) as page:
                    _shoot(page, Path(folder) / f"{shape}-{scheme}-{language}")
                with open_page(f"{url}?lang={language}", "", **look) as page:
                    page.get_by_role("button", name="Call").click()
                    until(page, "error")
                    page.screenshot(path=f"{folder}/{shape}-{scheme}-{language}-error.png", full_page=True)
    return {"pictures": len(list(Path(folder).glob("*.png")))}


def _shoot(page: Page, name: Path) -> None:
    page.screenshot(path=f"{name}-idle.png", full_page=True)
    page.get_by_role("button", name="Call").click()
    page.screenshot(path=f"{name}-connecting.png", full_page=True)
    until(page, "talking")
    page.wait_for_timeout(4500)
    page.screenshot(path=f"{name}-talking.png", full_page=True)
    page.context.set_offline(True)
    until(page, "reconnecting")
    page.screenshot(path=f"{name}-reconnecting.png", full_page=True)
    page.context.set_offline(False)
    until(page, "talking")
    page.get_by_role("button", name="Hang up").click()
    until(page, "ended")
    page.screenshot(path=f"{name}-ended.png", full_page=True)


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
    commands = {"talk": talk, "cut": cut, "refused": refused, "shots": shots, "widget": widget}
    print(json.dumps(commands[what](*arguments)))  # noqa: T201 - its output
