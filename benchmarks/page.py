"""How fast the page is: first paint, layout shift, size, and the pool view's frame rate, in headless Chromium.

  python benchmarks/page.py results/smoke/report.html

Prints the median of several loads from a cold browser context. The frame rate is that of the pool view while it plays,
on the workload with the largest pool; `late` is the part of the frames that came more than half a frame too late.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

FRAME_MS = 1000 / 60
LOADED = """() => new Promise((done) => {
  let shift = 0;
  new PerformanceObserver((list) => { for (const one of list.getEntries()) shift += one.value; })
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    const load = performance.getEntriesByType("navigation")[0];
    done([paint ? paint.startTime : NaN, load.domContentLoadedEventEnd, shift]);
  }, 500);
})"""
CHOOSE = """() => {
  const pools = JSON.parse(document.getElementById("pool-data").textContent);
  const blocks = (part) => part.block > 1 ? part.pool / part.block : 0;
  const size = (w) => Math.max(...Object.values(pools[w].arms).flatMap((parts) => Object.values(parts).map(blocks)));
  const select = document.getElementById("pool-workload");
  select.value = Object.keys(pools).sort((a, b) => size(b) - size(a))[0];
  select.dispatchEvent(new Event("change"));
  const slider = document.getElementById("pool-slider");
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  document.getElementById("pool-view").scrollIntoView({ behavior: "instant" });
  return select.value;
}"""
PLAY = """(ms) => new Promise((done) => {
  const gaps = [];
  let last = null, began = null;
  const frame = (now) => {
    began ??= now;
    if (last !== null) gaps.push(now - last);
    last = now;
    if (now - began < ms) requestAnimationFrame(frame); else done(gaps);
  };
  document.getElementById("pool-play").click();
  requestAnimationFrame(frame);
})"""


def first_paint(browser: Browser, url: str, loads: int) -> list[list[float]]:
    measured = []
    for _ in range(loads):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(url)
        measured.append(page.evaluate(LOADED))
        context.close()
    return measured


def frames(browser: Browser, url: str, seconds: float) -> tuple[str, list[float]]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url)
    workload = page.evaluate(CHOOSE)
    page.wait_for_timeout(500)
    gaps = page.evaluate(PLAY, 1000 * seconds)
    context.close()
    return workload, gaps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no Chromium found; install it, e.g. apt-get install chromium", file=sys.stderr)
        return 2
    url = f"file://{args.page.resolve()}"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        paints, loads, shifts = (list(column) for column in zip(*first_paint(browser, url, args.loads), strict=True))
        workload, gaps = frames(browser, url, args.seconds)
        browser.close()
    late = sum(gap > 1.5 * FRAME_MS for gap in gaps) / len(gaps)
    print(f"size                 {args.page.stat().st_size / 2**20:.2f} MiB")
    print(f"first paint          {statistics.median(paints):.0f} ms (worst of {args.loads}: {max(paints):.0f})")
    print(f"content loaded       {statistics.median(loads):.0f} ms")
    print(f"layout shift         {max(shifts):.4f}")
    print(f"pool view            {1000 * len(gaps) / sum(gaps):.1f} frames/s on {workload}, {late:.1%} late")
    return 0


if __name__ == "__main__":
    sys.exit(main())
