"""A measured log served again from simulated pools. The log here is stated; real engines: tests/engines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.raw_logs import write_raw

from kvlab.errors import KvlabError
from kvlab.messages import said
from kvlab.publish import simulation_table
from kvlab.raw import RawRun
from kvlab.records import Served, Step
from kvlab.simulate import counterfactual

# Three requests on four blocks of 4: the third waits, then the second is preempted and starts over.
SERVED = [Served(n, p, o, 0.0, [float(t + 1) for t in range(o)], float(o), "length") for n, p, o in
          ((0, 4, 5), (1, 6, 4), (2, 6, 1))]  # fmt: skip
STEPS = [
    Step(0, 0.0, 2, 1, 0, 3, [[0, 4, 4], [1, 6, 8]]),
    Step(1, 1.0, 2, 1, 0, 4, [[0, 5, 8], [1, 7, 8]]),
    Step(2, 2.0, 2, 1, 0, 4, [[0, 6, 8], [1, 8, 8]]),
    Step(3, 3.0, 1, 2, 1, 2, [[0, 7, 8]]),
    Step(4, 4.0, 1, 2, 0, 2, [[0, 8, 8]]),
    Step(5, 5.0, 1, 1, 0, 3, [[1, 9, 12]]),
    Step(6, 6.0, 1, 0, 0, 2, [[2, 6, 8]]),
    Step(7, 7.0, 0, 0, 0, 0, []),
]
RUN = {"pool_slots": 16, "block_size": 4, "max_model_len": 16, "max_num_seqs": 8}
BATCH = {"settings": {"arm": {"feed": "batch"}}, "engine": {"max_num_batched_tokens": 64}}


def raw(root, steps=STEPS, served=SERVED, **fields):
    write_raw(root, "vllm-paged", steps=steps, served=served, seconds=10.0, **(RUN | BATCH | fields))
    return RawRun.read(root, "w", "vllm-paged", 0)


def test_the_same_schedule_agrees_at_every_step(tmp_path):
    found = counterfactual.agreement(raw(tmp_path))
    assert found == counterfactual.Agreement(measured=7, simulated=7, equal=7, difference=None)
    assert found.whole


def test_an_asynchronous_engine_keeps_a_finished_requests_blocks_one_step_longer(tmp_path):
    served = [
        Served(n, p, o, 0.0, [float(t + 1) for t in range(o)], float(o), "length") for n, p, o in ((0, 4, 1), (1, 4, 3))
    ]
    steps = [
        Step(0, 0.0, 2, 0, 0, 2, [[0, 4, 4], [1, 4, 4]]),
        Step(1, 1.0, 2, 0, 0, 3, [[0, 4, 4], [1, 5, 8]]),  # request 0's only token is under way
        Step(2, 2.0, 1, 0, 0, 2, [[1, 6, 8]]),
        Step(3, 3.0, 0, 0, 0, 0, []),
    ]
    engine = {"max_num_batched_tokens": 64, "async_scheduling": True}
    assert counterfactual.agreement(raw(tmp_path / "a", steps, served, engine=engine)).whole
    difference = counterfactual.agreement(raw(tmp_path / "b", steps, served)).difference
    assert said("en", difference).startswith("step 1: measured 3 blocks")


def test_an_asynchronous_engine_makes_no_step_of_waiting_alone(tmp_path):
    """When request 0 is through, request 1 does not fit beside it: nothing is computed until its token has come."""
    assert counterfactual.agreement(raw(tmp_path, engine={"async_scheduling": True})).whole


@pytest.mark.parametrize(
    ("row", "change", "says"),
    [
        (1, {"blocks": 3, "held": [[0, 5, 8], [1, 7, 4]]}, "step 1: measured 3 blocks"),
        (4, {"held": [[0, 7, 8]]}, "step 4: measured 2 blocks"),
    ],
)
def test_the_first_step_that_differs_is_named(tmp_path, row, change, says):
    steps = [replace(step, **change) if at == row else step for at, step in enumerate(STEPS)]
    found = counterfactual.compare(steps, list(counterfactual.serve_again(raw(tmp_path), "paged")[1]))
    assert found.equal == 6
    assert said("en", found.difference).startswith(says)
    assert not found.whole


def test_a_log_that_ends_early_differs(tmp_path):
    found = counterfactual.compare(STEPS[:4], counterfactual.serve_again(raw(tmp_path), "paged")[1])
    assert said("en", found.difference) == "measured 4 steps, simulated 7"
    assert said("zh", found.difference) == "实测 4 步，模拟 7 步"


def test_requests_come_in_the_order_of_the_log_not_of_their_ids(tmp_path):
    turned = [replace(step, held=[[2 - id, *rest] for id, *rest in step.held]) for step in STEPS]
    served = [replace(one, id=2 - one.id) for one in SERVED]
    assert [job.id for job in counterfactual.jobs_of(turned, served)] == [2, 1, 0]
    assert counterfactual.agreement(raw(tmp_path, turned, served)).whole


def test_sequential_arms_run_one_at_a_time(tmp_path):
    found = raw(tmp_path, settings={"arm": {"feed": "sequential"}})
    accounting, _ = counterfactual.serve_again(found, "paged")
    assert accounting.running.max() == 1


def test_a_prefill_budget_stores_prompts_in_chunks(tmp_path):
    found = raw(tmp_path, engine={"max_num_batched_tokens": 5})
    _, steps = counterfactual.serve_again(found, "paged")
    assert next(steps).held == [[0, 4, 4], [1, 1, 4]]


def test_quantities_name_the_files_and_the_table_prints(tmp_path, capsys):
    found = raw(tmp_path)
    quantities = {quantity.id: quantity for quantity in counterfactual.quantities(found, "w.vllm-paged")}
    assert quantities["w.vllm-paged.served-again.agreement"].value == 1.0
    # A maximum of 16 fills the pool with one request at a time: what it stores, over its own iterations.
    stored = sum(sum(range(one.prompt_tokens, one.prompt_tokens + one.output_tokens)) for one in SERVED)
    outputs = sum(one.output_tokens for one in SERVED)
    assert quantities["w.vllm-paged.served-again.orca-max.tokens"].value == pytest.approx(stored / outputs / 16)
    assert quantities["w.vllm-paged.served-again.orca-max.running"].value == 1
    assert {
        source.file.rsplit("/", 1)[1] for source in quantities["w.vllm-paged.served-again.paged.tokens"].sources
    } == {
        "run.json",
        "requests.jsonl",
        "steps.jsonl",
    }
    simulation_table.show_replay(list(quantities.values()), found)
    said = capsys.readouterr().out
    assert "equals the log in 100% of 7 steps" in said
    simulated, measured = (
        next(line.split()[-5:] for line in said.splitlines() if line.startswith(name))
        for name in ("simulated paged", "measured")
    )
    assert simulated == measured


def test_a_run_without_requests_says_so(tmp_path):
    empty = replace(raw(tmp_path), all_served=[])
    with pytest.raises(KvlabError, match="no requests were recorded"):
        counterfactual.agreement(empty)
