"""Quantities computed from raw logs, against values worked out by hand."""

import re
from dataclasses import asdict, replace

import pytest
from tests.raw_logs import section, write_model, write_raw

from kvlab.analyse import steps as step_log
from kvlab.analyse.metrics import analyse
from kvlab.catalogue import UndeclaredId, unit_of
from kvlab.errors import LogError
from kvlab.messages import Message
from kvlab.paths import ROOT
from kvlab.publish.words.numbers import text_of
from kvlab.publish.words.strings import said
from kvlab.quantities import Metrics, Quantities, Quantity, Source
from kvlab.raw import RawRun
from kvlab.records import Output, Preemption, Sample, Served, Step, write_lines


@pytest.fixture
def root(tmp_path):
    write_model(tmp_path)
    return tmp_path


def one(root, arm="vllm-paged", **changes):
    write_raw(root, arm, **changes)
    return analyse(section(("w", arm, 0)), root)


def test_time(root):
    q = one(root).quantities
    assert q["w.vllm-paged.span"].value == pytest.approx(10.0)
    assert q["w.vllm-paged.throughput"].value == pytest.approx(0.6)
    assert q["w.vllm-paged.request_rate"].value == pytest.approx(0.2)
    assert q["w.vllm-paged.latency.median"].value == pytest.approx((3 + 10) / 2)
    assert q["w.vllm-paged.ttft.median"].value == pytest.approx(1000 * (1 + 4) / 2)
    assert q["w.vllm-paged.tpot.median"].value == pytest.approx(1000 * (1 + 3) / 2)


def test_memory_is_weighted_by_time(root):
    """Five steps of 1 s and a last one of 5 s: tokens 4, 5, 6, 4, 5, then 6 until the end."""
    q = one(root).quantities
    tokens = (4 + 5 + 6 + 4 + 5 + 5 * 6) / 10
    assert q["w.vllm-paged.share.tokens"].value == pytest.approx(tokens / 64)
    assert q["w.vllm-paged.efficiency"].value == pytest.approx(tokens / 16)
    assert q["w.vllm-paged.waste"].value == pytest.approx(1 - tokens / 16)
    shares = [q[f"w.vllm-paged.share.{name}"].value for name in ("tokens", "reserved", "internal", "external")]
    assert sum(shares) == pytest.approx(1.0)
    assert q["w.vllm-paged.kv.peak"].value == 16 * 1024


def test_contiguous_admission_is_charged_the_maximum_length(root):
    q = one(root, "vllm-contiguous", reserve_slots=32).quantities
    assert q["w.vllm-contiguous.slots.mean"].value == pytest.approx(32)
    assert q["w.vllm-contiguous.share.internal"].value == pytest.approx((32 - 6) / 64)


def test_device_memory_is_that_of_the_measured_time(root):
    samples = [Sample(0.5, 9000), Sample(2.0, 500), Sample(3.0, 700), Sample(20.0, 9000)]
    q = one(root, samples=samples).quantities
    assert q["w.vllm-paged.device.peak"].value == 700
    assert q["w.vllm-paged.device.rise"].value == 600
    assert q["w.vllm-paged.sampler.gap.max"].value == pytest.approx(17000)


def test_every_quantity_leads_to_files_that_are_there(root):
    from kvlab.records import digest

    metrics = one(root)
    for quantity in metrics.quantities:
        assert quantity.sources, quantity.id
        for source in quantity.sources:
            assert source.sha256 == digest(root / source.file) == metrics.files[source.file]


