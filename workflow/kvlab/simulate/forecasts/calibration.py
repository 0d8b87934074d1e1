"""Step times from a run's raw logs: four coefficients, what they rest on, and when there are none.

A step lasts `a + b·rows + c·KV tokens + d·prefill tokens`, all coefficients at least 0 (`StepTimes`). They are fitted
by nonnegative least squares on sums over windows of `WINDOW` steps: with asynchronous scheduling a step's work shows in
the log one to two steps later, so a fit step by step fails. One paged run gives all four, since its batch is small at
first or at the end and full between; a run that reserves the maximum length does not, since rows and KV tokens go
together there.

What the model leaves out decides when it may not be used: `fit` refuses a run that the host limits, that ran without
CUDA graphs, whose rows and KV tokens can't be told apart, or that the model does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvlab.accounting import Columns, Floats
from kvlab.errors import NotRunnable
from kvlab.messages import Message, several
from kvlab.raw import RawRun
from kvlab.records import Run, Served, Step, read_run
from kvlab.simulate.step_times import StepTimes

WINDOW = 8  # steps
FEWEST_WINDOWS = 40
BUSY = 0.90  # GPU utilisation below which the host limits
FITS = 0.90  # R² over windows below which the model is not this engine's


@dataclass(frozen=True)
class Work:
    """What each of n steps computed, and how long it took, seconds: arrays [n].

    `rows` decode a token, and read `kv_tokens` token states; `prefill_tokens` of prompts are computed, those computed
    again after a preemption too."""

    rows: Floats
    kv_tokens: Floats
    prefill_tokens: Floats
    seconds: Floats

    def windows(self, size: int = WINDOW) -> Work:
        """Sums over windows of `size` steps; what is left at the end is a window too."""
        starts = np.arange(0, len(self.rows), size)
        return Work(*(np.add.reduceat(column, starts) if len(column) else column for column in self.columns()))

    def columns(self) -> tuple[Floats, Floats, Floats, Floats]:
        """rows, kv_tokens, prefill_tokens, seconds."""
        return self.rows, self.kv_tokens, self.prefill_tokens, self.seconds


def work_of(steps: Sequence[Step], served: Sequence[Served], asynchronous: bool) -> Work:
    """The work of a log's steps, from what each request holds at each.

    `asynchronous`: a step is scheduled when the one before the last has ended, so a step's own time is the interval
    that follows it by one; the first interval holds two, the last none.
    """
    columns = Columns.of(steps)
    prompts = {one.id: one.prompt_tokens for one in served}
    order = np.lexsort((columns.row, columns.request))
    row, request, stored = (values[order] for values in (columns.row, columns.request, columns.stored))
    goes_on = np.zeros(len(row), dtype=bool)
    goes_on[1:] = (request[1:] == request[:-1]) & (row[1:] == row[:-1] + 1)
    before = np.where(goes_on, np.concatenate(([0], stored[:-1])), 0)
    new = stored - before
    prompt = np.array([prompts.get(one, 0) for one in request.tolist()], dtype=np.int64)
    decodes = goes_on & (new == 1) & (stored > prompt)

    def per_step(of: Any) -> Floats:
        return np.bincount(row, weights=of, minlength=len(steps)).astype(np.float64)

    took = np.diff(columns.t_s)
    if asynchronous and len(took) > 1:
        took = np.concatenate(([took[:2].sum()], took[2:], [0.0]))
    counts = (per_step(decodes), per_step(decodes * stored), per_step(np.where(decodes, 0, new)))
    rows, kv_tokens, prefill = (count[: len(took)] for count in counts)
    return Work(rows, kv_tokens, prefill, took)


@dataclass(frozen=True)
class Calibration:
    """Step times and what they rest on.

    `r2`: over windows. `error`: median of |fitted − measured| ÷ measured over windows. `most_rows`, `most_kv_tokens`,
    `most_prefill_tokens`: the largest means a step of a window that were seen. `engine` and `model`: what it holds for.
    """

    step_times: StepTimes
    r2: float
    error: float
    windows: int
    seconds: float
    most_rows: float
    most_kv_tokens: float
    most_prefill_tokens: float
    utilisation: float | None
    run: str
    model: str
    engine: dict[str, Any]

    def outside(self, work: Work) -> float:
        """Part of the time of `work`, 0 to 1, in windows that hold more of something than was ever calibrated."""
        per_step = work.windows()
        steps = _steps_of(work, WINDOW)
        beyond = np.zeros(len(steps), dtype=bool)
        for column, most in (
            (per_step.rows, self.most_rows),
            (per_step.kv_tokens, self.most_kv_tokens),
            (per_step.prefill_tokens, self.most_prefill_tokens),
        ):
            beyond |= column / steps > 1.1 * most
        total = float(per_step.seconds.sum())
        return float(per_step.seconds[beyond].sum()) / total if total else 0.0


# What must be equal in two runs for the step times of one to hold for the other.
SAME_ENGINE = ("name", "version", "attention", "compiled", "cuda_graphs", "workers", "threads")


def engine_of(raw: RawRun) -> dict[str, Any]:
    """The part of a run's record that its step times hold for."""
    engine = {name: raw.run.engine.get(name) for name in SAME_ENGINE}
    return engine | {"dtype": raw.run.dtype, "device": raw.run.device}


