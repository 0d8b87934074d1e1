"""What to simulate: the part `simulation` of a configuration. Defaults are the paper's experiment on OPT-13B."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kvlab.config.part import Name, Part
from kvlab.config.workloads import Published

STUDIES = ("block-size", "pool", "output-cv", "load", "shapes", "sharing", "prefix")
PositiveInts = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
PositiveFloats = Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)]


class AzureLengths(Part):
    """Pairs resampled from the Azure LLM inference trace (conversation, 2023)."""

    kind: Literal["azure-conv"]


class DrawnLengths(Part):
    """Prompts lognormal, outputs gamma, independent; the defaults are the ShareGPT means of the paper's Fig. 11."""

    kind: Literal["paper"]
    prompt_mean: float = Field(default=161.31, gt=0, allow_inf_nan=False, description="Mean prompt tokens.")
    prompt_cv: float = Field(default=1.6, gt=0, allow_inf_nan=False, description="Coefficient of variation of prompts.")
    output_mean: float = Field(default=337.99, gt=0, allow_inf_nan=False, description="Mean output tokens.")
    output_cv: float = Field(
        default=0.877, gt=0, allow_inf_nan=False, description="Coefficient of variation of outputs."
    )


class SimulatedWorkload(Part):
    """A workload that is simulated; its queue is always full."""

    lengths: Annotated[
        AzureLengths | DrawnLengths | Published, Field(discriminator="kind", description="Where lengths come from.")
    ]
    iterations: int | None = Field(
        default=None,
        ge=2,
        description="Iterations of each seed, None: the simulation's; fewer where outputs are short.",
    )


class Trace(Part):
    """The requests and arrivals that the paper's artifact draws, with a constant step time; "not decided" without them.

    The first step time and seed 0 are what the paper's values are compared with; the others show what they change.
    """

    lengths: Published = Field(description="Which of the artifact's files; fetched only where path says download.")
    rate: float = Field(gt=0, le=1000, allow_inf_nan=False, description="Requests a second.")
    duration_s: float = Field(gt=0, le=86_400, allow_inf_nan=False, description="Requests arrive for so long, seconds.")
    window_s: tuple[float, float] = Field(description="Means are over the iterations that begin within it, seconds.")
    step_ms: Annotated[list[Annotated[float, Field(ge=1, le=10_000)]], Field(min_length=1)] = Field(
        description="Step times, milliseconds; the first one with all seeds, the others with seed 0."
    )
    seeds: int = Field(default=1, ge=1, le=100, description="Seeds of the order and the arrivals, from 0 on.")
    max_running: int = Field(default=256, ge=1, description="Most requests at once.")
    token_budget: int = Field(
        default=2560,
        ge=1,
        description="Most tokens a step computes; a prompt that exceeds what is left waits for the next step.",
    )

    @model_validator(mode="after")
    def _window_is_one(self) -> Trace:
        begin, end = self.window_s
        if not 0 <= begin < end <= self.duration_s:
            raise ValueError(f"window_s {begin:g} to {end:g}: times in order, within duration_s {self.duration_s:g}")
        if len(set(self.step_ms)) < len(self.step_ms):
            raise ValueError("step_ms: a step time is listed twice")
        return self


class BlockSizes(Part):
    """Paged with other block sizes; one of the longest request's length is paging off."""

    workloads: list[Name] = Field(min_length=1, description="Simulated workloads.")
    sizes: PositiveInts = Field(description="Block sizes, tokens.")


class Pools(Part):
    """All policies on other pools, starved to ample, with at most so many requests together."""

    workload: Name = Field(description="Simulated workload.")
    slots: PositiveInts = Field(description="Pools, slots.")
    max_running: int = Field(ge=1, description="Most requests together: an ample pool is one that holds them all.")


class Spreads(Part):
    """All policies with outputs of another spread."""

    workload: Name = Field(description="Simulated workload, of kind paper.")
    values: PositiveFloats = Field(description="Coefficients of variation of output lengths.")


class Loads(Part):
    """Paged, with requests that arrive at random instead of a full queue."""

    workload: Name = Field(description="Simulated workload.")
    values: PositiveFloats = Field(description="Offered load, as a part of what a full queue's pool serves.")


class Shapes(Part):
    """All policies with other distributions of the same means: how far the results depend on the distribution."""

    workload: Name = Field(description="Simulated workload, of kind paper.")
    output_families: list[Literal["gamma", "lognormal"]] = Field(min_length=1, description="Families of outputs.")
    prompt_cv: PositiveFloats = Field(description="Coefficients of variation of prompt lengths.")
    output_cv: PositiveFloats = Field(description="Coefficients of variation of output lengths.")


class Sharing(Part):
    """Parallel sampling: several sequences of one prompt, its blocks shared, copied on write."""

    workloads: list[Name] = Field(min_length=1, description="Simulated workloads.")
    samples: PositiveInts = Field(description="Sequences a request.")


