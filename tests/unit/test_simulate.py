"""The simulation's stage: logs that can be rebuilt, quantities from the logs alone, claims and their tolerances."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from kvlab import config
from kvlab.accounting import account, final_tokens
from kvlab.errors import ConfigError, KvlabError, LogError
from kvlab.publish.words.strings import of_quantity, said
from kvlab.quantities import Message, Metrics
from kvlab.records import Run, Served, Step, read_lines, read_run
from kvlab.simulate.studies import paper_values as paper
from kvlab.simulate.studies import stage as simulate
from kvlab.simulate.studies import sweeps as studies
from kvlab.simulate.studies.cases import POLICIES, Case
from kvlab.simulate.timeline import Stay, rebuild

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def section(**change):
    """config/paper.yaml, small."""
    small = {"iterations": 700, "warmup_iterations": 100, "seeds": 2}
    workloads = {"sharegpt": {"lengths": {"kind": "paper"}}, "azure-conv": {"lengths": {"kind": "azure-conv"}}}
    data = {"run": "t", "simulation": small | {"workloads": workloads} | change}
    return config.parse(data, "test").section("simulate")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    return root, section(), simulate.simulate(section(), root)


def test_quantities_come_from_the_logs_and_are_the_same_each_time(made, tmp_path):
    root, settings, metrics = made
    metrics.write(tmp_path / "one.json")
    simulate.quantities(settings, root).write(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    again = tmp_path / root.name
    simulate.simulate(settings, again)
    for file in sorted((root / "simulated").rglob("*.json*")):
        assert (again / file.relative_to(root)).read_bytes() == file.read_bytes()


def test_every_quantity_leads_to_a_file_that_is_there(made):
    root, _, metrics = made
    assert Metrics.read(root / "simulated" / "metrics.json").files == metrics.files
    for quantity in metrics.quantities:
        assert quantity.sources
        for source in quantity.sources:
            assert (root / source.file).exists()


def test_a_changed_log_changes_the_number_or_is_refused(made, tmp_path):
    root, settings, metrics = made
    from shutil import copytree

    copy = tmp_path / "copy"
    copytree(root, copy)
    file = copy / "simulated/sharegpt/paged/0/stays.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[1:]) + "\n")
    key = "simulated.sharegpt.paged.tokens"
    assert simulate.quantities(settings, copy).quantities[key] != metrics.quantities[key]
    file.write_text("\n".join([*lines, lines[0]]) + "\n")  # a request twice at once
    with pytest.raises(LogError, match=r"sharegpt/paged/0: request .* twice"):
        simulate.quantities(settings, copy)
    file.unlink()
    with pytest.raises(LogError, match=r"stays\.jsonl"):
        simulate.quantities(settings, copy)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_rebuilt_from_the_log_is_what_was_simulated(policy):
    case = Case(policy, {"kind": "paper"}, 0, 4096, 2048, 500, 0, 16, 0.01)
    live = case.run()
    requests = int(live.waiting[0] + live.running[0])
    again = rebuild(
        [Stay(**json.loads(json.dumps(asdict(stay)))) for stay in live.stays], case.allocator(), requests, 500
    )
    for name in ("clock", "running", "waiting", "preempted", "blocks"):
        assert getattr(again, name).tolist() == getattr(live, name).tolist()


def test_the_steps_that_are_kept_account_to_the_same_shares(made):
    root, _, _ = made
    for policy in POLICIES:
        place = root / "simulated/azure-conv" / policy / "0"
        run, steps = read_run(place), read_lines(place / "steps.jsonl", Step)
        stays = read_lines(place / "stays.jsonl", Stay)
        served = [Served(stay.request, stay.prompt, stay.output, 0.0, [], None, None) for stay in stays]
        kept = account(run, steps, final_tokens(served))
        case = Case(**run.settings["case"] | {"sharing": ()})
        every = rebuild(stays, case.allocator(), run.settings["requests"], case.iterations)
        whole = replace(case, warmup=0).accounting(every, "azure-conv")
        for name in ("tokens", "reserved", "internal", "external", "rounding"):
            assert kept.series(name).tolist() == whole.series(name)[kept.step].tolist()


def test_the_order_of_policies_holds_on_every_workload(made):
    root, _, metrics = made
    for workload in ("sharegpt", "azure-conv"):
        for measure in ("tokens", "running"):
            values = [metrics.quantities[f"simulated.{workload}.{policy}.{measure}"].value for policy in POLICIES]
            assert values == sorted(values)
    ordering = [one for one in simulate.read_claims(root) if one.id.startswith("ordering.")]
    assert len(ordering) == 6
    assert {one.verdict for one in ordering} == {"held"}


def test_table_1_is_recomputed_to_the_slot(made):
    _, _, metrics = made
    slots = [metrics.quantities[f"simulated.table1.{name}.slots"].value for name in ("opt-13b", "opt-66b", "opt-175b")]
    assert slots == [15_728, 9_557, 60_074]
    assert metrics.quantities["simulated.table1.opt-13b.bytes-per-slot"].value == 800 * 1024


def test_orca_max_is_arithmetic(made):
    _, _, metrics = made
    q = metrics.quantities
    assert q["simulated.sharegpt.orca-max.running"].value == 7
    assert q["simulated.sharegpt.orca-max.external"].value == pytest.approx(1 - 7 * 2048 / 15_728)


def claims():
    return {claim["id"]: claim for claim in paper.read()["claims"]}


def rounded_up(distance, unit):
    return np.ceil(distance / unit) * unit


@pytest.fixture(scope="module")
def shapes():
    settings = config.load(ROOT / "config/paper.yaml").section("simulate")
    small = settings | {"studies": settings["studies"] | {"seeds": 1}}
    base = replace(simulate.base_case(small), iterations=8000, warmup=1000)

    def seeds(case, study, workload, label, x):
        yield studies.measure(case, study, workload, label, x)

    return list(studies._shapes(settings["studies"]["shapes"], base, settings["workloads"], seeds))


def test_tolerances_are_no_wider_than_what_other_lengths_make(shapes):
    checked = 0
    for claim in claims().values():
        _, workload, policy, measure, *_ = (*claim["quantity"].split("."), "")
        if workload != "sharegpt" or (claim.get("note") and claim["note"] != "calibrated on this bar"):
            continue
        values = [getattr(point, measure) for point in shapes if point.policy == policy]
        base = next(getattr(p, measure) for p in shapes if p.policy == policy and p.label == "gamma-1.6-0.877")
        distance = max(abs(value - base) for value in values)
        assert claim["tolerance"] <= rounded_up(distance, 0.1 if measure == "running" else 0.005) * 1.2, claim["id"]
        checked += 1
    assert checked == 12


def test_tolerances_of_sharing_are_no_wider_than_other_spreads_make():
    for n, key in ((2, "fig15.alpaca.n2"), (6, "fig15.alpaca.n6")):
        saved = []
        for spread in (0.79, 1.05, 1.31):
            lengths = {
                "kind": "paper",
                "prompt_mean": 19.31,
                "prompt_cv": 0.6,
                "output_mean": 58.45,
                "output_cv": spread,
            }
            case = Case("paged", lengths, 0, 15_728, 2048, 2500, 800, 16, 0.01, sharing=(("samples", n),))
            saved.append(studies.measure(case, "sharing", "alpaca", f"n{n}", n).saved)
        assert saved == sorted(saved, reverse=True)
        distance = max(abs(saved[0] - saved[1]), abs(saved[2] - saved[1]))
        assert claims()[key]["tolerance"] <= rounded_up(distance, 0.005) * 1.2


def test_a_claim_that_was_not_simulated_is_not_decided(made):
    root, _, _ = made
    verdicts = {one.id: one for one in simulate.read_claims(root)}
    assert verdicts["fig15.alpaca.n2"].verdict == "not decided"
    assert verdicts["fig15.alpaca.n2"].note


def test_every_formula_and_reason_is_there_in_both_languages(made):
    for quantity in made[2].quantities:
        for message in filter(None, (quantity.formula, quantity.why_none)):
            assert isinstance(message, Message), quantity.id
            english, chinese = said("en", message), said("zh", message)
            assert english != chinese
            assert "{" not in english + chinese
        assert "repeats" not in of_quantity("en", quantity)


def test_a_value_off_the_papers_fails(made):
    _, settings, metrics = made
    off = Metrics("t", type(metrics.quantities)())
    for quantity in metrics.quantities:
        moved = quantity.id == "simulated.sharegpt.orca-max.external"
        off.quantities.add(replace(quantity, value=quantity.value + 0.5) if moved else quantity)
    verdicts = {one.id: one.verdict for one in paper.judge(off.quantities, settings)}
    assert verdicts["fig2.orca-max.external"] == "failed"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"block_size": 0}, "simulation.block_size"),
        ({"pool_slots": 100, "block_size": 101}, "block_size 101 is larger than the pool"),
        ({"watermark": float("nan")}, "simulation.watermark"),
        ({"warmup_iterations": 700}, "no iteration is left"),
        ({"workloads": {}}, "simulation.workloads"),
        ({"workloads": {"w": {"lengths": {"kind": "paper", "output_cv": float("nan")}}}}, "output_cv"),
        ({"workloads": {"w": {"lengths": {"kind": "paper", "prompt_mean": 0}}}}, "prompt_mean"),
        ({"iteratoins": 5}, "no such key"),
    ],
)
def test_a_configuration_that_can_not_be_is_one_line(change, says):
    with pytest.raises(ConfigError, match=says) as caught:
        section(**change)
    assert "\n" not in str(caught.value)


def test_a_request_larger_than_the_pool_is_refused(tmp_path):
    with pytest.raises(KvlabError, match="raise the pool"):
        simulate.simulate(section(pool_slots=1024), tmp_path)


def test_a_run_without_a_simulation_says_so(tmp_path):
    with pytest.raises(LogError, match=r"claims\.json"):
        simulate.read_claims(tmp_path)
    with pytest.raises(LogError, match=r"table1\.jsonl"):
        simulate.quantities(section(), tmp_path)


def test_the_record_says_what_the_log_is(made):
    root, _, _ = made
    run: Run = read_run(root / "simulated/sharegpt/orca-pow2/1")
    assert (run.arm, run.repeat, run.pool_slots, run.block_size) == ("simulated-orca-pow2", 1, 15_728, 1)
    assert run.engine == {"name": "simulated", "allocator": "buddy"}
