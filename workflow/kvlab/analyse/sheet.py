"""The sheet that quantities are put on: samples over repeats in, median, interval and sources out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvlab.analyse.statistics import Settings, interval, median, ratio_interval
from kvlab.quantities import Quantities, Quantity, Source
from kvlab.raw import RawRun


class Sheet:
    """Collects the quantities of a run. Every number on it comes from `RawRun`s, whose files become its sources."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.quantities = Quantities()

    def arm(
        self,
        key: str,
        unit: str,
        runs: Sequence[RawRun],
        of: Callable[[RawRun], float | None],
        formula: str,
        files: Sequence[str],
        why_none: str = "the logs hold nothing to compute it from",
    ) -> Quantity:
        """One quantity of an arm: `of` each repeat, the median of all, its interval."""
        samples = [float(value) for run in runs if (value := of(run)) is not None]
        sources = [run.source(file) for run in runs for file in files]
        if len(samples) > 1:
            formula += f"; median of {len(samples)} repeats"
        return self.quantities.add(
            Quantity(
                id=key,
                value=median(samples) if samples else None,
                unit=unit,
                formula=formula,
                n=len(samples),
                sources=sources,
                interval=interval(samples, self.settings) if samples else None,
                samples=samples,
                why_none=None if samples else why_none,
            )
        )

    def ratio(
        self, key: str, top: Quantity | None, bottom: Quantity | None, formula: str, unit: str = "ratio"
    ) -> Quantity:
        """`top` ÷ `bottom`, of the medians, with the interval of the ratio; unit "change" takes 1 away."""
        missing = [q for q in (top, bottom) if q is None or q.value is None]
        sources = _union([q for q in (top, bottom) if q is not None])
        if missing or top is None or bottom is None or not bottom.samples or median(bottom.samples) == 0:
            why = next((q.why_none for q in missing if q is not None), None) or "an arm that it needs was not run"
            return self.quantities.add(Quantity(key, None, unit, formula, 0, sources, why_none=why))
        shift = 1.0 if unit == "change" else 0.0
        between = ratio_interval(top.samples, bottom.samples, self.settings)
        paired = len(top.samples) == len(bottom.samples)
        return self.quantities.add(
            Quantity(
                id=key,
                value=median(top.samples) / median(bottom.samples) - shift,
                unit=unit,
                formula=formula,
                n=min(top.n, bottom.n),
                sources=sources,
                interval=(between[0] - shift, between[1] - shift) if between else None,
                samples=[a / b - shift for a, b in zip(top.samples, bottom.samples, strict=True)] if paired else [],
            )
        )

    def undecided(self, key: str, unit: str, formula: str, why: str, sources: Sequence[Source] = ()) -> Quantity:
        """A quantity that the logs don't decide, with the reason."""
        return self.quantities.add(Quantity(key, None, unit, formula, 0, list(sources), why_none=why))


def _union(quantities: Sequence[Quantity]) -> list[Source]:
    seen: dict[tuple[str, str], Source] = {}
    for quantity in quantities:
        for source in quantity.sources:
            seen.setdefault((source.file, source.rows), source)
    return list(seen.values())