def test_the_same_logs_give_the_same_bytes(root, tmp_path):
    for repeat in range(3):
        write_raw(root, "vllm-paged", repeat, seconds=10 + repeat)
    which = [("w", "vllm-paged", r) for r in range(3)]
    for name in ("a.json", "b.json"):
        analyse(section(*which), root).write(tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    again = Metrics.read(tmp_path / "a.json")
    assert list(again.quantities) == list(analyse(section(*which), root).quantities)


def test_three_repeats_give_the_median_and_an_interval(root):
    for repeat, seconds in enumerate((10.0, 12.0, 11.0)):
        write_raw(root, "vllm-paged", repeat, seconds=seconds)
    q = analyse(section(*[("w", "vllm-paged", r) for r in range(3)]), root).quantities["w.vllm-paged.throughput"]
    assert q.samples == pytest.approx([6 / 10, 6 / 12, 6 / 11])
    assert q.value == pytest.approx(6 / 11)
    assert q.n == 3
    assert q.interval[0] <= q.value <= q.interval[1]


def ladder(root, spans):
    for arm, seconds in spans.items():
        extra = {"reserve_slots": 32} if arm == "vllm-contiguous" else {}
        write_raw(root, arm, seconds=seconds, **extra)
    return analyse(section(*[("w", arm, 0) for arm in spans]), root)


def test_the_factors_of_the_ladder_multiply_to_the_speedup(root):
    spans = {"hf-sequential-static": 40.0, "vllm-sequential": 20.0, "vllm-contiguous": 10.0, "vllm-paged": 8.0}
    q = ladder(root, spans).quantities
    factors = [q[f"w.factor.{name}"].value for name in ("engine", "batching", "paging")]
    assert factors == pytest.approx([2.0, 2.0, 1.25])
    assert q["w.speedup"].value == pytest.approx(factors[0] * factors[1] * factors[2])


def test_a_rung_that_is_missing_joins_two_factors(root):
    q = ladder(root, {"hf-sequential-static": 40.0, "vllm-sequential": 20.0, "vllm-paged": 8.0}).quantities
    assert q["w.factor.batching-and-paging"].value == pytest.approx(2.5)
    assert "w.factor.paging" not in q


def test_an_arm_that_was_not_asked_for_is_not_called_failed(root):
    """Not asked for, in both languages; and one that was asked for and could not run is named."""
    q = ladder(root, {"vllm-contiguous": 10.0, "vllm-paged": 8.0}).quantities
    for name in ("speedup", "vllm-paged.speedup", "efficiency.ratio", "efficiency.points"):
        assert text_of(q[f"w.{name}"], "en") == "not measured"
        assert text_of(q[f"w.{name}"], "zh") == "未测量"
        why = said("en", q[f"w.{name}"].why_none)
        assert why.startswith("this workload does not ask for the traditional way (")
        assert why.endswith("; it asks for vllm-contiguous, vllm-paged")
        assert "vllm-contiguous, vllm-paged" in said("zh", q[f"w.{name}"].why_none)
    write_raw(root, "hf-sequential-static", status="not_run", reason="out of memory")
    for file in ("phases", "steps", "requests", "device", "outputs"):
        (root / f"raw/w/hf-sequential-static/0/{file}.jsonl").write_text("")
    arms = ("hf-sequential-static", "vllm-contiguous", "vllm-paged")
    q = analyse(section(*[("w", arm, 0) for arm in arms]), root).quantities
    assert text_of(q["w.speedup"], "en") == "not run"
    assert said("en", q["w.efficiency.points"].why_none) == "hf-sequential-static was not run on this workload"


def test_a_cut_gives_ratios_the_same_requests(root):
    """The sequential arm served the first request only; the batch arm's own part of it is what it is compared with."""
    served = [Served(0, 4, 3, 1.0, [2.0, 3.0, 5.0], 5.0, "length", part="cut")]
    steps, outputs = [Step(0, 1.0, 1, 0, 0, 1, [[0, 4, 16]], "cut")], [Output(0, [0, 1, 2], "", "cut")]
    write_raw(root, "hf-sequential-static", served=served, parts=["cut"], steps=steps, outputs=outputs)
    folder = write_raw(root, "vllm-paged", parts=["all", "cut"])
    for name, line in {
        "requests.jsonl": '{"id":0,"prompt_tokens":4,"output_tokens":3,"arrival_s":20.0,"token_s":[20.5,20.8,21.0],'
        '"finish_s":21.0,"finish_reason":"length","part":"cut"}',
        "steps.jsonl": '{"step":6,"t_s":20.0,"running":1,"waiting":0,"preempted":0,"blocks":1,"held":[[0,4,16]],'
        '"part":"cut"}',
        "outputs.jsonl": '{"id":0,"token_ids":[0,1,2],"text":"","part":"cut"}',
        "phases.jsonl": '{"phase":"measure","start_s":19.9,"end_s":21.1,"part":"cut"}',
    }.items():
        with (folder / name).open("a") as stream:
            stream.write(line + "\n")
    phases = root / "raw/w/hf-sequential-static/0/phases.jsonl"
    phases.write_text(phases.read_text().replace('"end_s":11.5', '"end_s":11.5,"part":"cut"'))
    q = analyse(section(("w", "hf-sequential-static", 0), ("w", "vllm-paged", 0)), root).quantities
    assert q["w.vllm-paged.throughput"].value == pytest.approx(0.6)
    assert q["w.vllm-paged.cut.throughput"].value == pytest.approx(3.0)
    assert q["w.speedup"].value == pytest.approx(3.0 / (3 / 4))
    rows = {s.rows for s in q["w.vllm-paged.cut.throughput"].sources}
    assert rows == {"3-3"}


def test_an_arm_that_was_not_run_is_kept_with_its_reason(root):
    write_raw(root, "vllm-paged")
    write_raw(root, "vllm-paged-eager", status="not_run", reason="a CPU has no CUDA graphs to leave out")
    metrics = analyse(section(("w", "vllm-paged", 0), ("w", "vllm-paged-eager", 0)), root)
    entry = next(e for e in metrics.runs if e["arm"] == "vllm-paged-eager")
    assert (entry["status"], entry["reason"]) == ("not_run", "a CPU has no CUDA graphs to leave out")
    assert "w.vllm-paged-eager.throughput" not in metrics.quantities
    assert "vllm-paged-eager" in metrics.facts["workloads"]["w"]["arms"]


def test_why_an_arm_was_not_run_is_said_in_the_readers_language(root):
    """A run records the sentence and the message; what older runs recorded in English alone is quoted."""
    why = Message("no-gpu")
    write_raw(root, "vllm-paged")
    write_raw(root, "vllm-pow2", status="not_run", reason=said("en", why), why=asdict(why))
    write_raw(root, "vllm-oracle", status="not_run", reason=said("en", why))
    arms = ("vllm-paged", "vllm-pow2", "vllm-oracle")
    analyse(section(*(("w", arm, 0) for arm in arms)), root).write(root / "metrics.json")
    reasons = [entry["reason"] for entry in Metrics.read(root / "metrics.json").runs]
    assert reasons[1:] == [why, "measure.device is cuda, but no NVIDIA GPU answers on this machine"]
    assert said("zh", reasons[1]) == "measure.device 为 cuda，但本机没有可用的 NVIDIA GPU"


STEP = Step(0, 1.0, 1, 0, 0, 1, [[0, 4, 16]])
SERVED = Served(0, 4, 3, 1.0, [2.0, 3.0, 4.0], 4.0, "length")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        ({"outputs": [Output(0, [1], ""), Output(1, [1, 2, 3], "")]}, "disagree on the number of tokens"),
        ({"served": [replace(SERVED, cached_tokens=4)], "steps": [STEP]}, "4 prompt tokens came from a prefix cache"),
        ({"served": [SERVED, replace(SERVED, id=1, finish_s=None)], "steps": [STEP]}, "never finished"),
        ({"steps": [replace(STEP, blocks=2)]}, "blocks"),
        ({"steps": [replace(STEP, blocks=5, held=[[0, 4, 80]])]}, "more slots than the pool"),
        ({"steps": [replace(STEP, held=[[0, 17, 16]])]}, "more tokens than slots"),
        ({"steps": []}, "no step was recorded"),
    ],
)
def test_a_broken_run_is_left_out_and_says_why(root, spoil, fault):
    write_raw(root, "vllm-paged", 0)
    write_raw(root, "vllm-paged", 1, **spoil)
    metrics = analyse(section(("w", "vllm-paged", 0), ("w", "vllm-paged", 1)), root)
    good, bad = metrics.runs
    assert good["validity"] == "steady"
    assert bad["validity"] == "broken"
    assert fault in said("en", bad["reason"])
    assert re.search(r"[\u4e00-\u9fff]", said("zh", bad["reason"]))
    assert str(root) not in said("en", bad["reason"])
    assert metrics.quantities["w.vllm-paged.throughput"].n == 1


