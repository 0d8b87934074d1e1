"""The simulator's clock: iterations that are counted, or seconds by step times."""

from __future__ import annotations

import math

from kvlab.simulate.step_times import StepTimes


class Clock:
    """When each iteration is scheduled and when it ends; `begins` and `ends` keep both, one entry an iteration.

    Without `step_times` an iteration lasts 1, and the clock advances to the next whole number. `ahead`: an iteration is
    scheduled while the one before it runs, so it includes the arrivals until that one began (asynchronous scheduling).
    """

    def __init__(self, step_times: StepTimes | None, ahead: bool) -> None:
        self.step_times = step_times
        self.ahead = ahead and step_times is not None
        self.begins: list[float] = []
        self.ends: list[float] = []
        self._done = 0.0  # the last iteration's end
        self._before = 0.0  # the end of the one before it

    def now(self, busy: bool) -> float:
        """When the next iteration is scheduled; `busy`: requests run."""
        return self._before if self.ahead and busy else self._done

    def wait(self, until: float) -> None:
        """Nothing runs before `until`."""
        self._done = self._before = float(math.ceil(until)) if self.step_times is None else max(until, self._done)

    def settle(self) -> None:
        """The running iteration ends before the next is scheduled."""
        self._before = self._done

    def step(self, at: float, rows: int, kv_tokens: int, prefill_tokens: int) -> None:
        """An iteration that was scheduled `at`, and what it computes."""
        lasts = 1.0 if self.step_times is None else self.step_times.seconds(rows, kv_tokens, prefill_tokens)
        self._before, self._done = self._done, self._done + lasts
        self.begins.append(at)
        self.ends.append(self._done)
