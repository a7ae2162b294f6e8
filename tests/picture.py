"""Takes the picture of the README, docs/site.png, from the built website's home page. Run it with `make picture`."""

from __future__ import annotations

import sys

from tests.browser import chromium, launched
from tests.checkouts import ROOT

SIZE = {"width": 1280, "height": 800}


def main() -> None:
    """Take the picture of build/site/index.html with the system's Chromium."""
    program = chromium()
    page = (ROOT / "build" / "site" / "index.html").resolve()
    if program is None or not page.is_file():
        sys.exit("the picture needs Chromium, and the website that `skis site` builds")
    with launched(program) as browser:
        opened = browser.new_page(viewport=SIZE, color_scheme="light")
        opened.goto(page.as_uri(), wait_until="load")
        opened.screenshot(path=ROOT / "docs" / "site.png")


if __name__ == "__main__":
    main()
