"""Makes quantities: from samples over repeats, the median, its interval and its sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvlab.analyse.bounds import OPPOSITE, within_bounds
from kvlab.analyse.statistics import Settings, interval, median, ratio, ratio_interval
from kvlab.catalogue import unit_of
from kvlab.quantities import Message, Quantities, Quantity, Said, Source
from kvlab.raw import RawRun


class Sheet:
    """Collects the quantities of a run. Every number on it comes from `RawRun`s, whose files become its sources.

    An id's unit is the one that it is declared with. Its formula is `said.<name>` in the strings, where none is given.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.quantities = Quantities()
        self.planned_arms: dict[str, list[str]] = {}  # of each workload: the arms that the configuration asks for
        self._blocks: dict[str, list[int]] = {}  # of each id's samples: the block (process) that each is of

    def arm(
        self,
        prefix: str,
        name: str,
        runs: Sequence[RawRun],
        of: Callable[[RawRun], float | None],
        files: Sequence[str],
        why_none: str = "no-data",
        formula: Message | None = None,
    ) -> Quantity:
        """One quantity `<prefix>.<name>` of an arm: `of` each repeat, the median of all, its interval.

        `why_none`: key of the reason where no repeat has a value.
        """
        known, bound, left_out = within_bounds(name, list(runs), of)
        found = [(run.run.repeat, value) for run, value in known]
        sources = [run.source(file) for run in runs for file in files if file in run.digests]
        why = Message("stopped-before" if left_out else why_none)
        return self.samples(f"{prefix}.{name}", found, sources, formula or Message(name), why, bound)

    def samples(
        self,
        key: str,
        found: Sequence[tuple[int, float]],
        sources: Sequence[Source],
        formula: Message,
        why: Said,
        bound: str | None = None,
    ) -> Quantity:
        """A quantity from (block, value) of each repeat that has one; `why` where none has. `bound`: see `Quantity`."""
        samples = [value for _, value in found]
        self._blocks[key] = [block for block, _ in found]
        spread = None if bound else interval(samples, self.settings)
        return self.quantities.add(
            Quantity(
                id=key,
                value=median(samples) if samples else None,
                unit=unit_of(key) or "count",
                formula=formula,
                n=len(samples),
                sources=list(sources),
                interval=spread[0] if spread else None,
                interval_kind=spread[1] if spread else None,
                samples=samples,
                why_none=None if samples else why,
                bound=bound if samples else None,
            )
        )

    def ratio(self, key: str, top: Quantity | None, bottom: Quantity | None, formula: Message) -> Quantity:
        """`top` ÷ `bottom`, of the blocks that both have: the geometric mean, with the t interval of the logarithms.

        A bound of either gives a bound of the ratio, unless the two point in opposite directions.
        """
        sources = _union([q for q in (top, bottom) if q is not None])
        if top is None or bottom is None or top.value is None or bottom.value is None:
            return self.undecided(key, formula, self._missing(key, formula, top, bottom), sources)
        above, below = (dict(zip(self._blocks[q.id], q.samples, strict=True)) for q in (top, bottom))
        both = [block for block in above if block in below]
        if not both:
            return self.undecided(key, formula, Message("no-common-block"), sources)
        tops, bottoms = [above[block] for block in both], [below[block] for block in both]
        if min(tops) <= 0 or min(bottoms) <= 0:
            return self.undecided(key, formula, Message("nothing-to-divide"), sources)
        bounds = {top.bound, bottom.bound and OPPOSITE[bottom.bound]} - {None}
        if len(bounds) > 1:
            return self.undecided(key, formula, Message("stopped-both"), sources)
        ends = None if bounds else ratio_interval(tops, bottoms, self.settings)
        self._blocks[key] = both
        return self.quantities.add(
            Quantity(
                id=key,
                value=ratio(tops, bottoms),
                unit=unit_of(key) or "ratio",
                formula=formula,
                n=len(both),
                sources=sources,
                interval=ends,
                interval_kind="t" if ends else None,
                samples=[a / b for a, b in zip(tops, bottoms, strict=True)],
                bound=next(iter(bounds), None),
            )
        )

    def difference(self, key: str, top: Quantity | None, bottom: Quantity | None, formula: Message) -> Quantity:
        """`top` − `bottom`, of the medians."""
        sources = _union([q for q in (top, bottom) if q is not None])
        if top is None or bottom is None or top.value is None or bottom.value is None:
            return self.undecided(key, formula, self._missing(key, formula, top, bottom), sources)
        unit = unit_of(key) or "points"
        return self.quantities.add(
            Quantity(key, top.value - bottom.value, unit, formula, min(top.n, bottom.n), sources)
        )

    def absent(self, workload: str, arm: str | Message) -> Message:
        """Why an arm has nothing here: the workload does not ask for it, or no run of it counts."""
        planned = self.planned_arms.get(workload)
        if planned is not None and arm not in planned:
            return Message("arm-not-asked", {"arm": arm, "arms": ", ".join(planned)})
        return Message("arm-not-run-here", {"arm": arm})

    def _missing(self, key: str, formula: Message, top: Quantity | None, bottom: Quantity | None) -> Said:
        """Why a number across two arms has no value: the reason of the one that has none, or why it is absent."""
        workload, sides = key.partition(".")[0], {"bottom": bottom, "top": top}
        why = next((q.why_none for q in sides.values() if q and q.why_none), None)
        absent = [self.absent(workload, formula.values[side]) for side, q in sides.items() if q is None]
        return why or min(absent, key=lambda message: message.key, default=Message("no-data"))

    def undecided(self, key: str, formula: Message, why: Said, sources: Sequence[Source] = ()) -> Quantity:
        """A quantity that the logs don't decide, with the reason."""
        return self.quantities.add(
            Quantity(key, None, unit_of(key) or "ratio", formula, 0, list(sources), why_none=why)
        )


def _union(quantities: Sequence[Quantity]) -> list[Source]:
    seen: dict[tuple[str, str], Source] = {}
    for quantity in quantities:
        for source in quantity.sources:
            seen.setdefault((source.file, source.rows), source)
    return list(seen.values())
