"""Processes and their passes: order, arrivals, what is refused before anything is loaded, what is kept. No engine."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import ClassVar

import pytest

from kvlab import records
from kvlab.config import load, parse
from kvlab.errors import ConfigError, NotRunnable
from kvlab.measure.engines import environment, open_engine, registry
from kvlab.measure.engines.refusal import ours, refusal, refusals
from kvlab.measure.engines.vllm import admission
from kvlab.measure.job import Feed
from kvlab.measure.passes import Planned, in_block
from kvlab.measure.run import measure_process
from kvlab.measure.store import Store
from kvlab.messages import Message
from kvlab.prepare.arrivals import planned
from kvlab.records import Request, Run, read_lines, read_run, write_lines
from kvlab.simulate import agree

ARMS = ["vllm-contiguous", "vllm-paged"]
RATES = {"vllm-contiguous": [1.0, 2.0], "vllm-paged": [3.0, 4.0]}


def asked(arms=ARMS, measure=None, requests=None, **workload):
    requests = requests or {"kind": "azure-conv", "requests": 8}
    part = {"requests": requests, "arms": arms, "kv_slots": 64, "max_model_len": 32, "repeats": 2}
    return {"run": "t", "workloads": {"w": part | workload}, "measure": measure or {}}


def test_arms_that_share_an_engine_share_a_process():
    arms = ["hf-batch-static", "vllm-sequential", "vllm-paged", "vllm-paged-eager"]
    config = parse(asked(arms), "t")
    assert config.processes()[:3] == [("w", "hf-batch-static", 0), ("w", "vllm", 0), ("w", "vllm-paged-eager", 0)]
    assert config.passes("w", "vllm", 0) == [("vllm-sequential", None), ("vllm-paged", None)]
    assert config.passes("w", "vllm", 1) == [("vllm-paged", None), ("vllm-sequential", None)]  # rotated
    assert config.raw()[:2] == [["w", "hf-batch-static", 0], ["w", "vllm-sequential", 0]]


def test_an_open_loop_has_a_pass_for_each_rate_of_a_block():
    rates = {"vllm-contiguous": [[1.0], [1.5]], "vllm-paged": [3.0, 4.0]}
    config = parse(asked(arrivals={"kind": "poisson", "rates": rates}), "t")
    first, second = (config.passes("w", "vllm", block) for block in (0, 1))
    assert first == [("vllm-contiguous", 1.0), ("vllm-paged", 3.0), ("vllm-paged", 4.0)]
    assert sorted(second) == [("vllm-contiguous", 1.5), ("vllm-paged", 3.0), ("vllm-paged", 4.0)]
    assert config.raw() == []
    assert ["w", "vllm-paged@4", 1] in config.raw(open_loop=True)
    assert "rates" not in config.section("measure", "w", "vllm-paged")["arrivals"]


OPEN = {"kind": "poisson", "rates": RATES}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arrivals": OPEN | {"rates": RATES | {"vllm-paged": [0.0]}}}, "greater than 0"),
        ({"arrivals": OPEN | {"rates": {"vllm-paged": [1.0]}}}, "none for vllm-contiguous"),
        ({"arrivals": OPEN | {"rates": RATES | {"vllm-pow2": [1.0]}}}, "'vllm-pow2' is not among the arms"),
        ({"arrivals": OPEN | {"rates": RATES | {"vllm-paged": [[1.0]]}}}, "one a block is needed: repeats is 2"),
        ({"arrivals": OPEN | {"duration_s": 5, "leave_out_s": 10}}, "duration_s 5 is not longer than leave_out_s 10"),
        ({"arrivals": OPEN | {"kind": "trace"}}, "needs time stamps"),
        ({"arrivals": {"kind": "bursts"}}, "bursts"),
        (
            {"arms": ["hf-continuous"], "arrivals": OPEN | {"rates": {"hf-continuous": [1.0]}}},
            "hf-continuous can't take requests that arrive over time; can: vllm-contiguous",
        ),
        ({"measure": {"vllm": {"max_num_batched_tokens": 8}}}, "below max_num_seqs 256"),
        ({"measure": {"vllm": {"load_format": "dummy"}}}, "load_format dummy is for random: models"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(change, said):
    with pytest.raises(ConfigError, match=said) as caught:
        parse(asked(**change), "t")
    assert "\n" not in str(caught.value)


def test_weights_that_an_arm_needs_are_not_left_out():
    wanted = asked(["hf-batch-static", "vllm-paged"], {"vllm": {"load_format": "dummy"}}) | {"model": "random:tiny"}
    with pytest.raises(ConfigError, match="hf-batch-static of workload w needs weights on disk"):
        parse(wanted, "t")
    assert parse(wanted | {"workloads": asked(["vllm-paged"])["workloads"]}, "t").section("model")["dummy"]


@pytest.mark.parametrize("name", ["policies", "opt-13b-policies"])
def test_the_policies_configurations_are_sound(name):
    config = load(environment.WORKFLOW.parent / "config" / f"{name}.yaml")
    assert {process for _, process, _ in config.processes()} == {"vllm"}
    for workload, _, block in config.processes():
        assert len(config.passes(workload, "vllm", block)) in (5, 8, 10)


REQUESTS = [Request(id, [1] * 4, 4) for id in range(40)]


def test_arrivals_are_drawn_once_and_each_block_has_its_own_order():
    drawn = planned(REQUESTS, "poisson", {}, seed=1)
    assert drawn == planned(REQUESTS, "poisson", {}, seed=1)
    times = [one.arrival_s for one in drawn]
    assert times == sorted(times)
    assert 0.5 < len(times) / times[-1] < 2
    first, second = in_block(drawn, 0, "poisson"), in_block(drawn, 1, "poisson")
    assert [one.id for one in first] != [one.id for one in second]
    assert sorted(one.id for one in first) == sorted(one.id for one in second) == list(range(40))
    assert in_block(drawn, 1, "poisson") == second
    assert second[-1].arrival_s == pytest.approx(times[-1])


def test_a_traces_own_stamps_are_scaled_to_one_a_second(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens\n" + "".join(f"2023-11-16 18:15:{s}.5,1\n" for s in (10, 11, 15, 16)))
    found = planned(REQUESTS[:3], "trace", {"trace": trace}, seed=0)
    assert [one.arrival_s for one in found] == [0.5, 2.5, 3.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ContextTokens\n1\n2\n3\n4\n", "has no column TIMESTAMP"),
        ("TIMESTAMP\n2023-11-16 18:15:10\n", "1 time stamps, 4 are needed"),
        ("TIMESTAMP\nnoon\n" * 4, "'noon' is no time stamp"),
        ("TIMESTAMP\n" + "2023-11-16 18:15:10\n" * 4, "at one time"),
        ("TIMESTAMP\n2023-11-16 18:15:10\n2023-11-16 18:15:09\n" + "2023-11-16 18:15:20\n" * 2, ":3: arrives before"),
    ],
)
def test_a_trace_that_can_not_be_followed_is_named(tmp_path, text, said):
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with pytest.raises(ConfigError, match=said):
        planned(REQUESTS[:3], "trace", {"trace": trace}, seed=0)


@pytest.mark.parametrize(
    ("policy", "slots", "lengths", "said"),
    [
        ("orca-max", 100, [(4, 4)], "request 0: needs a chunk of 128 slots, the largest in a pool of 96 is 64"),
        ("reserved", 64, [(4, 4), (60, 6)], "request 1: needs 5 blocks of 16"),
        ("orca-best", 64, [], "one of orca-max, orca-pow2, orca-oracle, reserved, paged"),
    ],
)
def test_a_request_that_a_policy_could_never_admit_is_found_before_anything_is_loaded(policy, slots, lengths, said):
    with pytest.raises(NotRunnable, match=said):
        admission.check(policy, slots, 128, 16, lengths)


def test_chunks_in_blocks_that_are_no_power_of_two_are_refused():
    with pytest.raises(NotRunnable, match="block_size 24 must be one too"):
        admission.check("orca-oracle", 96, 96, 24, [(4, 4)])
    admission.check("paged", 96, 96, 24, [(4, 4)])


def test_a_chunk_is_at_least_a_block():
    shadow = admission.reserving("orca-oracle", 64, 32, 16)
    assert shadow is not None
    assert (shadow.asks(2, 3), shadow.asks(20, 3)) == (16, 22)


class Served:
    """An engine that notes what it is asked."""

    slots, gpus, compile_s = 64, 1, 0.0
    log: ClassVar[list[str]] = []

    def __init__(self, job):
        self.job = job

    def check(self, requests, feed: Feed):
        if feed.policy == "orca-pow2":
            raise NotRunnable(Message("no-page", {"slots": 8, "block": 16}))

    def load(self):
        os.environ["LEFT_BEHIND"] = "1"
        self.log.append("load")

    def compile(self):
        pass

    def serve(self, requests, journal, feed: Feed):
        self.log.append(f"{journal.part} {feed.policy}")
        if feed.policy == "orca-oracle":
            raise KeyboardInterrupt
        for request in requests:
            if feed.policy == "reserved" and request.id == 2:
                journal.check_time(2**62)
            journal.arrive([request.id], 1)
            journal.tokens(request.id, [7] * request.max_new_tokens, 2)
            journal.finish(request.id, "length", 2)

    def collect(self, journal):
        pass

    def settle(self):
        self.log.append("settle")

    def facts(self):
        from kvlab.measure.job import EngineFacts

        return EngineFacts(engine={"name": "made up"}, pool_slots=64, block_size=16)

    def close(self):
        self.log.append("close")


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Measures arms in one process with a made-up engine; returns its runs and what the engine was asked."""
    from kvlab.measure import run as stage

    model = tmp_path / "model"
    model.mkdir()
    (model / "fingerprint.json").write_text(json.dumps({"sha256": "ab" * 32, "parameters": 1}))
    (model / "config.json").write_text(
        json.dumps({"num_attention_heads": 1, "num_hidden_layers": 1, "hidden_size": 32})
    )
    write_lines(tmp_path / "w.jsonl", [Request(id, [1, 2, 3], 5) for id in range(6)])
    monkeypatch.setattr(stage, "open_engine", lambda name, job: Served(job))

    def measured(arms, code="1"):
        Served.log = []
        config = parse(asked(arms, {"device": "cpu"}), "t")
        cells = [
            Planned(config.section("measure", "w", arm), "w", arm, 0, tmp_path / "raw" / "w" / arm / "0")
            for arm in arms
        ]
        store = Store(tmp_path / ".passes", code)
        return measure_process(
            cells, name="vllm", requests_file=tmp_path / "w.jsonl", model=model, store=store
        ), Served.log

    return measured


