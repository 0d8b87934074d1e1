"""What a reader of the page meets: its numbers, languages, themes, widths, paper, and texts that mean it harm."""

import io
import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from kvlab.publish.words.numbers import interval_text, text_of
from kvlab.quantities import Metrics
from tests.fixtures.small_run import HOSTILE

READ_TRAIL = """(id) => {
  document.querySelector(`[data-q="${id}"]`).click();
  const text = (selector) => document.querySelector(selector)?.textContent ?? null;
  const found = {
    open: document.getElementById("trail").open,
    id: text("#trail-id"),
    value: text(".trail-value"),
    formula: text(".formula"),
    n: text("[data-trail=n]"),
    interval: text("[data-trail=interval]"),
    exact: text("[data-trail=exact]"),
    sources: [...document.querySelectorAll(".sources tbody tr")].map((row) => [...row.cells].map((c) => c.textContent)),
    body: text("#trail-body"),
  };
  document.getElementById("trail").close();
  return found;
}"""


def test_every_number_shows_its_quantity_in_both_languages(open_page, run):
    quantities = Metrics.read(run / "metrics.json").quantities
    page = open_page()
    shown = page.evaluate(
        """() => [...document.querySelectorAll("[data-q]")].map((e) =>
             [e.dataset.q, e.closest(".en, .zh")?.classList.contains("zh") ? "zh" : "en", e.textContent])"""
    )
    assert {key for key, _, _ in shown} == {quantity.id for quantity in quantities}
    for key, language, text in shown:
        assert text == text_of(quantities[key], language), key


def test_every_trail_opens_and_matches_the_metrics(open_page, metrics, run):
    quantities = Metrics.read(run / "metrics.json").quantities
    page = open_page()
    for key, quantity in metrics.items():
        trail = page.evaluate(READ_TRAIL, key)
        assert trail["open"]
        assert trail["id"] == key
        assert trail["value"] == text_of(quantities[key], "en")
        assert trail["formula"] == quantity["formula"]
        assert trail["n"] == str(quantity["n"])
        rows = {"all": "all", "document": "the document"}
        assert trail["sources"] == [
            [s["file"], rows.get(s["rows"], s["rows"]), s["sha256"]] for s in quantity["sources"]
        ]
        if quantity["value"] is None:
            assert quantity["why_none"] in trail["body"]
        else:
            assert float(trail["exact"]) == quantity["value"]
        if quantity["interval"]:
            assert trail["interval"] == interval_text(quantities[key], "en")
        assert "python -m kvlab verify results/small/report.html" in trail["body"]


def test_a_trail_opens_by_mouse_and_keyboard_and_gives_the_focus_back(open_page):
    page = open_page()
    number = page.locator("[data-q='seed.speedup']:visible").first
    number.click()
    assert page.locator("#trail").is_visible()
    assert page.url.endswith("#q=seed.speedup")
    page.keyboard.press("Escape")
    assert not page.locator("#trail").is_visible()
    assert page.evaluate("document.activeElement.dataset.q") == "seed.speedup"
    page.keyboard.press("Enter")
    assert page.locator("#trail").is_visible()
    page.locator("#trail-close").click()
    assert "#" not in page.url


def test_an_address_leads_to_a_number_or_a_fact(open_page):
    assert open_page("#q=seed.speedup").locator("#trail-id").text_content() == "seed.speedup"
    page = open_page("#f=environment.json%23machine.cpu")
    assert page.locator(".trail-value").text_content() == "Fixture <b>CPU</b>"
    assert not open_page("#q=no.such.quantity").locator("#trail").is_visible()


def test_the_language_is_switched_in_the_page(open_page):
    page = open_page()
    assert page.locator("h1").inner_text().startswith("How much")
    page.locator("[data-set-lang=zh]").click()
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert "缓存" in page.title()
    assert page.locator("h1").inner_text().startswith("PagedAttention 能省下")
    assert page.locator("#pool-follow option").first.text_content() == "无"
    assert page.locator("[data-set-lang=zh]").get_attribute("aria-pressed") == "true"
    assert not re.search(
        r"[a-z]{4,} [a-z]{3,} [a-z]{3,} [a-z]{3,}", page.locator("#answer, #slots, #time").first.inner_text()
    )
    page.locator("[data-set-lang=en]").click()
    assert page.locator("h1").inner_text().startswith("How much")