class Prefixes(Part):
    """A prefix that begins every prompt, once in the pool or once a request."""

    workload: Name = Field(description="Simulated workload.")
    tokens: PositiveInts = Field(description="Lengths of the prefix, tokens.")


class Studies(Part):
    """Studies that vary one parameter each."""

    iterations: int = Field(default=10_000, ge=2, description="Iterations of a case.")
    warmup_iterations: int = Field(default=1000, ge=0, description="Iterations left out at the start of a case.")
    seeds: int = Field(default=2, ge=1, le=100, description="Seeds of each case.")
    block_size: BlockSizes = Field(description="Other block sizes.")
    pool: Pools = Field(description="Other pools.")
    output_cv: Spreads = Field(description="Another spread of outputs.")
    load: Loads = Field(description="A queue that is not always full.")
    shapes: Shapes = Field(description="Other shapes of lengths.")
    sharing: Sharing = Field(description="Parallel sampling.")
    prefix: Prefixes = Field(description="A prefix that all prompts share.")


class SmallPool(Part):
    """The figure that shows a small pool, slot by slot over time."""

    pool_slots: int = Field(default=128, ge=8, le=1024, description="Slots of the drawn pool.")
    block_size: int = Field(default=4, ge=1, description="Slots of a block.")
    max_model_len: int = Field(default=32, ge=2, description="Longest prompt + output, tokens.")
    requests: list[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]] = Field(
        default=[
            *((6, 10), (3, 21), (12, 5), (2, 8), (9, 14), (4, 17), (7, 6)),
            *((5, 12), (10, 9), (3, 15), (8, 11), (2, 19), (6, 7), (11, 13)),
        ],
        min_length=1,
        max_length=16,
        description="[prompt, output] tokens of each request, in order of arrival.",
    )


class Simulation(Part):
    """Allocators simulated without an engine: seconds on any machine."""

    pool_slots: int | None = Field(
        default=None, ge=1, le=100_000_000, description="KV pool, slots; None: the paper's, OPT-13B's row of Table 1."
    )
    max_model_len: int = Field(default=2048, ge=2, description="Longest prompt + output, tokens.")
    block_size: int = Field(default=16, ge=1, description="Block of the paged allocator, tokens.")
    watermark: float = Field(
        default=0.01, ge=0, lt=1, allow_inf_nan=False, description="Part of the blocks that an admission leaves free."
    )
    iterations: int = Field(default=20_000, ge=2, description="Iterations of each seed.")
    warmup_iterations: int = Field(default=1000, ge=0, description="Iterations left out at the start of each seed.")
    seeds: int = Field(default=5, ge=1, le=100, description="Seeds of each policy and workload.")
    workloads: dict[Name, SimulatedWorkload] = Field(min_length=1, description="Workloads: all policies serve each.")
    traces: dict[Name, Trace] = Field(
        default={}, description="Traces of the paper's artifact; fig2, fig13a and fig13b have claims."
    )
    studies: Studies | None = Field(default=None, description="Studies; None: none.")
    picture: SmallPool = SmallPool()

    def published(self) -> dict[str, Published]:
        """The artifact's lengths that are asked for, by the workload or trace that asks."""
        every = {name: part.lengths for part_of in (self.workloads, self.traces) for name, part in part_of.items()}
        return {name: lengths for name, lengths in every.items() if isinstance(lengths, Published)}

    def settings(self) -> dict[str, Any]:
        """What the stage is given."""
        data = self.model_dump(mode="json")
        for name, lengths in self.published().items():
            data["traces" if name in self.traces else "workloads"][name]["lengths"] = lengths.settings()
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Simulation:
        known = self.workloads
        for name in {*known, *STUDIES, "table1"} & {*self.traces}:
            raise ValueError(f"traces.{name}: a simulated workload or a study has that name; choose another")
        for name, workload in known.items():
            if (workload.iterations or self.iterations) <= self.warmup_iterations:
                raise ValueError(f"workload {name}: no iteration is left after {self.warmup_iterations} of warm-up")
        if self.pool_slots is not None and self.block_size > self.pool_slots:
            raise ValueError(f"block_size {self.block_size} is larger than the pool, {self.pool_slots} slots")
        if self.studies is None:
            return self
        if self.studies.iterations <= self.studies.warmup_iterations:
            raise ValueError(f"studies: no iteration is left after {self.studies.warmup_iterations} of warm-up")
        for study in (name.replace("-", "_") for name in STUDIES):
            part = getattr(self.studies, study)
            for name in getattr(part, "workloads", None) or [part.workload]:
                if name not in known:
                    raise ValueError(f"studies.{study}: no simulated workload {name!r}; there are {', '.join(known)}")
                if study in ("output_cv", "shapes") and known[name].lengths.kind != "paper":
                    raise ValueError(f"studies.{study}: workload {name!r} must be of kind paper, whose spread can vary")
        return self
