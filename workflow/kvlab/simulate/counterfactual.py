"""A measured run's requests served by other allocators: what each policy would have held, beside what vLLM held.

The requests of a run, in the order in which it admitted them and with the lengths they came to, are served again from
a simulated pool of the same size, block size and bounds. Where the engine's schedule is the simulator's (first come,
first served, the newest preempted, prefill in chunks of the same budget, asynchronous or not) the two agree on blocks
at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kvlab.accounting import SHARES, Accounting
from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.allocators.policies import POLICIES, RESERVED, allocator_of
from kvlab.errors import KvlabError
from kvlab.messages import Message
from kvlab.quantities import Quantity
from kvlab.raw import RawRun
from kvlab.records import Served, Step
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.timeline import run_record

_FILES = ("run.json", "requests.jsonl", "steps.jsonl")


@dataclass(frozen=True)
class Agreement:
    """How simulated paging compares with the measured log, step by step: blocks in use and tokens stored.

    `difference` names the first step that differs and both sides' numbers, None where all agree.
    """

    measured: int  # steps in which the engine held cache
    simulated: int
    equal: int
    difference: Message | None

    @property
    def whole(self) -> bool:
        """Whether every step agrees."""
        return self.difference is None


def jobs_of(steps: Sequence[Step], served: Sequence[Served]) -> list[SimulatedRequest]:
    """The requests in the order in which the log admitted them; those it never admitted come last."""
    first: dict[int, tuple[int, int]] = {}
    for row, step in enumerate(steps):
        for place, (request, _, _) in enumerate(step.held):
            first.setdefault(request, (row, place))
    never = (len(steps), 0)
    order = sorted(served, key=lambda one: (first.get(one.id, never), one.arrival_s, one.id))
    return [_job(one) for one in order]


def arriving(steps: Sequence[Step], served: Sequence[Served]) -> list[SimulatedRequest]:
    """The requests of an open loop, in the order in which the engine's core saw them.

    A request arrives, in iterations, after the steps that had begun before the core saw it; one that it never saw is
    left out. With asynchronous scheduling it makes a difference whether the last token of the last running request had
    come back before: a line with nothing held, and nothing waiting, says so, and the clock leaps there.
    """
    began = [(step.t_s, not step.held and not step.waiting) for step in steps if step.held or not step.waiting]
    seen = sorted((one for one in served if one.seen_s is not None), key=lambda one: (one.seen_s, one.id))
    found, place, steps_begun, leaps, idle = [], 0, 0, 0, False
    for one in seen:
        while place < len(began) and began[place][0] < (one.seen_s or 0.0):
            if not began[place][1] and idle:
                leaps += 1
            idle = began[place][1]
            steps_begun += not idle
            place += 1
        found.append(_job(one, steps_begun + leaps + (0.5 if idle and steps_begun else 0.0)))
    return found


def _job(one: Served, arrival: float = 0.0) -> SimulatedRequest:
    return SimulatedRequest(one.id, one.prompt_tokens, max(one.asked_tokens or one.output_tokens, 1), arrival)


def serve_again(raw: RawRun, policy: str) -> tuple[Accounting, Iterator[Step]]:
    """What `policy` would have held for the run's requests, at each of its own iterations; the steps made as read."""
    run = raw.run
    if not raw.served:
        raise KvlabError(Message("of-run", {"run": raw.name, "what": Message("no-requests")}))
    allocator = allocator_of(policy, run.pool_slots, run.max_model_len, run.block_size, in_blocks=policy == run.policy)
    sequential = run.settings.get("arm", {}).get("feed") == "sequential"
    stopped = any(one.finish_s is None for one in raw.served)
    timeline = Scheduler(
        jobs_of(raw.steps, raw.served) if run.rate is None else arriving(raw.steps, raw.served),
        allocator,
        max_running=1 if sequential else run.max_num_seqs,
        token_budget=run.engine.get("max_num_batched_tokens"),
        asynchronous=bool(run.engine.get("async_scheduling")),
    ).run(sum(bool(step.held) for step in raw.steps) if stopped else None)
    record = run_record(allocator, run.workload, policy, run.repeat, len(timeline))
    return timeline.accounting(record, allocator), timeline.steps(allocator)