def test_a_process_loads_once_and_settles_between_passes(process, tmp_path):
    runs, log = process(["vllm-contiguous", "vllm-pow2", "vllm-paged"])
    assert log == ["load", "warmup paged", "settle", "all orca-max", "settle", "all paged", "settle", "close"]
    assert [run.status for run in runs] == ["completed", "not_run", "completed"]
    assert runs[1].reason == "continuous batching: 8 slots are fewer than one page of 16; raise kv_slots"
    assert Message.read(runs[1].why) == Message("no-page", {"slots": 8, "block": 16})
    assert [run.process["pass"] for run in runs] == [0, 1, 2]
    assert len({run.process["id"] for run in runs}) == len({run.origin_ns for run in runs}) == 1
    assert "LEFT_BEHIND" not in os.environ
    assert read_run(tmp_path / "raw/w/vllm-paged/0") == runs[2]


def test_what_is_there_is_not_measured_again(process, tmp_path):
    process(["vllm-contiguous"])
    for file in (tmp_path / "raw/w/vllm-contiguous/0").iterdir():
        file.unlink()  # as Snakemake does before it runs a job again
    runs, log = process(["vllm-contiguous", "vllm-paged"])
    assert "all orca-max" not in log
    assert "all paged" in log
    assert [run.status for run in runs] == ["completed", "completed"]
    assert process(["vllm-contiguous", "vllm-paged"])[1] == []  # no engine is loaded without need
    assert "all paged" in process(["vllm-paged"], code="2")[1]


