"""Asks axe-core whether everybody can use the page, in every state and look; a program of its own.

``python tests/support/page_audit.py`` prints what is violated as JSON: state and look, rule, and where.
"""

import json
from importlib.resources import files
from typing import Any

from bench.parts.browser.chromium import open_chromium, open_tab
from bench.parts.browser.scenes import SCENES, open_site

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
"""axe-core (MPL-2.0), as the package brings it."""
DESK = {"width": 1000, "height": 800}


def audit() -> dict[str, Any]:
    """Violations by state and look, how many were looked at, and how many rules the least of them passed."""
    found, passed = {}, []
    with open_site() as url, open_chromium() as browser:
        for name, scene in SCENES.items():
            with open_tab(browser, viewport=DESK) as page:
                page.goto(f"{url}?lang=en")
                scene(page)
                page.evaluate(f"() => {{ {AXE} }}")
                for direction in ("ltr", "rtl"):
                    for scheme in ("light", "dark"):
                        page.emulate_media(color_scheme=scheme)
                        result = page.evaluate("() => axe.run()")
                        passed.append(len(result["passes"]))
                        if result["violations"]:
                            found[f"{name} {direction} {scheme}"] = _told(result["violations"])
                    page.click("#language")
    return {"looked_at": len(passed), "least_passed": min(passed), "violations": found}


def _told(violations: list[dict[str, Any]]) -> list[str]:
    """The rule, and where."""
    return [f"{one['id']}: {node['html'][:120]}" for one in violations for node in one["nodes"]]


if __name__ == "__main__":
    print(json.dumps(audit()))  # noqa: T201 - its output