def compare(measured: Sequence[Step], simulated: Iterable[Step]) -> Agreement:
    """Step by step, the steps in which nothing is held left out: blocks in use, and who holds how much."""
    theirs = [step for step in measured if step.held]
    ours, equal, difference = 0, 0, None
    for other in simulated:
        if not other.held:
            continue
        ours += 1
        if ours > len(theirs):
            continue
        one = theirs[ours - 1]
        if one.blocks == other.blocks and sorted(map(tuple, one.held)) == sorted(map(tuple, other.held)):
            equal += 1
        elif difference is None:
            sides = {"measured": _state(one), "simulated": _state(other)}
            difference = Message("step-differs", {"step": one.step} | sides)
    if difference is None and ours != len(theirs):
        difference = Message("steps-differ", {"measured": len(theirs), "simulated": ours})
    return Agreement(len(theirs), ours, equal, difference)


def _state(step: Step) -> Message:
    return Message("step", {"blocks": step.blocks, "running": step.running, "preempted": step.preempted})


def agreement(raw: RawRun) -> Agreement:
    """The run's own policy simulated, against its own log; paging where the log names none."""
    return compare(charged(raw), serve_again(raw, raw.run.policy or "paged")[1])


def charged(raw: RawRun) -> list[Step]:
    """The run's steps with what its policy reserved in the place of what vLLM's blocks held of it.

    A held entry is then [request, tokens, slots asked for], and `blocks` counts the chunks: as in a simulated log.
    """
    chunks = raw.chunks
    if not chunks:
        return raw.steps
    block = raw.run.block_size if raw.run.policy == RESERVED else 1
    return [
        replace(
            step,
            blocks=sum(chunks[id][1] for id, _, _ in step.held) // block,
            held=[[id, tokens, chunks[id][0]] for id, tokens, _ in step.held],
        )
        for step in raw.steps
    ]


def quantities(raw: RawRun, key: str) -> list[Quantity]:
    """`<key>.served-again.<policy>.<share>` and `.running`, means over iterations, and how far paging agrees.

    A policy that can't hold one of the requests, such as one whose chunks are too coarse for the pool, has no values
    and says why.
    """
    sources = [raw.source(name) for name in _FILES]
    found: list[Quantity] = []

    def add(name: str, value: float | None, unit: str, formula: Message, n: int, why: Message | None = None) -> None:
        found.append(Quantity(f"{key}.served-again.{name}", value, unit, formula, n, sources, why_none=why))

    for policy in POLICIES:
        names = {name: "share" if name in SHARES else "requests" for name in (*SHARES, "running")}
        formulas = {
            name: Message("served-again", {"policy": policy, "what": Message(f"served-again.{name}")}) for name in names
        }
        try:
            accounting, steps = serve_again(raw, policy)
        except KvlabError as error:
            why = Message("cannot-hold", {"policy": policy, "why": error.why})
            for name, unit in names.items():
                add(f"{policy}.{name}", None, unit, formulas[name], 0, why)
            continue
        if policy == "paged":
            same = compare(raw.steps, steps)
            share = same.equal / max(same.measured, same.simulated)
            add("agreement", share, "share", Message("served-again.agreement"), same.measured)
            busy = raw.accounting.holding > 0
            together = float(raw.accounting.holding[busy].mean()) / accounting.mean("holding")
            add("together", together, "ratio", Message("served-again.together"), same.measured)
        for name, unit in names.items():
            value = accounting.mean_share(name) if unit == "share" else accounting.mean(name)
            add(f"{policy}.{name}", value, unit, formulas[name], len(accounting))
    return found
