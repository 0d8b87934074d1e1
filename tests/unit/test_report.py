"""The page as a file: the same bytes for the same run, complete, small, and escaped whatever a log holds."""

import html
import json
import re
import shutil

import pytest
import yaml
from tests.fixtures import small_run

from kvlab.catalogue import UndeclaredId
from kvlab.errors import KvlabError, LogError
from kvlab.paths import REPORT, ROOT
from kvlab.publish.check.claims import BOUNDS
from kvlab.publish.check.verify import numbers_shown
from kvlab.publish.page.answers import visible
from kvlab.publish.page.content import Content
from kvlab.publish.page.headlines import Headlines, verdict
from kvlab.publish.page.inline import inline_svg
from kvlab.publish.page.render import build, render
from kvlab.publish.page.trail import embed
from kvlab.publish.words.bilingual import recorded, text
from kvlab.publish.words.facts import Facts
from kvlab.quantities import Metrics, Quantities, Quantity

SECTION = {"language": "en", "title": None, "palette": "okabe-ito"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run.build(tmp_path_factory.mktemp("report") / "small")


@pytest.fixture(scope="module")
def page(run):
    return build(SECTION, run)


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(run, page, tmp_path):
    elsewhere = tmp_path / "moved"
    shutil.copytree(run, elsewhere)
    assert build(SECTION, elsewhere) == page
    assert render(SECTION, elsewhere) == page
    assert (elsewhere / "report.html").read_text(encoding="utf-8") == page


def test_the_page_names_no_path_or_user_of_this_machine(run, page):
    assert str(run) not in page
    assert str(run.parent) not in page


def test_it_loads_nothing_from_elsewhere(page):
    assert re.findall(r"""(?:src|srcset|action|poster)=["'][^"']""", page) == []
    links = set(re.findall(r'<(\w+)[^>]*?\bhref="(?!#)([^"]*)"', page))
    assert links == {("link", "data:,"), ("a", "https://arxiv.org/abs/2309.06180"), ("a", "https://ui.perfetto.dev")}
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_it_is_small(page):
    assert len(page.encode()) < 3 * 2**20


def test_ids_are_unique_and_labels_exist(page):
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    named = {one for names in re.findall(r'aria-labelledby="([^"]+)"', page) for one in names.split()}
    assert named <= set(ids)


def test_every_number_is_a_quantity(run, page):
    shown = {key for key, _ in numbers_shown(page)}
    known = json.loads(page.split('id="trail-data">')[1].split("</script>")[0])["quantities"]
    assert shown == set(known)  # each has its trail, also those that the page derives from the metrics
    assert shown >= {q.id for q in Metrics.read(run / "metrics.json").quantities}
    assert all(entry["v"] and "s" in entry for entry in known.values())


def test_the_language_and_the_title_are_the_configuration_s(run):
    chinese = build(SECTION | {"language": "zh", "title": "<My> title"}, run)
    assert '<html lang="zh-Hans" data-lang="zh">' in chinese
    assert "<h1>&lt;My&gt; title</h1>" in chinese


def test_another_palette_is_another_style(run, page):
    assert "--tokens: #0072B2" in page
    assert "--tokens: #4477AA" in build(SECTION | {"palette": "tol-bright"}, run)


def test_an_older_run_still_renders(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run, old, ignore=shutil.ignore_patterns("claims.json", "costs", "figures", "workloads"))
    page = build(SECTION, old)
    assert 'data-q="seed.speedup"' in page
    assert 'id="claims"' not in page


def test_a_run_without_pressure_makes_no_claim_about_paging(run, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    document = json.loads((alone / "metrics.json").read_text(encoding="utf-8"))
    del document["facts"]["workloads"]["pressured"]
    for name in ("runs", "guards"):
        document[name] = [one for one in document[name] if one["workload"] == "seed"]
    document["quantities"] = [q for q in document["quantities"] if q["id"].startswith("seed.")]
    (alone / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    page = build(SECTION, alone)
    assert "This run makes no claim about paging by itself" in page
    assert "the paged pool was filled to 90% in less than" in page
    assert "不会据此对分页下结论" in page
    assert "unclaimed" in page.split("</style>")[1]


def test_where_sequential_arms_were_cut_both_sides_of_a_ratio_are_of_the_same_requests(run, page, tmp_path):
    assert "were given only the first" not in page
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    document = json.loads((cut / "metrics.json").read_text(encoding="utf-8"))
    of_all = next(q for q in document["quantities"] if q["id"] == "seed.vllm-paged.throughput")
    document["quantities"].append(of_all | {"id": "seed.vllm-paged.cut.throughput", "value": 12.5})
    (cut / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    shown = build(SECTION, cut)
    assert "were given only the first" in shown
    first_screen = shown.split('id="answer"')[1].split("</section>")[0]
    assert "12.5\u00a0tokens/s" in first_screen
    table = first_screen.split('id="original-caption"')[1]
    assert 'data-q="seed.vllm-paged.cut.throughput"' in table
    assert 'data-q="seed.vllm-paged.throughput"' not in table
    assert "With the queue full vLLM reaches" in first_screen  # and what it reaches with all requests stands beside it


def test_a_simulation_stands_beside_the_paper_s_values(run, page, tmp_path):
    assert 'id="simulated"' not in page
    both = tmp_path / "both"
    shutil.copytree(run, both)
    share = Quantity("simulated.sharegpt.paged.tokens", 0.969, "share", "tokens ÷ pool slots", 5, [])
    Metrics("small", Quantities([share])).write(both / "simulated" / "metrics.json")
    claim = {"id": "fig2.paged.tokens", "where": "Fig. 2", "quantity": share.id, "paper": 0.963, "unit": "share"}
    claims = [
        claim | {"verdict": "held", "note": ""},
        claim | {"verdict": "not decided", "quantity": "simulated.gone", "note": "?"},
    ]
    (both / "simulated" / "claims.json").write_text(json.dumps(claims), encoding="utf-8")
    shown = build(SECTION, both)
    assert (share.id, "96.9%") in numbers_shown(shown)
    assert "96.3%" in shown
    lengths = shown.split('id="lengths-title"')[1].split("</table>")[0]
    assert "Measured here with the authors' file" in html.unescape(lengths)
    assert "79,725 of its 84,226 pairs" in lengths
    assert {"161\u00a0tokens", "338\u00a0tokens", "2,047\u00a0tokens"} <= set(re.findall(r">([^<]+)<", lengths))


@pytest.mark.parametrize(
    ("arms", "says", "leaves_out"),
    [
        (["hf-sequential-static"], "With a cache preallocated to the maximum length, ", "vLLM holds"),
        (["vllm-paged"], "Of the KV slots that vLLM holds", "preallocated to the maximum length it"),
        (["hf-continuous"], "nothing to play", "tokens/s"),
        (["vllm-contiguous", "vllm-paged"], "is charged the maximum length", "The original comparison"),
        (["hf-sequential-static", "vllm-paged"], "be separated, since", "by paging <strong>alone"),
    ],
)
def test_any_choice_of_arms_gives_a_page(tmp_path, arms, says, leaves_out):
    seed = small_run.CONFIG["workloads"]["seed"] | {"arms": arms, "repeats": 1}
    settings = small_run.CONFIG | {"workloads": {"seed": seed}}
    page = build(SECTION, small_run.build(tmp_path / "few", figures=False, settings=settings))
    body = page.split("<main>")[1].split("</main>")[0]
    assert says in body
    assert leaves_out not in body


def test_a_run_without_paging_opens_with_what_its_reserving_arms_do(tmp_path, monkeypatch):
    monkeypatch.setitem(small_run.ARMS, "vllm-oracle", small_run.ARMS["vllm-paged"])
    arms = {"arms": ["vllm-contiguous", "vllm-oracle"], "repeats": 1}
    settings = small_run.CONFIG | {"workloads": {"pressured": small_run.CONFIG["workloads"]["pressured"] | arms}}
    page = build(SECTION, small_run.build(tmp_path / "reserving", figures=False, settings=settings))
    shown = [key for key, _ in numbers_shown(page.split('class="lede"')[1].split("</p>")[0])]
    arms = [key.split(".")[1] for key in shown]
    assert arms == 2 * ["vllm-oracle", "vllm-oracle", "vllm-contiguous", "vllm-contiguous"]


def test_a_missing_or_broken_file_is_named(run, tmp_path):
    with pytest.raises(KvlabError, match=r"metrics\.json"):
        build(SECTION, tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "raw" / "seed" / "vllm-paged" / "0" / "steps.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(LogError, match=r"steps\.jsonl:1"):
        build(SECTION, broken)


def test_the_counts_on_the_first_screen_are_those_of_all_claims(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    document = json.loads((copy / "claims.json").read_text())
    document["claims"][0]["verdict"] = "not here"
    (copy / "claims.json").write_text(json.dumps(document))
    first = re.search(r'<p class="verdicts">.*?</p>', build(SECTION, copy), re.S).group()
    assert "not reproduced on this workload" in first
    counts = [int(count) for count in re.findall(r'data-f="claims[^>]*>(\d+)</button>', first)]
    assert sum(counts) == len(document["claims"])


def test_a_single_claim_holds_and_in_chinese_too(page):
    claims = page.split('<ul class="claims')[1].split("</ul>\n\n")[0]
    assert 'outcome held"><span class="en" lang="en">holds</span><span class="zh" lang="zh-Hans">成立</span>' in claims


def test_a_claim_says_where_its_bound_is_from(page):
    """A bound that was set after runs had been seen is not shown as a prediction of them."""
    stated = yaml.safe_load((REPORT / "claims.yaml").read_text())["claims"]
    assert {claim["id"] for claim in stated if "expected" in claim and claim.get("bound") not in BOUNDS} == set()
    told = {claim["id"]: claim.get("bound") for claim in stated}
    assert (told["little-is-recomputed"], told["paging-is-faster"]) == ("seen", "beforehand")
    for id, bound in told.items():
        if (place := page.find(f"<code>{id}</code>")) >= 0:
            here = page[place:].partition("</p>")[0]
            assert ("set after runs of this project had been seen" in here) == (bound == "seen"), id


def test_an_id_in_a_sentence_does_not_break_at_its_hyphen():
    said = text("figures.workload", workload="azure-conv")
    assert said["en"] == 'Workload <span class="word">azure-conv</span>'
    assert text("figures.workload", workload="a <b>-c")["en"] == "Workload a &lt;b&gt;-c"
    message = "azure-conv/hf-sequential-static/0: it's <gone>"
    whole = (
        '<span class="word">azure-conv</span>/<span class="word">hf-sequential-static</span>/0: it&#39;s &lt;gone&gt;'
    )
    assert recorded(message)["en"] == whole


def test_data_in_a_script_element_can_not_end_it():
    nasty = {"x": "</script><!--\u2028\u2029&\ud800"}
    text = embed(nasty)
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("utf-8")
    assert json.loads(text) == nasty


def test_invisible_characters_are_made_visible():
    assert visible("a\x00b\x1b\x7f\n\tc") == "a␀b␛␡\n\tc"
    assert visible("half \ud83d") == "half \ufffd"
    assert visible("\u202eשלום e\u0301") == "\u202eשלום e\u0301"


@pytest.mark.parametrize(
    "inside",
    [
        "<script>1</script>",
        '<a href="https://x.org">',
        '<g onload="x()"/>',
        "<foreignObject/>",
        '<image href="x.png"/>',
    ],
)
def test_a_drawing_that_could_run_something_is_refused(inside):
    with pytest.raises(LogError, match="not a plain SVG"):
        inline_svg(f'<svg viewBox="0 0 1 1">{inside}</svg>', "f", "t")


def test_a_drawing_s_ids_are_its_own():
    inside = '<style>*{}</style><path id="a" d="M 1.234 5.678 \nL 2 3 \nL 6 3.01 \n"/><use href="#a"/><g id="b"/>'
    svg = f'<?xml?><svg viewBox="0 0 9.5 9">{inside}</svg>'
    made = inline_svg(svg, "p", "label")
    assert 'id="p-' in made
    assert made.count("p-") == 2
    assert 'd="M1.2 5.7l0.8 -2.7h4"' in made
    assert "<style>" not in made
    assert 'aria-labelledby="label"' in made


@pytest.mark.parametrize(
    ("value", "interval", "said"),
    [
        (None, None, "undecided"),
        (1.4, None, "one-run"),
        (1.4, (1.2, 1.5), "more"),
        (1.1, (0.98, 1.2), "same"),
        (0.9, (0.8, 0.95), "less"),
    ],
)
def test_only_an_interval_that_excludes_1_makes_a_difference_a_finding(value, interval, said):
    why = None if value else "nothing queued"
    assert verdict(Quantity("w.paging.gain", value, "ratio", "f", 3, [], interval, why_none=why)) == said
    assert verdict(None) == "undecided"


def test_headlines_come_from_the_workload_that_has_them(run):
    assert Headlines.of(Metrics.read(run / "metrics.json")) == Headlines("seed", "pressured", "more")


def test_a_template_that_asks_for_a_misspelt_id_fails_with_its_place(run, tmp_path, monkeypatch):
    from kvlab.publish.page import render

    templates = tmp_path / "report"
    shutil.copytree(render.REPORT, templates, ignore=shutil.ignore_patterns("screenshots"))
    file = templates / "templates" / "time.html.j2"
    lines = file.read_text(encoding="utf-8").split("\n")
    file.write_text("\n".join(["{{ n(get('seed.vllm-paged.througput')) }}", *lines]), encoding="utf-8")
    monkeypatch.setattr(render, "REPORT", templates)
    render.environment.cache_clear()
    try:
        with pytest.raises(UndeclaredId, match=r"^report/templates/time\.html\.j2:1: 'seed\.vllm-paged\.througput'"):
            build(SECTION, run)
    finally:
        render.environment.cache_clear()


def test_predictions_stand_beside_what_was_measured(run, page, tmp_path):
    assert 'id="plan"' not in page
    both = tmp_path / "both"
    shutil.copytree(run, both)
    fitted = {"calibration.base": (6.7, "ms"), "calibration.seconds": (32.6, "s")}
    said = (("predicted", 3605.0, "tokens/s"), ("unused", 3580.0, "tokens/s"), ("off", 0.007, "change"))
    arm = {f"vllm-contiguous.{kind}.throughput": (value, unit) for kind, value, unit in said}
    found = [Quantity(f"pressured.{key}", value, unit, "f", 1, []) for key, (value, unit) in (fitted | arm).items()]
    for key, value, unit in (("predicted.before", 1914.0, "tokens/s"), ("off.before", -0.004, "change")):
        found.append(Quantity(f"open.vllm-paged@8.4.{key}.throughput", value, unit, "f", 1, []))
    Metrics("small", Quantities(found)).write(both / "predicted" / "metrics.json")
    shown = build(SECTION, both)
    section = shown.split('id="plan"')[1].split("</section>")[0]
    assert {("pressured.vllm-contiguous.predicted.throughput", "3,605 tokens/s")} <= set(numbers_shown(section))
    assert {("pressured.vllm-contiguous.off.throughput", "+0.7%")} <= set(numbers_shown(section))
    assert "python -m kvlab plan" in re.sub(r"<[^>]*>", "", section)
    before = section.split('id="predicted-before"')[1]
    assert ("open.vllm-paged@8.4.predicted.before.throughput", "1,914 tokens/s") in numbers_shown(before)
    assert ("open.vllm-paged@8.4.off.before.throughput", "-0.4%") in numbers_shown(before)
    assert '"pressured.vllm-contiguous.off.throughput":' in shown.split('id="trail-data"')[1]


def test_where_the_gain_ends_and_what_if_stand_on_the_grid_that_was_computed(run, page, tmp_path):
    assert 'class="bars gains"' not in page
    grid = tmp_path / "grid"
    shutil.copytree(run, grid)
    point = {"block": 16, "max_len": 256, "rate": None, "throughput": 50.0}
    points = [
        point | {"policy": policy, "pool": pool, "together": together, "gain": gain}
        for policy, pool, together, gain in (
            ("orca-max", 768, 3.0, None),
            ("orca-max", 8192, 18.0, None),
            ("paged", 768, 6.5, 1.5),
            ("paged", 8192, 18.0, 1.0),
        )
    ]
    part = {"run": "pressured/vllm-paged/0", "own": {"pool": 768, "block": 16, "max_len": 256, "rate": None}}
    part |= {"axes": {"pool": [768, 8192], "block": [16], "max_len": [256], "rate": [None]}, "points": points}
    part["sources"] = [{"file": "raw/pressured/vllm-paged/0/run.json", "sha256": "a" * 64, "rows": "document"}]
    (grid / "predicted").mkdir()
    (grid / "predicted" / "grid.json").write_text(json.dumps({"workloads": {"pressured": part}}), encoding="utf-8")
    shown = build(SECTION, grid)
    why = shown.split('class="bars gains"')[1].split("</figure>")[0]
    assert ("pressured.predicted.pool-768.gain", "1.50×") in numbers_shown(why)
    assert ("pressured.predicted.pool-8192.gain", "1.00×") in numbers_shown(why)
    assert '"pressured.predicted.pool-768.gain":' in shown.split('id="trail-data"')[1]
    assert json.loads(shown.split('id="grid-data">')[1].split("</script>")[0])["points"] == points


@pytest.mark.parametrize(("run", "gpus"), [("llama-8b-tp1", None), ("llama-8b-tp2", "2")])
def test_a_run_on_several_gpus_says_on_how_many(run, gpus):
    root = ROOT / "results/reference" / run
    found = Content(root, Metrics.read(root / "metrics.json"), Facts(root)).workers("azure-conv")
    assert (found and found.text("en")) == gpus
