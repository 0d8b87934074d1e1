"""Every arm, with its real engine: the same tokens, and shares that add up to the pool at every step."""

from __future__ import annotations

import itertools
import math

import pytest

from kvlab.records import PREEMPTIONS, RAW_FILES, Output, Phase, Sample, Served, Step, read_lines

from .conftest import CUT, LENGTH, SLOTS, SMALL

pytestmark = pytest.mark.engine

STATIC, DYNAMIC, BATCH, CONTINUOUS = (
    "hf-sequential-static",
    "hf-sequential-dynamic",
    "hf-batch-static",
    "hf-continuous",
)
SEQUENTIAL, CONTIGUOUS, PAGED = "vllm-sequential", "vllm-contiguous", "vllm-paged"
POW2, ORACLE, RESERVED = "vllm-pow2", "vllm-oracle", "vllm-reserved"
VLLM = (SEQUENTIAL, CONTIGUOUS, POW2, ORACLE, RESERVED, PAGED)
RUNS = {
    STATIC: {},
    DYNAMIC: {},
    BATCH: {},
    CONTINUOUS: {},
    f"{CONTINUOUS} pressed": {"kv_slots": SMALL},
    SEQUENTIAL: {},
    CONTIGUOUS: {},
    POW2: {},
    ORACLE: {},
    RESERVED: {},
    PAGED: {},
    f"{PAGED} pressed": {"kv_slots": SMALL},
}


@pytest.fixture(params=RUNS, scope="module")
def arm(request, measured):
    """(name, run.json, raw folder, steps) of one arm."""
    name = request.param.split()[0]
    run, folder = measured(name, **RUNS[request.param])
    return name, run, folder, read_lines(folder / "steps.jsonl", Step)


def test_the_folder_is_whole(arm):
    _, run, folder, _ = arm
    assert run.status == "completed"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*RAW_FILES, PREEMPTIONS])


def test_greedy_tokens_are_equal_request_by_request(arm, measured):
    _, _, folder, _ = arm
    _, reference = measured(STATIC)
    expected = {output.id: output.token_ids for output in read_lines(reference / "outputs.jsonl", Output)}
    found = {output.id: output.token_ids for output in read_lines(folder / "outputs.jsonl", Output)}
    assert found == expected
    assert len({tuple(tokens) for tokens in expected.values()}) == len(expected)  # the requests differ


def test_the_shares_add_up_to_the_pool_at_every_step(arm):
    _, run, _, steps = arm
    assert len(steps) > 48
    for step in steps:
        slots = sum(held[2] for held in step.held)
        assert step.blocks * run.block_size == slots <= run.pool_slots
        assert all(0 <= tokens <= allocated for _, tokens, allocated in step.held)
        assert len({held[0] for held in step.held}) == len(step.held)
        assert step.running <= len(step.held) or not step.held


def test_a_request_holds_its_prompt_then_one_token_more_a_step(arm, requests):
    name, _run, _, steps = arm
    stored: dict[int, list[int]] = {}
    for step in steps:
        for id, tokens, _ in step.held:
            stored.setdefault(id, []).append(tokens)
    preempted = sum(step.preempted for step in steps) > 0
    for request in requests:
        prompt, new = len(request.prompt_token_ids), request.max_new_tokens
        seen = stored[request.id]
        # The last token comes out and is never stored.
        assert seen[-1] == max(seen) == prompt + new - 1, request.id
        if not preempted:
            assert seen[0] == prompt
            assert sorted(set(seen)) == list(range(prompt, prompt + new))
            assert name == BATCH or len(seen) == new  # a finished row of a batch is held until the batch is done


def test_slots_are_what_the_arm_would_allocate(arm):
    name, _run, _, steps = arm
    for _, tokens, slots in itertools.chain.from_iterable(step.held for step in steps):
        if name in (STATIC, BATCH):
            assert slots == LENGTH
        elif name == DYNAMIC:
            assert slots == tokens
        elif name == CONTINUOUS:
            assert slots - math.ceil(tokens / 16) * 16 in (0, 16)  # at some lengths it asks for one too many
        else:
            assert slots == math.ceil(tokens / 16) * 16


