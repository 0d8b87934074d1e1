"""The two READMEs have the same sections, commands and figures; what the documents name is there."""

import json
import re
from pathlib import Path

import pytest
import yaml

from kvlab.arms import ARMS
from kvlab.publish import summary
from kvlab.publish.words.numbers import text_of
from kvlab.quantities import Metrics
from kvlab.raw import RawRun
from kvlab.records import cell as named
from kvlab.simulate.forecasts import forecast, predictions

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
RESULTS = (ROOT / "results/README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "ARTIFACT.md", "CONTRIBUTING.md")),
    *(ROOT / folder / "README.md" for folder in ("config", "docker", "results")),
    *ROOT.glob("docs/*.md"),
]


def commands(text):
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [re.sub(r"\s+#.*|<.*?>", "", line).strip() for line in lines if line and not line.startswith("#")]


def test_both_have_the_same_sections_and_commands():
    assert len(re.findall(r"^## ", ENGLISH, re.M)) == len(re.findall(r"^## ", CHINESE, re.M))
    assert commands(ENGLISH) == commands(CHINESE)


def test_every_arm_is_in_the_table():
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    assert [arm for arm in ARMS if f"| `{arm}` |" not in text] == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(file):
    text = file.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", text)
    assert [t for t in targets if t and not (file.parent / t).exists()] == []


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = {
        t for file in DOCUMENTS for t in re.findall(r"(?m)(?:^|`|&& )make ([a-z]+)", file.read_text(encoding="utf-8"))
    }
    assert named - known - {"that", "image"} == set()


def test_every_command_of_the_package_that_is_named_exists():
    from kvlab.cli import _parser

    known = set(re.findall(r"^    ([a-z-]+)\b", _parser().format_help(), re.M))
    assert {"measure", "agree", "plan"} <= known
    named = {
        c
        for file in DOCUMENTS
        for c in re.findall(r"(?:`|-m |^ *)kvlab ([a-z]+)[ `]", file.read_text(encoding="utf-8"), re.M)
    }
    assert named - known == set()


@pytest.fixture(scope="module")
def quantities():
    def read(run):
        return Metrics.read(ROOT / "results/reference" / run / "metrics.json").quantities

    return {run: read(run) for run in ("llama-8b", "opt-13b-policies", "llama-8b-tp1", "llama-8b-tp2")}


@pytest.mark.parametrize(
    ("text", "run"),
    [
        (ENGLISH, "llama-8b"),
        (CHINESE, "llama-8b"),
        *((RESULTS, run) for run in ("smoke-cpu", "llama-8b-batching", "opt-13b-policies")),
    ],
    ids=["en", "zh", "smoke", "batching", "policies"],
)
def test_the_tables_of_the_committed_runs_are_what_the_terminal_prints(text, run, capsys):
    summary.show(ROOT / "results/reference" / run)
    printed = capsys.readouterr()
    table = (printed.out + printed.err).replace("\xa0", " ").strip()
    assert f"```text\n{table}\n```" in text


def short(quantity):
    return text_of(quantity, "en").replace("\xa0", " ").removesuffix(" requests")


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_what_is_said_of_the_committed_runs_is_what_their_logs_say(text, quantities):
    large, policies = quantities["llama-8b"], quantities["opt-13b-policies"]
    for found, key in (
        (large, "azure-conv.queued.paging.running.mean"),
        (large, "azure-conv.queued.speedup"),
        (large, "azure-conv.queued.factor.engine"),
        (large, "azure-conv.queued.factor.batching"),
        (large, "azure-conv.queued.factor.paging"),
        (large, "azure-conv.factor.paging"),
        (large, "azure-conv.vllm-contiguous.tpot.median"),
        (large, "azure-conv.vllm-paged.tpot.median"),
        (large, "azure-conv.vllm-paged.recomputed.share"),
        *((quantities["llama-8b-tp1"], f"azure-conv.{key}") for key in ("queued.paging.running.mean", "paging.gain")),
        *((policies, f"open.sustained.vllm-{policy}") for policy in ("contiguous", "oracle")),
        *((policies, f"closed.paging.gain{over}") for over in ("", ".vllm-reserved")),
        (policies, "open.vllm-paged@8.4.recomputed.share"),
    ):
        assert short(found[key]) in text, key


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_the_table_of_the_paper_is_the_range_of_each_policys_highest_rates(text, quantities):
    found, taken = quantities["opt-13b-policies"], yaml.safe_load((ROOT / "config/opt-13b-policies.yaml").read_text())
    for arm, blocks in taken["workloads"]["open"]["arrivals"]["rates"].items():
        cells = [f"open.{arm}@{max(rates):g}" for rates in blocks]
        row = []
        for name in ("share.tokens", "running.mean"):
            low, *_, high = sorted((found[f"{cell}.queued.{name}"] for cell in cells), key=lambda one: one.value)
            row.append(short(low) if short(low) == short(high) else f"{short(low)}–{short(high)}")
        share, running = map(re.escape, row)
        rate = re.escape(f"{found[f'open.{arm}.sustained'].value:.2f} req/s")
        assert re.search(rf"\| {share} \| [\d.]+ % \| {running} \| [\d.]+ \| {rate} \|", text), arm


