"""Take the READMEs' pictures of a page: the first screen in both languages, the pool view still and moving, a phone.

python -m tests.browser.screenshots docs/sample/report.html
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).resolve().parents[2] / "report" / "screenshots"
FRAMES, FRAME_MS, LAST_MS = 48, 160, 2000


def save(png: bytes, name: str) -> None:
    """With a palette of 256 colours: a third of the bytes, without a visible difference."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(FOLDER / name, optimize=True)
    tell(name)


def tell(name: str) -> None:
    print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size / 1024:.0f} KiB")


def film(browser: Browser, url: str, name: str) -> None:
    """The pool view from its first step to its last, both sides on one clock."""
    page = browser.new_page(viewport={"width": 900, "height": 900}, color_scheme="light")
    page.goto(url)
    page.add_style_tag(
        content=".pool-choices, header.top, nav.contents { display: none !important } .pools { padding: 12px }"
    )
    pools, slider = page.locator(".pools"), page.locator("#pool-slider")
    pools.scroll_into_view_if_needed()
    pictures = []
    for at in range(FRAMES):
        place = 10 + 990 * at // (FRAMES - 1)  # at 0 nothing runs yet
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", place)
        pictures.append(Image.open(io.BytesIO(pools.screenshot())).convert("RGB"))
    few = pictures[FRAMES // 2].quantize(128, dither=Image.Dither.NONE)  # one palette, or colours change as it plays
    pictures = [picture.quantize(palette=few, dither=Image.Dither.NONE).convert("RGB") for picture in pictures]
    times = [FRAME_MS] * (FRAMES - 1) + [LAST_MS]
    first, *rest = pictures
    first.save(FOLDER / name, save_all=True, append_images=rest, duration=times, loop=0, lossless=True, method=6)
    tell(name)


def take(browser: Browser, url: str) -> None:
    wide = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    wide.goto(url)
    save(wide.screenshot(), "first-screen.png")
    wide.locator("[data-set-lang=zh]").click()
    save(wide.screenshot(), "first-screen.zh.png")
    wide.locator("[data-set-lang=en]").click()
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
        film(browser, url, "pool.webp")
        browser.close()


if __name__ == "__main__":
    main()
