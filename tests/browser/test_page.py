"""The page in a browser: numbers, languages, themes, widths, print, and prompts that hold HTML or scripts."""

import csv
import io
import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from kvlab.cli import main
from kvlab.publish.words.numbers import interval_text, text_of
from kvlab.publish.words.strings import of_quantity, said
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
    page = open_page()
    derived = page.evaluate("JSON.parse(document.getElementById('trail-data').textContent).quantities")
    quantities = Metrics.read(run / "metrics.json").quantities
    shown = page.evaluate(
        """() => [...document.querySelectorAll("[data-q]")].map((e) =>
             [e.dataset.q, e.closest(".en, .zh")?.classList.contains("zh") ? "zh" : "en", e.textContent])"""
    )
    assert {key for key, _, _ in shown} == set(derived) >= {quantity.id for quantity in quantities}
    for key, language, text in shown:
        told = derived[key]["v"]
        assert text == (told if isinstance(told, str) else told[language == "zh"]), key
        if key in quantities:
            assert text == text_of(quantities[key], language), key


def test_every_trail_opens_and_matches_the_metrics(open_page, metrics, run):
    quantities = Metrics.read(run / "metrics.json").quantities
    page = open_page()
    for key, quantity in metrics.items():
        trail = page.evaluate(READ_TRAIL, key)
        assert trail["open"]
        assert trail["id"] == key
        assert trail["value"] == text_of(quantities[key], "en")
        assert trail["formula"] == of_quantity("en", quantities[key])
        assert trail["n"] == str(quantity["n"])
        rows = {"all": "all", "document": "the document"}
        assert trail["sources"] == [
            [s["file"], rows.get(s["rows"], s["rows"]), s["sha256"]] for s in quantity["sources"]
        ]
        if quantity["value"] is None:
            assert said("en", quantities[key].why_none) in trail["body"]
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
    assert "显存" in page.title()
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


def test_prompts_with_html_and_scripts_are_shown_as_text(open_page):
    page = open_page()
    shown = page.locator("#same bdi").all_text_contents()
    for prompt, answer in HOSTILE:
        visible = answer.replace("\x00", "␀").replace("\x1b", "␛")
        assert prompt in shown
        assert visible in shown
    assert page.locator("img").count() == 0
    assert page.locator("b").count() == 0
    assert page.locator("script").count() == 6


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


@pytest.fixture(scope="session")
def planned(tmp_path_factory):
    """The page of `kvlab plan`."""
    file = tmp_path_factory.mktemp("plan") / "plan.html"
    words = ["plan", "--model", "tiny", "--kv-slots", "2048", "--lengths", "paper", "--seeds", "2"]
    assert main([*words, "--html", str(file)]) == 0
    return file