def test_the_address_may_choose_the_language(open_page):
    assert open_page("?lang=zh").locator("h1").inner_text().startswith("PagedAttention")


def test_a_workload_is_chosen_for_the_whole_page_without_a_jump(open_page):
    page = open_page()
    button = page.locator("#time [data-set-workload=pressured]")
    button.scroll_into_view_if_needed()
    before = button.bounding_box()["y"]
    button.click()
    assert abs(button.bounding_box()["y"] - before) < 2
    assert page.locator("[data-workload=seed]:visible").count() == 0
    assert page.locator("#slots [data-workload=pressured]").is_visible()


def test_texts_that_mean_harm_are_text(open_page):
    page = open_page()
    shown = page.locator("#same bdi").all_text_contents()
    for prompt, answer in HOSTILE:
        visible = answer.replace("\x00", "␀").replace("\x1b", "␛")
        assert prompt in shown
        assert visible in shown
    assert page.locator("img").count() == 0
    assert page.locator("b").count() == 0
    assert page.locator("script").count() == 5


def test_no_other_script_may_run(browser, run, tmp_path):
    page_file = tmp_path / "report.html"
    html = (run / "report.html").read_text(encoding="utf-8")
    page_file.write_text(
        html.replace("</main>", "<script>window.harmed = 1</script><img src=x onerror='harmed = 1'></main>")
    )
    page = browser.new_page()
    page.goto(f"file://{page_file}")
    assert page.evaluate("window.harmed") is None
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_button(open_page, scheme):
    page = open_page(color_scheme=scheme)
    lightness = (
        "() => getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)"
    )
    assert (page.evaluate(lightness) > 384) == (scheme == "light")
    page.locator("#theme").click()
    assert (page.evaluate(lightness) > 384) == (scheme == "dark")


@pytest.mark.parametrize(("scheme", "language", "width"), [("light", "en", 390), ("dark", "zh", 1280)])
def test_axe_finds_nothing(open_page, scheme, language, width):
    page = open_page(
        f"?lang={language}", color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}}
    found = Axe().run(page, options=options).response["violations"]
    page.locator("[data-q]:visible").first.click()
    found += Axe().run(page, context="#trail", options=options).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:160], v["nodes"][0]["failureSummary"]) for v in found] == []


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440, 2200])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_wider_than_the_screen(open_page, width, language):
    page = open_page(f"?lang={language}", viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_moves_while_it_loads(open_page, width):
    page = open_page(viewport={"width": width, "height": 900})
    shift = page.evaluate(
        """() => new Promise((done) => {
             let sum = 0;
             new PerformanceObserver((list) => { for (const one of list.getEntries()) sum += one.value; })
               .observe({ type: "layout-shift", buffered: true });
             setTimeout(() => done(sum), 400);
           })"""
    )
    assert shift < 0.01


def test_it_prints(open_page):
    pypdf = pytest.importorskip("pypdf")
    page = open_page(color_scheme="dark")
    printed = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4")))
    text = " ".join(" ".join(one.extract_text() for one in printed.pages).split())
    assert "How much KV-cache memory and time" in text
    assert "Workload pressured" in text  # what the screen leaves to a choice, paper shows
    assert "Filter by name" not in text
    assert len(printed.pages) < 30
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bg').trim()") == "#fff"
    assert page.locator("#pool-play").is_hidden()


def test_it_is_whole_without_scripts(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("[data-workload=pressured]").first.is_visible()
    assert page.locator("#pool-play").is_hidden()
    assert "needs JavaScript" in page.locator("#pool noscript").inner_text()


def test_a_quantity_is_found_by_its_name(open_page):
    page = open_page()
    page.locator("#filter").fill("vllm-paged ttft")
    shown = page.locator("[data-name]:visible").all_text_contents()
    assert len(shown) == 4
    assert page.locator("#filter-count").text_content() == "4"
    page.locator("#filter").fill("no such thing")
    assert page.locator("#filter-none").is_visible()
