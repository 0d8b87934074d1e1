"""Take the README's pictures of a page: the first screen, the pool view, and a phone.

python -m tests.browser.screenshots results/smoke/report.html
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).resolve().parents[2] / "report" / "screenshots"


def save(png: bytes, name: str) -> None:
    """With a palette of 256 colours: a third of the bytes, and no eye sees it."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(FOLDER / name, optimize=True)
    print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size / 1024:.0f} KiB")


def take(browser: Browser, url: str) -> None:
    wide = browser.new_page(viewport={"width": 1440, "height": 960}, color_scheme="light")
    wide.goto(url)
    save(wide.screenshot(), "first-screen.png")
    wide.locator("#pool-view").scroll_into_view_if_needed()
    save(wide.locator("#pool-view").screenshot(), "pool-view.png")
    phone = browser.new_page(viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme="dark")
    phone.goto(f"{url}?lang=zh")
    phone.locator("#pool-view").evaluate("e => e.scrollIntoView({ behavior: 'instant' })")
    save(phone.screenshot(), "phone.png")


def main() -> None:
    url = f"file://{Path(sys.argv[1]).resolve()}"
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take(browser, url)
        browser.close()


if __name__ == "__main__":
    main()
