"""Pictures of every state of the page: on a phone and on a desk, light and dark, in both directions of text."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from bench.parts.browser.chromium import open_chromium, open_tab
from bench.parts.browser.scenes import SCENES, open_site
from bench.rig.processes import Say

SHAPES: Final = {"phone": (390, 780), "desktop": (1000, 800)}
SCHEMES: Final = ("light", "dark")
LANGUAGES: Final = ("en", "he")


def looks() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each look of the page: its name, its language, and how a tab gets it."""
    for shape, (width, height) in SHAPES.items():
        for scheme in SCHEMES:
            for language in LANGUAGES:
                look = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
                yield f"{shape}-{scheme}-{language}", language, look


def take_screenshots(folder: Path, only: Iterable[str], look_like: str, say: Say) -> int:
    """Take a picture of each scene, or of those named, in each look whose name has ``look_like`` in it.

    Returns how many. Needs Chromium.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen, count = tuple(only) or tuple(SCENES), 0
    with open_site() as url, open_chromium() as browser:
        for look, language, context in looks():
            if look_like not in look:
                continue
            say(f"{look}: {len(chosen)} pictures")
            for name in chosen:
                with open_tab(browser, **context) as page:
                    page.goto(f"{url}?lang={language}")
                    SCENES[name](page)
                    page.screenshot(path=folder / f"{look}-{name}.png", full_page=True, animations="disabled")
                    count += 1
    return count