def test_what_was_got_is_read_back(arm):
    name, run, _, _steps = arm
    bytes_per_slot = 2 * 2 * 2 * 32 * 4  # K and V, layers, KV heads, head size, float32
    asked = SMALL if run.kv_slots_asked == SMALL else SLOTS
    rows = {STATIC: 1, DYNAMIC: 1, BATCH: 4}.get(name, 256 if name in VLLM else None)
    pools = {STATIC: LENGTH, DYNAMIC: LENGTH - 1}
    assert run.kv_bytes_per_slot == bytes_per_slot
    assert run.pool_slots == pools.get(name, asked)
    assert run.block_size == {STATIC: LENGTH, BATCH: LENGTH, DYNAMIC: 1}.get(name, 16)
    assert rows is None or run.max_num_seqs == rows
    assert run.reserve_slots is None
    extra = 2 * 16 if name == CONTINUOUS else 16 if name in VLLM else 0  # null and padding blocks
    assert run.kv_pool_bytes == (run.pool_slots + extra) * bytes_per_slot
    assert run.weights_bytes is not None
    # Two tables, and two layers of attention, MLP and norms; transformers also counts the rotary frequencies.
    weights = 4 * (2 * 512 * 128 + 128 + 2 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 256 + 2 * 128))
    assert 0 <= run.weights_bytes - weights <= 128
    assert (run.device, run.dtype) == ("cpu", "float32")
    assert run.engine["attention"] in ("sdpa", "paged|sdpa", "CPU_ATTN")
    assert run.engine["compiled"] is False
    assert run.engine["threads"] == 1
    assert not run.engine.get("prefix_caching")


def test_never_more_together_than_the_arm_may(arm):
    name, run, _, steps = arm
    most = max(step.running for step in steps)
    if name in (STATIC, DYNAMIC, SEQUENTIAL):
        assert most == 1
    elif name in (BATCH, CONTIGUOUS):
        assert 1 < most <= run.kv_slots_asked // LENGTH
    elif run.kv_slots_asked == SLOTS and name != POW2:
        assert most > SLOTS // LENGTH  # more than reservations of the maximum length allow


def test_every_vllm_arm_has_the_same_engine_and_its_own_policy(measured):
    runs = {name: measured(name)[0] for name in VLLM}
    assert {name: run.policy for name, run in runs.items()} == {
        SEQUENTIAL: None,
        CONTIGUOUS: "orca-max",
        POW2: "orca-pow2",
        ORACLE: "orca-oracle",
        RESERVED: "reserved",
        PAGED: "paged",
    }
    engines = [run.engine | {"threads": 1} for run in runs.values()]
    assert all(engine == engines[0] for engine in engines)
    assert (engines[0]["max_num_seqs"], engines[0]["max_num_batched_tokens"]) == (256, 2048)


