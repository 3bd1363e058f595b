"""Asks axe-core whether everybody can use the page, in every state and look; a program of its own.

``python tests/support/page_audit.py`` prints what is violated as JSON: state and look, rule, and where.
"""

import json
import re
from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

from bench.parts.browser.chromium import open_chromium, open_tab, state
from bench.parts.browser.scenes import SCENES, open_site

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
"""axe-core (MPL-2.0), as the package brings it."""
CALL, HANG_UP = re.compile("^Call"), re.compile("^Hang up")
LIVE = ("connecting", "talking", "reconnecting")
DESK = {"width": 1000, "height": 800}


def audit() -> dict[str, Any]:
    """Of each scene what it says and its state; violations by scene and look; rules passed, of the least."""
    found, passed, told = {}, [], {}
    with open_site() as url, open_chromium() as browser:
        for name, scene in SCENES.items():
            with open_tab(browser, viewport=DESK) as page:
                page.goto(f"{url}?lang=en")
                scene(page)
                page.evaluate(f"() => {{ {AXE} }}")
                told[name] = {"state": state(page), "trouble": page.inner_text("#trouble").strip()}
                for direction in ("ltr", "rtl"):
                    if page.evaluate("document.documentElement.dir") != direction or not _is_named(page):
                        found[f"{name} {direction}"] = ["the direction of text, or a button's name"]
                    for scheme in ("light", "dark"):
                        page.emulate_media(color_scheme=scheme)
                        result = page.evaluate("() => axe.run()")
                        passed.append(len(result["passes"]))
                        if result["violations"]:
                            found[f"{name} {direction} {scheme}"] = _told(result["violations"])
                    page.click("#language")
    return {"looked_at": len(passed), "least_passed": min(passed), "violations": found, "told": told}


def _is_named(page: Page) -> bool:
    """Whether the one big button is found by its English name, and the other is not there."""
    calls, hangs_up = (page.get_by_role("button", name=name).count() for name in (CALL, HANG_UP))
    return (calls, hangs_up) == ((0, 1) if state(page) in LIVE else (1, 0))


def _told(violations: list[dict[str, Any]]) -> list[str]:
    """The rule, and where."""
    return [f"{one['id']}: {node['html'][:120]}" for one in violations for node in one["nodes"]]


if __name__ == "__main__":
    print(json.dumps(audit()))  # noqa: T201 - its output