def utilisation(raw: RawRun) -> float | None:
    """Mean share of the measured time in which the GPU was busy; None where the device does not report it."""
    start, end = raw.window
    seen = [s.utilisation for s in raw.samples if s.utilisation is not None and start <= s.t_s <= end]
    return float(np.mean(seen)) if seen else None


def policy_of(run: Run) -> str | None:
    """The allocator that decided who ran, by its name in the simulator; None for an engine other than vLLM."""
    if run.policy or run.engine.get("name") != "vllm":
        return run.policy
    return "orca-max" if run.reserve_slots else "paged"  # older runs do not record the policy


def calibrates(run: Run) -> bool:
    """Whether step times may be fitted on the run: vLLM batches with paging, not eager, all requests there at once."""
    arm = run.settings.get("arm", {})
    in_batch, eager = arm.get("feed") != "sequential", arm.get("options", {}).get("eager")
    return policy_of(run) == "paged" and in_batch and not eager and run.rate is None


def fit(raw: RawRun) -> Calibration:
    """The step times of one run, all its parts taken together. NotRunnable says why there are none."""
    run = raw.run

    def refusal(key: str, **values: Any) -> NotRunnable:
        return NotRunnable(Message("of-run", {"run": raw.name, "what": Message(f"no-step-times.{key}", values)}))

    if not raw.completed:
        raise refusal("not-completed")
    if (policy := policy_of(run)) != "paged":
        raise refusal("policy", policy=str(policy))
    if run.engine.get("compiled") is False:
        raise refusal("eager")
    views = [view for part in run.parts if (view := raw.of(part)) is not None]
    busy = [share for view in views if (share := utilisation(view)) is not None]
    if busy and min(busy) < BUSY:
        raise refusal("host", busy=f"{min(busy):.0%}", least=f"{BUSY:.0%}")
    ahead = bool(run.engine.get("async_scheduling"))
    parts = [work_of(view.steps, view.served, ahead).windows() for view in views]
    work = Work(*(np.concatenate(columns) for columns in zip(*(part.columns() for part in parts), strict=True)))
    steps = np.concatenate([_steps_of(work_of(view.steps, view.served, ahead), WINDOW) for view in views])
    if len(steps) < FEWEST_WINDOWS:
        raise refusal("short", windows=len(steps), steps=WINDOW, least=FEWEST_WINDOWS)
    from scipy.optimize import nnls  # half a second, which most commands do without

    made = np.column_stack((steps, work.rows, work.kv_tokens, work.prefill_tokens))
    scale = np.maximum(made.max(axis=0), 1e-12)
    # To nine digits, and no matrix product: the last bits of BLAS depend on the processor, and logs replay to the byte.
    coefficients = np.array([float(f"{value:.9g}") for value in nnls(made / scale, work.seconds)[0] / scale])
    fitted = (made * coefficients).sum(axis=1)
    spread = float(((work.seconds - work.seconds.mean()) ** 2).sum())
    r2 = 1 - float(((work.seconds - fitted) ** 2).sum()) / spread if spread else 0.0
    if r2 < FITS:
        raise refusal("misfit", r2=f"{r2:.2f}", least=f"{FITS:g}")
    whole = steps == WINDOW
    if not coefficients[2]:
        raise refusal("together")
    return Calibration(
        step_times=StepTimes(*coefficients.tolist()),
        r2=r2,
        error=float(np.median(np.abs(fitted - work.seconds)[whole] / work.seconds[whole])),
        windows=len(steps),
        seconds=float(work.seconds.sum()),
        most_rows=float((work.rows / steps).max()),
        most_kv_tokens=float((work.kv_tokens / steps).max()),
        most_prefill_tokens=float((work.prefill_tokens / steps).max()),
        utilisation=min(busy) if busy else None,
        run=raw.name,
        model=run.model_fingerprint,
        engine=engine_of(raw),
    )


def _steps_of(work: Work, size: int) -> Floats:
    count = len(work.rows)
    steps = np.full(math.ceil(count / size), float(size))
    if count % size:
        steps[-1] = count % size
    return steps


def calibrate(root: Path) -> tuple[Calibration, RawRun]:
    """The first paged run in `root` that gives step times, repeats in order. NotRunnable says why none does."""
    refused = []
    for folder in sorted((root / "raw").glob("*/*/*")):
        if not calibrates(read_run(folder)):
            continue
        raw = RawRun.at(folder, root)
        try:
            return fit(raw), raw
        except NotRunnable as error:
            refused.append(error.why)
    if not refused:
        raise NotRunnable(Message("no-step-times.no-run", {"folder": str(root / "raw")}))
    raise NotRunnable(several(refused))