def test_what_is_said_of_two_gpus_is_what_their_logs_say(quantities):
    for run in ("llama-8b-tp1", "llama-8b-tp2"):
        for key in ("vllm-contiguous.throughput", "vllm-paged.throughput", "paging.gain"):
            assert text_of(quantities[run][f"azure-conv.{key}"], "en").replace("\xa0", " ") in RESULTS, key


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_what_is_said_of_the_predictions_is_what_was_committed_and_measured(text, quantities):
    found, off = quantities["opt-13b-policies"], []
    for cell in json.loads((ROOT / "config/predictions/opt-13b-policies.json").read_text())["cells"]:
        name = cell["arm"] + (f"@{cell['rate']:g}" if cell["rate"] else "")
        off.append(cell["expected"]["throughput"] / found[f"{cell['workload']}.{name}.throughput"].value - 1)
    assert f" {len(off)} " in text
    assert f"{max(map(abs, off)):.1%}" in text


PLAN = (ROOT / "docs/plan.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_worked_example_of_a_plan_is_what_the_command_gives(tmp_path):
    from kvlab.cli import main

    command = re.search(r"    (kvlab plan .*--kv-slots .*\n.*)\n", PLAN)[1].replace("\\\n", " ")
    command = command.replace("results/", f"{ROOT}/results/")
    assert main([*command.split()[1:], "--json", str(tmp_path / "plan.json")]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    together = {one["policy"]: one for one in plan["together"]}
    rows = {}
    for policy in ("orca-max", "orca-oracle", "reserved", "paged"):
        one = together[policy]
        gain = f" {one['gain']['mean']:.2f}× " if policy != "paged" else " "
        numbers = f"{one['throughput']['mean']:,.0f} | {one['sustained']['mean']:.1f}"
        rows[policy] = f"| {one['mean']['mean']:.1f} |{gain}| {numbers} |"
    assert [row for row in rows.values() if row not in PLAN] == []
    said = " ".join(PLAN.split())
    assert (
        f"starts at {plan['preempts_from']} requests together and costs {100 * plan['recomputed']['mean']:.1f} %"
        in said
    )
    assert f"below {plan['preempts_from']} would avoid it" in said


@pytest.mark.slow
def test_how_far_the_predictions_were_off_is_what_logs_and_predictions_give():
    root, off = ROOT / "results/reference/opt-13b-policies", {}
    for one in predictions.read(ROOT / "config/predictions/opt-13b-policies.json").cells:
        seen = forecast.measured(RawRun.read(root, one.workload, named(one.arm, one.rate), one.block))
        for field in ("throughput", "latency_mean", "per_token_mean", "running_queued", "tpot_median", "ttft_median"):
            if (found := getattr(seen, field)) and (expected := getattr(one.expected, field)):
                off.setdefault(field, []).append(100 * (expected / found - 1))
    assert len(off["throughput"]) == 29
    rows = {name: f"| {min(all):+.1f} % | {max(all):+.1f} % |" for name, all in off.items()}
    assert {name: row for name, row in rows.items() if row not in PLAN} == {}


def test_what_the_harness_costs_is_what_its_benchmarks_printed():
    printed = (ROOT / "results/reference/harness-h100.txt").read_text(encoding="utf-8")
    ratios = re.findall(
        r"^  ([\d.]+) \(([\d.]+) to ([\d.]+), (\d) rounds\), target at least ([\d.]+): met", printed, re.M
    )
    assert len(ratios) == 2
    for median, low, high, rounds, target in ratios:
        assert f"| {median} | {low} to {high}, {rounds} rounds | ≥ {target} |" in RESULTS


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_each_block_of_the_sustained_rates_is_told_and_what_bounds_the_one_that_does_not_enclose_them(text, quantities):
    found = quantities["opt-13b-policies"]
    first = found["open.vllm-paged.sustained"].samples[
        0
    ]  # the block in which the Orca policies stayed within the bound
    for arm, highest in (("vllm-contiguous", "2.2"), ("vllm-oracle", "4")):
        for ratio in found[f"open.sustained.{arm}"].samples:
            assert f"{ratio:.2f}×" in text
        assert found[f"open.{arm}@{highest}.normalized"].samples[0] < 50  # ms a token
        assert f"{first / float(highest):.2f}" in text