@pytest.mark.parametrize("name", [CONTIGUOUS, POW2, ORACLE, RESERVED])
def test_a_reserving_arm_holds_a_chunk_from_admission_to_end(name, measured, requests):
    run, folder = measured(name)
    served = {line.id: line for line in read_lines(folder / "requests.jsonl", Served)}
    for request in requests:
        prompt, new = len(request.prompt_token_ids), request.max_new_tokens
        power = 1 << (new - 1).bit_length()
        asked = {
            CONTIGUOUS: LENGTH,
            POW2: min(prompt + power, LENGTH),
            ORACLE: prompt + new - 1,
            RESERVED: -(-(prompt + new - 1) // 16) * 16,
        }[name]
        line = served[request.id]
        assert line.asked_slots == (asked if name == RESERVED else max(asked, 16))
        chunk = line.asked_slots if name == RESERVED else 1 << (line.asked_slots - 1).bit_length()
        assert line.chunk_slots == chunk
        assert line.arrival_s < line.seen_s < line.admitted_s < line.token_s[0]
    for step in read_lines(folder / "steps.jsonl", Step):
        assert sum(served[id].chunk_slots for id, _, _ in step.held) <= run.pool_slots
    assert (folder / PREEMPTIONS).read_text() == ""


def test_a_finished_row_of_a_batch_is_held_and_does_not_run(measured):
    _, folder = measured(BATCH)
    before: dict[int, int] = {}
    finished = 0
    for step in read_lines(folder / "steps.jsonl", Step):
        stored = {id: tokens for id, tokens, _ in step.held}
        grown = [id for id, tokens in stored.items() if tokens != before.get(id)]
        assert step.running == len(grown)
        finished += len(stored) - len(grown)
        before = stored
    assert finished > 0


def test_a_pool_that_is_too_small_preempts(arm):
    name, run, _, steps = arm
    pressed = name in (CONTINUOUS, PAGED) and run.kv_slots_asked == SMALL
    assert (sum(step.preempted for step in steps) > 0) == pressed
    if pressed:
        assert max(step.waiting for step in steps) > 0
        assert max(sum(h[2] for h in step.held) for step in steps) >= run.pool_slots - 16


def test_times_follow_each_other(arm, requests):
    name, _run, folder, steps = arm
    (phase,) = [p for p in read_lines(folder / "phases.jsonl", Phase) if p.phase == "measure"]
    served = read_lines(folder / "requests.jsonl", Served)
    assert [s.id for s in served] == [r.id for r in requests]
    for line, request in zip(served, requests, strict=True):
        assert (line.prompt_tokens, line.output_tokens) == (len(request.prompt_token_ids), request.max_new_tokens)
        assert len(line.token_s) == request.max_new_tokens
        assert phase.start_s <= line.arrival_s <= line.token_s[0]
        assert line.token_s == sorted(line.token_s)
        assert line.token_s[-1] == line.finish_s <= phase.end_s
        assert (line.finish_reason, line.cached_tokens) == ("length", 0)
    together = len({line.arrival_s for line in served}) == 1
    assert together != (name in (STATIC, DYNAMIC, SEQUENTIAL))
    if not together:
        assert all(a.finish_s <= b.arrival_s for a, b in itertools.pairwise(served))
    assert [step.t_s for step in steps] == sorted(step.t_s for step in steps)
    assert phase.start_s <= steps[0].t_s
    assert steps[-1].t_s <= phase.end_s
    assert [step.step for step in steps] == list(range(len(steps)))


def test_every_state_has_an_end(arm):
    _, _, _, steps = arm
    last = steps[-1]
    assert (last.running, last.blocks, last.held) == (0, 0, [])


def test_phases_follow_each_other(arm):
    _, run, folder, _ = arm
    phases = read_lines(folder / "phases.jsonl", Phase)
    assert [phase.phase for phase in phases] == ["load", "compile", "warmup", "measure"]
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(phases))
    assert all(phase.start_s <= phase.end_s for phase in phases)
    samples = read_lines(folder / "device.jsonl", Sample)
    assert samples[0].t_s < phases[0].start_s
    assert samples[-1].t_s > phases[-1].end_s
    assert run.idle_device_bytes == samples[0].used_bytes


@pytest.mark.parametrize("name", [STATIC, BATCH, CONTINUOUS, PAGED])
def test_a_cut_workload_is_served_in_part_by_one_side_and_in_both_by_the_other(name, measured, requests):
    run, folder = measured(name, cut=CUT)
    expected = ["cut"] if name == STATIC else ["cut", "all"]
    assert run.parts == expected
    served = read_lines(folder / "requests.jsonl", Served)
    outputs = read_lines(folder / "outputs.jsonl", Output)
    phases = [phase for phase in read_lines(folder / "phases.jsonl", Phase) if phase.phase == "measure"]
    assert [phase.part for phase in phases] == expected
    for phase in phases:
        mine = requests[:CUT] if phase.part == "cut" else requests
        assert [s.id for s in served if s.part == phase.part] == [r.id for r in mine]
        inside = [step for step in read_lines(folder / "steps.jsonl", Step) if step.part == phase.part]
        assert {id for step in inside for id, _, _ in step.held} == {r.id for r in mine}
        assert all(phase.start_s <= step.t_s <= phase.end_s for step in inside)
    whole = {o.id: o.token_ids for o in outputs if o.part == expected[-1]}
    assert all(whole[o.id] == o.token_ids for o in outputs if o.part == "cut")
