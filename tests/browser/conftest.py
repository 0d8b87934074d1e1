"""A page made from the fixture run, and Chromium to read it with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kvlab.publish.page import render as report
from tests.fixtures import small_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (workflow/setup --dev)")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECTION = {"language": "en", "title": None, "palette": "okabe-ito"}


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    root = small_run.build(tmp_path_factory.mktemp("page") / "small")
    report.render(SECTION, root)
    return root


@pytest.fixture(scope="session")
def metrics(run):
    document = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return {quantity["id"]: quantity for quantity in document["quantities"]}


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium found")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, run):
    """Open the page; at the end no error was logged and no request was sent."""
    contexts, complaints, requests = [], [], []

    def open_(query: str = "", file: Path | None = None, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"file://{file or run / 'report.html'}{query}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
