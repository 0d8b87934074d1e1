"""The recording scheduler: against vLLM's own metrics, in both kinds of scheduler, in both kinds of process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvlab.measure.engines import open_engine
from kvlab.measure.engines.vllm.recorder import FILE, read_notes
from kvlab.measure.job import Feed
from kvlab.measure.journal import Journal
from kvlab.records import Served, Step, read_lines

from .conftest import LENGTH, SLOTS, SMALL

pytestmark = pytest.mark.engine
BATCH = Feed("batch")


def held(folder: Path) -> list[tuple]:
    """What was recorded, but the times."""
    steps = read_lines(folder / "steps.jsonl", Step)
    return [(step.running, step.waiting, step.preempted, step.blocks, step.held) for step in steps]


def test_vllms_own_metrics_agree_at_every_step(job, requests, monkeypatch):
    """Public numbers only: after each step, the pool's usage, the queues, the preemptions."""
    engine = open_engine("vllm", job("vllm-paged", kv_slots=SMALL))
    arguments = engine._arguments(eager=False) | {"disable_log_stats": False}
    monkeypatch.setenv(FILE, str(engine.steps_file))
    from vllm import LLM

    engine.llm = LLM(**arguments)
    scheduler = engine.llm.llm_engine.engine_core.engine_core.scheduler
    own_blocks = SMALL // 16

    def metrics() -> dict[str, float]:
        return {m.name: m.value for m in engine.llm.get_metrics() if hasattr(m, "value")}

    before = metrics().get("vllm:num_preemptions", 0)
    ready = engine._render(requests, BATCH)
    for request in requests:
        engine._add(ready, request.id)
    compared = 0
    while engine.llm.llm_engine.has_unfinished_requests():
        outputs = engine.llm.llm_engine.step()
        found = metrics()
        _, running, waiting, _, blocks, flat = next(step for step in reversed(scheduler.noted) if step[1])
        left = dict(zip(flat[::3], flat[2::3], strict=True))
        gone = {id for id in left for output in outputs if output.finished and id.split("-")[0] == output.request_id}
        assert blocks == sum(left.values())
        # A request that finishes gives its blocks back at the end of the step, before vLLM counts.
        still = sum(count for id, count in left.items() if id not in gone)
        assert found["vllm:kv_cache_usage_perc"] * own_blocks == pytest.approx(still)
        assert found["vllm:num_requests_running"] == running - len(gone)
        assert found["vllm:num_requests_waiting"] == waiting
        compared += 1
    recorded = sum(step[3] for step in scheduler.noted)
    assert recorded == metrics()["vllm:num_preemptions"] - before > 0
    assert compared > 48
    engine.close()


def test_steps_are_written_when_the_prefix_cache_is_reset_and_only_once(job, requests):
    engine = open_engine("vllm", job("vllm-paged"))
    engine.load()
    scheduler = engine.llm.llm_engine.engine_core.engine_core.scheduler
    journal = Journal(requests[:2])
    engine.serve(requests[:2], journal, BATCH)
    assert len(scheduler.noted) > 30
    assert not engine.steps_file.exists()  # nothing is written while the clock runs
    engine.collect(journal)
    assert len(journal.steps) > 30
    assert scheduler.noted == []
    assert read_notes(engine.steps_file).steps == []
    again = Journal(requests[:2])
    engine.collect(again)
    assert again.steps == []
    engine.close()


def test_without_recording_vllms_own_scheduler_runs(job, requests):
    from vllm.v1.core.sched.scheduler import Scheduler

    engine = open_engine("vllm", job("vllm-paged", record_steps=False))
    engine.load()
    assert type(engine.llm.llm_engine.engine_core.engine_core.scheduler) is Scheduler
    journal = Journal(requests)
    engine.serve(requests, journal, BATCH)
    engine.collect(journal)
    journal.check()
    assert journal.steps == []
    assert engine.facts().pool_slots == SLOTS
    engine.close()


def test_the_recorder_is_a_subclass_of_the_scheduler_that_vllm_would_choose(job, requests, measured, monkeypatch):
    """AsyncScheduler, driven by a synchronous core (a CPU has no other): the same steps as Scheduler."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    from kvlab.measure.engines.vllm import recorder as vllm_recorder

    engine = open_engine("vllm", job("vllm-paged", kv_slots=SMALL))
    monkeypatch.setattr(
        vllm_recorder, "scheduling", lambda **arguments: vllm_recorder._recording(AsyncScheduler)(**arguments)
    )
    engine.load()
    scheduler = engine.llm.llm_engine.engine_core.engine_core.scheduler
    assert isinstance(scheduler, AsyncScheduler)
    journal = Journal(requests)
    engine.serve(requests, journal, BATCH)
    engine.collect(journal)
    journal.check()
    engine.close()
    run, folder = measured("vllm-paged", kv_slots=SMALL)
    assert [step[1:] for step in journal.steps] == held(folder)
    assert run.engine["async_scheduling"] is False
    assert not issubclass(Scheduler, AsyncScheduler)


def test_a_core_in_a_process_of_its_own_records_the_same(measured_apart, measured):
    run, folder, said = measured_apart("vllm-paged", {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, kv_slots=SMALL)
    here, in_process = measured("vllm-paged", kv_slots=SMALL)
    assert (run.engine["core"], here.engine["core"]) == ("own process", "driver's process")
    assert held(folder) == held(in_process)
    assert run.pool_slots == here.pool_slots == SMALL
    assert run.kv_pool_bytes == here.kv_pool_bytes
    assert (folder / "outputs.jsonl").read_text() == (in_process / "outputs.jsonl").read_text()
    # One clock for both processes: every first token comes after the step that stored its prompt began.
    steps, served = read_lines(folder / "steps.jsonl", Step), read_lines(folder / "requests.jsonl", Served)
    for line in served:
        began = next(step.t_s for step in steps if line.id in {id for id, _, _ in step.held})
        assert line.arrival_s < began < line.token_s[0]
    assert re.search(r"^measure w vllm-paged #0: 10 requests, .* tokens/s\), ready after .* s$", said, re.MULTILINE)
    assert run.max_model_len == LENGTH
