"""The trace of a run: what ui.perfetto.dev needs to open it without a warning, and what the logs say."""

import json
from collections import Counter

import pytest
from tests.fixtures import small_run

from kvlab.cli import main
from kvlab.errors import LogError
from kvlab.publish.trace import COUNTERS, ENGINE, events
from kvlab.raw import RawRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run.build(tmp_path_factory.mktemp("trace") / "small", figures=False)


@pytest.fixture(scope="module")
def raw(run):
    return RawRun.read(run, "pressured", "vllm-paged", 0)


def test_every_begin_event_has_an_end_and_phases_lie_within_their_request(raw):
    open_: dict[int, list[str]] = {}
    for event in events(raw):
        if event["ph"] == "b":
            open_.setdefault(event["id"], []).append(event["name"])
        elif event["ph"] == "e":
            assert open_[event["id"]].pop() == event["name"]
            assert event["name"].startswith("request") or open_[event["id"]], "a phase outside its request"
    assert not any(open_.values())


def test_times_run_forward_from_the_first_arrival(raw):
    times = [event["ts"] for event in events(raw) if event["ph"] != "M"]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] <= 1e6 * raw.span_s + 1e5  # the sampler looks a little longer


def test_counters_are_the_accounting_at_every_step(raw):
    account, zero = raw.accounting, min(one.arrival_s for one in raw.served)
    for series, title in (*COUNTERS.items(), ("tokens", "slots: tokens")):
        told = [(e["ts"], e["args"]["value"]) for e in events(raw) if e["ph"] == "C" and e["name"] == title]
        for t, value in zip(account.t_s.tolist(), account.series(series).tolist(), strict=True):
            assert [v for ts, v in told if ts <= round(1e6 * (t - zero), 3)][-1] == value


def test_requests_and_preemptions_are_all_there(raw):
    found = events(raw)
    assert sum(e["ph"] == "b" and e["name"].startswith("request ") for e in found) == len(raw.served)
    lost = [e for e in found if e["ph"] == "i"]
    assert len(lost) == sum(step.preempted for step in raw.steps) > 0
    assert {e["pid"] for e in lost} == {ENGINE}
    phases = Counter(e["name"] for e in found if e["ph"] == "b" and not e["name"].startswith("request"))
    assert phases["prefill"] == len(raw.served) + len(lost)


def test_the_command_writes_a_file_that_is_json(run, tmp_path, capsys):
    file = tmp_path / "t.json"
    assert main(["trace", str(run), "seed", "vllm-paged", "0", "--output", str(file)]) == 0
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["otherData"]["run"] == "seed/vllm-paged/0"
    assert len(document["traceEvents"]) > 20
    assert main(["trace", str(run), "seed", "vllm-paged", "0"]) == 0
    assert (run / "traces" / "seed.vllm-paged.0.json").exists()
    assert "ui.perfetto.dev" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named(run, capsys):
    assert main(["trace", str(run), "seed", "vllm-paged", "9"]) == 2
    assert "raw/seed/vllm-paged/9" in capsys.readouterr().err
    with pytest.raises(LogError):
        RawRun.read(run, "seed", "nobody", 0)