def test_a_kept_pass_that_was_changed_is_measured_again(process, tmp_path):
    process(["vllm-paged"])
    (file,) = (tmp_path / ".passes").glob("*/requests.jsonl")
    file.write_text("")
    assert "all paged" in process(["vllm-paged"])[1]


def test_a_process_that_is_stopped_keeps_its_whole_passes(process, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        process(["vllm-paged", "vllm-oracle", "vllm-contiguous"])
    raw = tmp_path / "raw" / "w"
    assert read_run(raw / "vllm-paged" / "0").status == "completed"
    assert sorted(path.name for path in raw.iterdir() if any(path.iterdir())) == ["vllm-paged"]
    assert "all paged" not in process(["vllm-paged", "vllm-contiguous"])[1]


def test_a_pass_that_is_stopped_at_its_budget_says_so_and_keeps_what_it_did(process, tmp_path):
    runs, log = process(["vllm-reserved", "vllm-paged"])
    assert [(run.status, run.stopped) for run in runs] == [("stopped", "all"), ("completed", None)]
    assert "2 of 6 requests" in runs[0].reason
    assert log.count("settle") == 3  # what is unfinished is dropped before the next pass
    folder = tmp_path / "raw/w/vllm-reserved/0"
    assert json.loads((folder / "run.json").read_text())["stopped"] == "all"
    served = read_lines(folder / "requests.jsonl", records.Served)
    assert [one.finish_s is None for one in served] == [False] * 2 + [True] * 4
    assert {one.asked_tokens for one in served[2:]} == {5}
    phase = read_lines(folder / "phases.jsonl", records.Phase)[-1]
    assert all(phase.start_s <= one.arrival_s <= phase.end_s for one in served[2:])
    assert "all reserved" in process(["vllm-reserved"])[1]  # it is measured again when it is asked for again


def test_a_measurement_puts_the_environment_back():
    before, path = dict(os.environ), list(sys.path)
    with environment.kept():
        os.environ["HF_HUB_OFFLINE"] = "x"
        os.environ.pop("PATH")
        sys.path.insert(0, "nowhere")
    assert (dict(os.environ), sys.path) == (before, path)


def test_an_engines_refusal_and_an_error_in_this_projects_code():
    def engine():
        raise json.JSONDecodeError("no such kernel", "", 0)

    with pytest.raises(NotRunnable, match="vLLM: no such kernel"), refusals("vLLM"):
        engine()
    with pytest.raises(TypeError), refusals("vLLM"):
        len(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError), refusals("vLLM"):
        open_engine("sglang", None)  # type: ignore[arg-type]
    log = 'Traceback (most recent call last)\n  File "/usr/lib/vllm/core.py", line 1, in f\nValueError: head_dim=16\n'
    error = RuntimeError("Engine core initialization failed. See root cause above.")
    assert not ours(error, log)
    assert str(refusal("vLLM", error, log)) == "vLLM: head_dim=16"
    mine = log.replace("/usr/lib/vllm/core.py", str(environment.WORKFLOW / "kvlab" / "x.py"))
    assert ours(error, mine)
    assert ours(error, log.replace("ValueError", "AttributeError"))


def test_every_engine_has_settings_and_a_driver():
    assert set(registry.engines()) == {"transformers", "vllm"}
    assert registry.settings_of("vllm")(tensor_parallel_size=2, pipeline_parallel_size=2).gpus() == 4
    assert [settings.open_loop for settings in registry.engines().values()] == [False, True]
    with pytest.raises(ConfigError, match=r"no engine 'sglang'.*there are: transformers, vllm"):
        registry.settings_of("sglang")


def test_agree_names_what_is_not_compared_and_fails_on_a_difference(tmp_path, capsys):
    from tests.raw_logs import write_raw

    from kvlab.records import Step

    with pytest.raises(Exception, match="no raw folder"):
        agree.agree(tmp_path)
    write_raw(tmp_path, "hf", engine={"name": "transformers"})
    engine = {"name": "vllm", "max_num_batched_tokens": 64}
    write_raw(tmp_path, "one", engine=engine, max_num_seqs=1, settings={"arm": {"feed": "sequential"}})
    assert not agree.show(agree.agree(tmp_path))
    said = capsys.readouterr().out
    assert "hf/0: not compared (transformers schedules otherwise than the simulator)" in said
    assert "one/0 (all): 6 of 6 steps agree" in said
    steps = [Step(i, 1.0 + i, 1, 0, 0, 1, [[0, 5 + i, 16]]) for i in range(2)]
    write_raw(tmp_path, "two", engine=engine, max_num_seqs=1, steps=steps)
    assert agree.show(agree.agree(tmp_path))
    assert "first difference: step 0: measured 1 blocks" in capsys.readouterr().out


def test_a_cell_is_named_by_its_rate():
    run = Run("w", "vllm-paged", 0, "completed")
    assert (run.cell, replace(run, rate=2.5).cell) == ("vllm-paged", "vllm-paged@2.5")