BATCH = {"arm": {"feed": "batch"}}


def guard(metrics, name):
    return next(g for g in metrics.guards if g["id"] == name)


def test_outputs_that_differ_fail_in_float32_and_are_reported_in_bfloat16(root):
    write_raw(root, "hf-sequential-static")
    other = [Output(0, [0, 1, 9], ""), Output(1, [0, 1, 2], "")]
    for dtype, outcome in (("float32", "fail"), ("bfloat16", "not decided")):
        write_raw(root, "hf-sequential-static", dtype=dtype)
        write_raw(root, "vllm-paged", outputs=other, dtype=dtype)
        metrics = analyse(section(("w", "hf-sequential-static", 0), ("w", "vllm-paged", 0)), root)
        found = guard(metrics, "same-outputs")
        assert found["outcome"] == outcome
        assert "w/vllm-paged/0 request 0 differs from output token 2 on" in said("en", found["detail"])
        assert metrics.quantities["w.vllm-paged.agreement"].value == 0.5
        assert metrics.quantities["w.vllm-paged.prefix_match"].value == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("change", "name", "outcome"),
    [
        ({}, "same-work", "pass"),
        ({"workload_sha256": "b" * 64}, "same-work", "fail"),
        ({"dtype": "bfloat16"}, "same-work", "fail"),
        ({"pool_slots": 128}, "equal-budget", "fail"),
        ({"pool_slots": 32}, "equal-budget", "pass"),
        (
            {"pool_slots": 32, "engine": {"name": "vllm"}, "settings": {"arm": {"feed": "batch"}}},
            "equal-budget",
            "fail",
        ),
        ({"samples": [Sample(2.0, 1000, other_processes=1)]}, "undisturbed", "fail"),
        ({"samples": [Sample(2.0, 1000, throttle=0x40)]}, "undisturbed", "fail"),
        ({"samples": [Sample(2.0, 1000, throttle=0x1)]}, "undisturbed", "pass"),
        ({"samples": [Sample(2.0, 1000)]}, "undisturbed", "not decided"),
        ({"samples": [Sample(2.0, 1000, utilisation=0.95)], "device": "cuda"}, "gpu-bound", "pass"),
        ({"samples": [Sample(2.0, 1000, utilisation=0.85)], "device": "cuda"}, "gpu-bound", "fail"),
        ({}, "gpu-bound", "not decided"),
    ],
)
def test_guards(root, change, name, outcome):
    watched = {"device": "cuda", "samples": [Sample(2.0, 1000, 1.0, throttle=0)]}
    write_raw(root, "hf-sequential-static", **(watched if change else {}))
    write_raw(root, "vllm-paged", **change)
    metrics = analyse(section(("w", "hf-sequential-static", 0), ("w", "vllm-paged", 0)), root)
    assert guard(metrics, name)["outcome"] == outcome