@pytest.mark.parametrize("which", ["report", "plan"])
@pytest.mark.parametrize(("scheme", "language", "width"), [("light", "en", 390), ("dark", "zh", 1280)])
def test_axe_finds_no_fault(open_page, run, planned, which, scheme, language, width):
    file = planned if which == "plan" else run / "report.html"
    view = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    page = open_page(f"?lang={language}", file, **view)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}}
    found = Axe().run(page, options=options).response["violations"]
    page.locator("[data-q]:visible").first.click()
    page.evaluate(
        "Promise.all(document.getAnimations().map((one) => one.finished))"
    )  # half faded in, it has no contrast
    found += Axe().run(page, context="#trail", options=options).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:160], v["nodes"][0]["failureSummary"]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_plans_number_says_its_formula_its_inputs_and_the_command(open_page, planned):
    page = open_page(file=planned)
    page.locator("[data-q='plan.paged.mean']:visible").first.click()
    shown = page.locator("#trail").inner_text()
    assert "mean over the time in which others wait" in shown
    assert "kvlab plan --model tiny --kv-slots 2048" in shown
    assert "--lengths" in shown
    assert "Nothing ahead" in page.locator("#trail-name").inner_text()
    page.locator("#trail-close").click()
    page.locator("[data-set-lang=zh]").click()
    assert page.locator("h1").inner_text().startswith("能容纳多少")


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440, 2200])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_wider_than_the_screen(open_page, width, language):
    page = open_page(f"?lang={language}", viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_a_long_verdict_of_a_claim_lies_on_no_number(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    overlaps = page.evaluate(
        """() => [...document.querySelectorAll(".claims li li")].filter((row) => {
             row.children[1].textContent = "not reproduced on this workload";
             const [a, b] = [row.children[1], row.children[2]].map((one) => one.getBoundingClientRect());
             return a.right > b.left && a.bottom > b.top;
           }).length"""
    )
    assert overlaps == 0
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
    assert "Workload pressured" in text  # what is chosen on the screen is printed in full
    assert "Filter by name" not in text
    assert len(printed.pages) < 30
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bg').trim()") == "#fff"
    assert page.locator("#pool-play").is_hidden()


def test_paper_keeps_short_tables_whole_and_leaves_no_page_half_empty(open_page):
    pypdf = pytest.importorskip("pypdf")
    for language, head in (("en", "Whole request, p95"), ("zh", "整个请求，p95")):
        page = open_page(f"?lang={language}")
        tables = page.get_by_role("columnheader", name=head, include_hidden=True).count()
        pages = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4"))).pages
        text = "".join("".join(one.extract_text().split()) for one in pages)
        assert text.count("".join(head.split())) == tables >= 2  # a split table says its head twice
        for number, one in enumerate(pages[:-1]):
            lowest = []
            one.extract_text(
                visitor_text=lambda t, cm, tm, _f, _s, low=lowest: (
                    low.append(cm[5] + tm[5] * cm[3]) if t.strip() else None
                )
            )
            assert min(lowest) < float(one.mediabox.height) / 2, (language, number)
        assert "▶" not in text  # what the screen unfolds, paper shows
        page.emulate_media(media="print")
        assert page.locator(".glossary dd").first.is_visible()
        assert page.locator("#what-if-title, #what-if").filter(visible=True).count() == 0


def test_the_page_is_complete_without_scripts(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("[data-workload=pressured]").first.is_visible()
    assert page.locator("#pool-play").is_hidden()
    assert "needs JavaScript" in page.locator("#pool noscript").inner_text()


def test_a_quantity_is_found_by_its_name(open_page):
    page = open_page()
    page.locator("#filter").fill("vllm-paged ttft")
    shown = page.locator("[data-name]:visible").all_text_contents()
    assert len(shown) == 6
    assert page.locator("#filter-count").text_content() == "6"
    page.locator("#filter").fill("no such thing")
    assert page.locator("#filter-none").is_visible()


def test_what_was_chosen_survives_a_reload_and_a_copied_address(open_page):
    page = open_page()
    page.locator("[data-set-lang=zh]").click()
    page.locator("#theme").click()
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.locator("#time [data-set-workload=seed]").click()
    page.locator("[name=pool-order][value=request]").check(force=True)
    page.select_option("#pool-follow", "2")
    moment = page.locator("#pool-time").text_content()
    page.locator(".contents a[href='#gpu']").click()
    page.wait_for_url("**#gpu&*lang=zh*")  # the link's address comes first, what was chosen is put back into it
    address = page.url
    for other in (page, open_page(address[address.index("#") :])):
        other.reload()
        assert other.evaluate("document.documentElement.lang") == "zh-Hans"
        assert other.evaluate("document.documentElement.dataset.theme") == theme
        assert other.locator("#pool-workload").input_value() == "seed"
        assert other.locator("#slots [data-workload=seed]").is_visible()
        assert other.locator("[name=pool-order][value=request]").is_checked()
        assert other.locator("#pool-follow").input_value() == "2"
        assert other.locator("#pool-time").text_content() == moment
        assert abs(other.locator("#gpu").bounding_box()["y"]) < 80
    page.locator("[data-q='seed.speedup']:visible").first.click()
    page.keyboard.press("Escape")
    assert "lang=zh" in page.url  # a number's trail is opened and closed; what was chosen before is still chosen


def test_an_address_that_makes_no_sense_is_ignored(open_page):
    page = open_page("#lang=xx&workload=none&t=abc&arms=,&theme=blue&order=no&request=999")
    assert page.locator("h1").inner_text().startswith("How much")
    assert page.locator("#pool-workload").input_value() == "pressured"


def read_download(page, link):
    with page.expect_download() as download:
        link.click()
    return download.value.suggested_filename, download.value.path().read_text(encoding="utf-8")


def test_all_quantities_are_there_as_json_and_csv(open_page, metrics, run):
    quantities = Metrics.read(run / "metrics.json").quantities
    page = open_page(accept_downloads=True)
    name, text = read_download(page, page.locator("[data-take=json]"))
    assert name == "small.json"
    told = {one["id"]: one for one in json.loads(text)["quantities"]}
    for key, quantity in metrics.items():
        for field in ("value", "unit", "n", "sources"):
            assert told[key][field] == quantity[field], (key, field)
        assert told[key]["formula"] == of_quantity("en", quantities[key])
        assert (told[key]["why_none"] is None) == (quantity["value"] is not None)
        assert told[key]["interval"] == quantity["interval"]
    name, text = read_download(page, page.locator("[data-take=csv]"))
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert rows.keys() == told.keys()
    assert float(rows["seed.speedup"]["value"]) == metrics["seed.speedup"]["value"]


def test_every_table_is_there_as_csv(open_page, metrics):
    page = open_page("#lang=zh&workload=seed", accept_downloads=True)
    tables = page.locator("main .scroll > table").count()
    assert page.locator("main a.take-table").count() == tables > 8
    _, text = read_download(page, page.locator("#slots [data-workload=seed] a.take-table").first)
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][0] == "实验组"
    assert rows[0][1].endswith("[share]")
    paged = next(row for row in rows if "vllm-paged" in row[0])
    assert float(paged[1]) == metrics["seed.vllm-paged.efficiency"]["value"]


def test_the_contents_come_first_and_a_section_is_one_stop_for_its_numbers(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('nav')?.className") == "contents"
    stops = page.evaluate(
        """() => [...document.querySelectorAll("main section")].map((section) =>
             [...section.querySelectorAll(".q")].filter((e) => e.tabIndex === 0 && e.offsetParent).length)"""
    )
    assert max(stops) == 1
    page.locator("#answer .q:visible").first.focus()
    first = page.evaluate("document.activeElement.dataset.q")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.dataset.q || document.activeElement.dataset.f")
    assert second != first
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.dataset.q || document.activeElement.dataset.f") == second


def test_what_scrolls_says_so_and_only_that_is_a_stop(open_page):
    for width in (390, 1440):
        page = open_page(viewport={"width": width, "height": 900})
        found = page.evaluate(
            """() => [...document.querySelectorAll(".scroll")].filter((e) => e.offsetParent).map((e) =>
                 [e.scrollWidth > e.clientWidth + 1, e.tabIndex === 0, getComputedStyle(e, "::before").content])"""
        )
        assert any(more for more, _, _ in found) == (width == 390)
        for more, stop, says in found:
            assert stop == more
            assert ("scrolls" in says) == more


@pytest.mark.parametrize("width", [390, 768])
def test_a_tables_rows_keep_their_name_while_they_scroll(open_page, width):
    page = open_page(viewport={"width": width, "height": 900})
    apart = page.evaluate(
        """() => [...document.querySelectorAll(".scroll.scrolls:has(tbody th)")].map((e) => {
             e.scrollLeft = 1e6;
             return e.querySelector("tbody th").getBoundingClientRect().left - e.getBoundingClientRect().left;
           })"""
    )
    assert all(abs(one) < 1 for one in apart)
    narrow, loose = page.evaluate(
        """() => [
             [...document.querySelectorAll(".scroll thead th")].filter((e) => e.offsetParent)
               .filter((e) => e.clientWidth < 48).length,
             [...document.querySelectorAll(".scrolls thead th:last-child")].map((e) => getComputedStyle(e).position),
           ]"""
    )
    assert narrow == 0  # a head of one character a line
    assert set(loose) <= {"static"}
    assert len(apart) > 3 or width > 390


def test_an_id_stays_on_one_line(open_page):
    for width in (320, 390, 768, 1280):
        page = open_page(viewport={"width": width, "height": 900})
        lines = page.evaluate(
            """() => [...document.querySelectorAll(":is(h2, h3, caption, th, dd, p) :is(.word, .arm code)")]
                 .filter((e) => e.offsetParent && /^[a-z]+(-[a-z0-9]+)+$/.test(e.textContent))
                 .map((e) => [e.textContent, e.getClientRects().length])"""
        )
        assert len(lines) > 10
        assert {count for _, count in lines} == {1}, [text for text, count in lines if count > 1]


def test_the_contents_fade_where_they_go_on_and_follow_the_reader(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    contents = page.locator(".contents ol")
    assert "more-right" in contents.get_attribute("class")
    page.locator("#proof").evaluate("e => e.scrollIntoView()")
    page.wait_for_function("document.querySelector('.contents [aria-current]')?.hash === '#proof'")
    link, frame = page.locator(".contents [aria-current]").bounding_box(), contents.bounding_box()
    assert frame["x"] <= link["x"] <= link["x"] + link["width"] <= frame["x"] + frame["width"]
    page.wait_for_function("document.querySelector('.contents ol').classList.contains('more-left')")
    wide = open_page(viewport={"width": 2200, "height": 844})
    assert wide.locator(".more-left, .more-right").count() == 0


def test_the_cards_stand_in_one_row_or_one_column(open_page):
    for width in (390, 768, 1024, 1280):
        page = open_page(viewport={"width": width, "height": 900})
        rows = page.evaluate(
            "[...document.querySelectorAll('.answers article')].map((e) => Math.round(e.getBoundingClientRect().top))"
        )
        assert len(set(rows)) in (1, len(rows)), (width, rows)


def test_terms_are_explained_before_they_are_used(open_page):
    page = open_page()
    assert page.evaluate(
        "document.querySelector('.glossary').compareDocumentPosition(document.getElementById('pool')) & 4"
    )
    page.locator(".glossary summary").click()
    for term in ("arm", "slot", "contiguous", "paged", "prefill", "decode", "preemption"):
        assert (
            page.locator(".glossary dt .en", has_text=term).first.is_visible()
            or term in page.locator(".glossary").inner_text()
        )