@pytest.mark.parametrize(
    ("name", "change", "outcome"),
    [
        ("same-engine", {}, "pass"),
        ("same-engine", {"max_num_seqs": 7}, "fail"),
        ("same-engine", {"engine": {"name": "vllm", "max_num_batched_tokens": 14336}}, "fail"),
        ("reserving-never-preempts", {}, "pass"),
        ("reserving-never-preempts", {"steps": [Step(0, 1.0, 1, 0, 1, 1, [[0, 4, 16]])]}, "fail"),
    ],
)
def test_policies_are_compared_on_one_engine(root, name, change, outcome):
    engine = {"name": "vllm", "max_num_batched_tokens": 16384}
    write_raw(root, "vllm-paged", **{"max_num_seqs": 64, "engine": engine, "settings": BATCH})
    reserving = {"max_num_seqs": 64, "engine": engine, "settings": BATCH, "reserve_slots": 32}
    write_raw(root, "vllm-contiguous", **(reserving | change))
    metrics = analyse(section(("w", "vllm-contiguous", 0), ("w", "vllm-paged", 0)), root)
    assert guard(metrics, name)["outcome"] == outcome


def pressed(root, *, waiting, slots):
    steps = [Step(i, 1.0 + i, 1, waiting, 0, slots // 16, [[0, 4, slots]]) for i in range(3)]
    write_raw(root, "vllm-contiguous", steps=steps, seconds=12.0, reserve_slots=64)
    write_raw(root, "vllm-paged", steps=steps)
    return analyse(section(("w", "vllm-contiguous", 0), ("w", "vllm-paged", 0)), root)


@pytest.mark.parametrize(
    ("waiting", "slots", "why"), [(0, 64, "nothing queued"), (2, 16, "was filled to 90% in less than"), (2, 64, None)]
)
def test_no_claim_about_paging_without_pressure(root, waiting, slots, why):
    metrics = pressed(root, waiting=waiting, slots=slots)
    gain = metrics.quantities["w.paging.gain"]
    if why:
        assert gain.value is None
        assert why in said("en", gain.why_none)
        assert guard(metrics, "pool-pressure")["outcome"] == "not decided"
    else:
        assert gain.value == pytest.approx(1.2)
        assert guard(metrics, "pool-pressure")["outcome"] == "pass"


def test_logs_in_another_runs_place_are_named(root):
    folder = write_raw(root, "vllm-paged", 0)
    folder.rename(folder.parent / "1")
    with pytest.raises(LogError, match="says it is w/vllm-paged/0; logs were moved or swapped"):
        analyse(section(("w", "vllm-paged", 1)), root)


def test_a_quantity_needs_a_value_or_a_reason_a_known_unit_and_an_id_of_its_own():
    good = Quantity("w.x", 1.0, "s", "f", 1, [Source("a", "b", "all")])
    for bad in ({"unit": "furlongs"}, {"value": float("nan")}, {"value": None}):
        with pytest.raises(ValueError, match=r"w\.x"):
            replace(good, **bad)
    with pytest.raises(ValueError, match="two quantities named"):
        Quantities([good, good])
    with pytest.raises(LogError, match=r"no quantity named 'w\.speedup'"):
        Quantities([good])["w.speedup"]
    assert Quantities([good]).get("w.vllm-paged.throughput") is None


@pytest.mark.parametrize("misspelt", ["w.vllm-paged.througput", "w.speed-up", "w.vllm-paged.queued.share.token", "y"])
def test_an_id_that_nothing_declares_is_an_error(misspelt):
    with pytest.raises(UndeclaredId, match="no quantity has such an id"):
        Quantities().get(misspelt)


def test_ids_across_arms_are_not_taken_for_an_arms():
    assert unit_of("w.paging.share.tokens") == unit_of("w.queued.paging.running.mean") == "ratio"
    assert unit_of("w.vllm-paged@2.5.normalized") == "ms/token"


def test_while_requests_queue_the_drain_does_not_count(root):
    """Two requests of which the second waits for 2 s; alone it runs 8 s more, and the pool is half empty."""
    steps = [
        Step(0, 1.0, 1, 1, 0, 4, [[0, 4, 64]]),
        Step(1, 2.0, 1, 1, 0, 4, [[0, 5, 64]]),
        Step(2, 3.0, 1, 0, 0, 1, [[1, 4, 16]]),
    ]
    q = one(root, steps=steps, seconds=10.0).quantities
    assert q["w.vllm-paged.queued.span"].value == pytest.approx(2.0)
    assert q["w.vllm-paged.queued.share.tokens"].value == pytest.approx(4.5 / 64)
    assert q["w.vllm-paged.share.tokens"].value == pytest.approx((4 + 5 + 8 * 4) / 10 / 64)
    assert q["w.vllm-paged.queued.throughput"].value == pytest.approx(1 / 2)  # the token at 2 s; one at 3 s comes after
    shares = [q[f"w.vllm-paged.queued.share.{name}"].value for name in ("tokens", "reserved", "internal", "external")]
    assert sum(shares) == pytest.approx(1.0)


def test_finished_rows_of_a_padded_batch_store_nothing_and_do_not_run(root):
    """Request 0 is through at 2 s; its row runs on until request 1 is, at 5 s. A row is 32 slots."""
    served = [Served(0, 4, 1, 1.0, [2.0], 2.0, "length"), Served(1, 4, 4, 1.0, [2.0, 3.0, 4.0, 5.0], 5.0, "length")]
    steps = [Step(i, 1.0 + i, 2 if i == 0 else 1, 0, 0, 2, [[0, 4, 32], [1, 4 + i, 32]]) for i in range(4)]
    padded = {"arm": {"feed": "batch", "options": {"cache": "static"}}}
    q = one(root, "hf-batch-static", steps=steps, served=served, block_size=32, settings=padded).quantities
    assert q["w.hf-batch-static.running.mean"].value == pytest.approx((2 + 1 + 1 + 1) / 4)
    assert q["w.hf-batch-static.padding.rows"].value == pytest.approx(3 / 4)
    assert q["w.hf-batch-static.padding.share"].value == pytest.approx(3 / 4 * 32 / 64)
    assert q["w.hf-batch-static.efficiency"].value == pytest.approx((8 + 5 + 6 + 7) / 4 / 64)
    other = one(root, "hf-batch-static", steps=steps, served=served, block_size=32).quantities
    assert other["w.hf-batch-static.padding.rows"].value == 0  # of a batch that lets rows go as they finish


def test_what_is_charged_and_what_is_held_stand_apart(root):
    q = one(root, "vllm-contiguous", reserve_slots=32).quantities
    assert q["w.vllm-contiguous.slots.mean"].value == pytest.approx(32)
    assert q["w.vllm-contiguous.held.mean"].value == pytest.approx(16)


def test_preemption_costs_what_is_computed_again(root):
    """Request 1 has 5 tokens when its cache is taken and comes back; request 0's last token was under way."""
    steps = [
        Step(0, 1.0, 2, 0, 0, 2, [[0, 4, 16], [1, 4, 16]]),
        Step(1, 2.0, 2, 0, 0, 2, [[0, 5, 16], [1, 5, 16]]),
        Step(2, 3.0, 0, 2, 2, 0, []),
        Step(3, 4.0, 1, 0, 0, 1, [[1, 6, 16]]),
    ]
    q = one(root, steps=steps).quantities
    assert q["w.vllm-paged.recomputed.tokens"].value == 5
    assert q["w.vllm-paged.recomputed.share"].value == pytest.approx(5 / (6 + 6 + 5))
    assert q["w.vllm-paged.preempted.requests"].value == 1
    assert q["w.vllm-paged.stall.max"].value == pytest.approx(5.0)  # from 6 s to 11 s
    told = {name: q[f"w.vllm-paged.{name}"] for name in ("recomputed.tokens", "recomputed.share", "preempted.requests")}
    folder = root / "raw/w/vllm-paged/0"
    lost = [Preemption(2.5, 2, 0, 5, last_token_under_way=True), Preemption(2.5, 2, 1, 5)]
    write_lines(folder / "preemptions.jsonl", lost)
    again = analyse(section(("w", "vllm-paged", 0)), root).quantities
    for name, quantity in told.items():
        assert again[quantity.id].value == quantity.value, name
        assert "preemptions.jsonl" in str(again[quantity.id].sources)
        assert "preemptions.jsonl" not in str(quantity.sources)
    write_lines(folder / "preemptions.jsonl", [lost[0], replace(lost[1], tokens=4)])  # it is this log that is read
    assert analyse(section(("w", "vllm-paged", 0)), root).quantities["w.vllm-paged.recomputed.tokens"].value == 4
    write_lines(folder / "preemptions.jsonl", [])  # of an engine that notes none in it
    assert analyse(section(("w", "vllm-paged", 0)), root).quantities["w.vllm-paged.recomputed.tokens"].value == 5


def test_steps_and_preemptions_of_a_measured_run_agree():
    """OPT-13B at 8.4 requests a second: 272 preemptions, 21 requests that had not finished."""
    reference = ROOT / "results" / "reference" / "opt-13b-policies"
    run = RawRun.read(reference, "open", "vllm-paged@8.4", 0)
    tokens, back = step_log.from_held(run)
    assert len(run.preemptions) == 272
    found = step_log.recomputed(run)
    assert (found.tokens, found.requests) == (tokens, len(back))
    assert tokens == sum(one.tokens for one in run.preemptions)


def test_uneven_steps_are_compared_with_steps_of_the_same_work(root):
    even = [Step(i, 1.0 + i / 10, 1, 0, 0, 1, [[0, 4 + i, 64]]) for i in range(60)]
    served = [Served(0, 4, 61, 1.0, [1.1 + i / 10 for i in range(61)], 8.0, "length")]
    calm = one(root, steps=even, served=served, block_size=64).quantities
    assert calm["w.vllm-paged.step.spread"].value == pytest.approx(1.0)
    uneven = [replace(step, t_s=step.t_s + 0.3 * (i // 10)) for i, step in enumerate(even)]
    served = [Served(0, 4, 61, 1.0, [1.1 + i / 10 for i in range(61)], 12.0, "length")]
    shaken = one(root, steps=uneven, served=served, block_size=64).quantities
    assert shaken["w.vllm-paged.step.spread"].value > 1.5


def test_the_ladder_is_computed_with_the_queue_full_too(root):
    spans = {"hf-sequential-static": 40.0, "vllm-sequential": 20.0, "vllm-contiguous": 10.0, "vllm-paged": 8.0}
    q = ladder(root, spans).quantities
    factors = [q[f"w.queued.factor.{name}"].value for name in ("engine", "batching", "paging")]
    assert factors == pytest.approx([2.0, 2.0, 1.25])
    assert q["w.queued.speedup"].value == pytest.approx(5.0)


def test_energy_is_of_the_measured_time_and_not_of_a_short_one(root):
    samples = [Sample(t, 1, energy_j=100.0 + 10 * t) for t in range(12)]
    q = one(root, samples=samples).quantities["w.vllm-paged.energy.per_token"]
    assert q.value == pytest.approx(10 * 10 / 6)  # 1 s to 11 s, six tokens
    q = one(root, samples=samples[:5]).quantities["w.vllm-paged.energy.per_token"]
    assert q.value is None


def test_a_log_that_the_simulator_does_not_agree_with_fails_its_guard(root):
    steps = [Step(0, 0.0, 2, 0, 0, 2, [[0, 5, 16], [1, 5, 16]]), Step(1, 2.0, 1, 1, 0, 1, [[0, 6, 16]])]
    (guard,) = [guard for guard in one(root, steps=steps).guards if guard["id"] == "simulation"]
    assert guard["outcome"] == "fail"
    assert "simulated and measured differ" in said("en", guard["detail"])
