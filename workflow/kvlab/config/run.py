"""What to run: pydantic models of `config/*.yaml`. Defaults, units and bounds are in this folder alone.

A stage never sees the whole configuration. `Config.section(stage, …)` gives it its own part; the rules hand the same
part to Snakemake as `params`, so changing one stage's settings reruns that stage and what follows. No stage imports
this module: a setting reaches a stage only through its section.
"""

from __future__ import annotations

import copy
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from kvlab.arms import ARMS
from kvlab.config import documents
from kvlab.config.measure import Measure
from kvlab.config.part import Name, Part
from kvlab.config.parts import Analysis, Model, Report
from kvlab.config.simulation import Simulation
from kvlab.config.workloads import KINDS, Comparison, OpenLoop
from kvlab.errors import ConfigError
from kvlab.measure.engines.registry import EngineSettings, engines, settings_of
from kvlab.paths import local_files
from kvlab.records import cell

TAKEN = {"reference": "packed runs", "replay": "replayed runs"}


def _as_model(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


class Config(Part):
    """A run: `results/<run>/`."""

    run: Name = Field(description="Name of the run and of its folder under results/.")
    model: Annotated[Model, BeforeValidator(_as_model)] = Model()
    workloads: dict[Name, Comparison] = Field(
        default={}, description="What is served, by which arms; at least one, unless there is a simulation."
    )
    simulation: Simulation | None = Field(default=None, description="What is simulated, without an engine.")
    measure: Measure = Measure()
    analysis: Analysis = Analysis()
    report: Report = Report()
    data_seed: int = Field(
        default=0, ge=0, description="Seed of lengths and random token ids. Repeats differ by number only."
    )
    container: str | None = Field(
        default=None, description="Image the rules run in with --use-singularity: a .sif file or docker://name@sha256:…"
    )

    @field_validator("run")
    @classmethod
    def _not_taken(cls, name: str) -> str:
        if name in TAKEN:
            raise ValueError(f"results/{name}/ holds the {TAKEN[name]}; give the run another name")
        return name

    @model_validator(mode="after")
    def _does_something(self) -> Config:
        if not self.workloads and self.simulation is None:
            raise ValueError("workloads: at least one is needed (or a simulation)")
        return self

    def without_weights(self) -> bool:
        """Whether the engine draws the weights itself, so that none are on disk."""
        return any(getattr(getattr(self.measure, name), "load_format", "auto") == "dummy" for name in engines())

    @model_validator(mode="after")
    def _weights_are_there(self) -> Config:
        if self.without_weights():
            if not self.model.source.startswith("random:"):
                raise ValueError(f"load_format dummy is for random: models; {self.model.source} has weights")
            for name, part in self.workloads.items():
                for arm in part.arms:
                    if settings_of(ARMS[arm].engine).checkpoint:
                        raise ValueError(
                            f"load_format dummy: {arm} of workload {name} needs weights on disk; leave that arm out"
                        )
        return self

    def section(self, stage: str, workload: str | None = None, arm: str | None = None) -> dict[str, Any]:
        """What `stage` depends on, as plain data: its function's arguments and its rule's `params`."""
        model = self.model.model_dump(mode="json")
        if stage == "model":
            return {"model": model} | ({"dummy": True} if self.without_weights() else {})
        if stage == "workload":
            part = self.workloads[_known(workload)]
            return {
                "requests": part.requests.settings(),
                "max_model_len": part.max_model_len,
                "seed": self.data_seed,
            } | ({"arrivals": part.arrivals.kind} if isinstance(part.arrivals, OpenLoop) else {})
        if stage == "measure":
            part, entry = self.workloads[_known(workload)], ARMS[_known(arm)]
            settings = self.measure.model_dump(mode="json")
            every = {name: settings.pop(name) for name in engines()}
            settings["engine"] = every[entry.engine]
            # An arm may fix one of its engine's own settings: its difference from the others.
            settings["engine"] |= {key: value for key, value in entry.options.items() if key in settings["engine"]}
            return {
                "arm": {"name": entry.name, "engine": entry.engine, "feed": entry.feed, "options": entry.options},
                "kv_slots": part.kv_slots,
                "max_model_len": part.max_model_len,
                "sequential_requests": getattr(part.requests, "sequential_requests", None),
                "cut_only": entry.feed == "sequential" or entry.name in part.cut_arms,
                "settings": settings,
            } | _arrival(part)
        if stage == "analyse":
            arms = {arm: ARMS[arm].shown() for part in self.workloads.values() for arm in part.arms}
            section = {"analysis": self.analysis.model_dump(mode="json"), "run": self.run, "raw": self.raw()}
            section["arms"] = arms
            return section | ({"open": open_} if (open_ := self.raw(open_loop=True)) else {})
        if stage == "simulate":
            return self.simulation.settings() | {"seed": self.data_seed} if self.simulation else {}
        if stage == "notebook":
            return {"palette": self.report.palette, "language": self.report.language}
        if stage == "report":
            return self.report.model_dump(mode="json") | {"declared": list(ARMS)}
        raise ValueError(f"no stage {stage!r} has a section")

    def engine(self, arm: str) -> str:
        """The module of `kvlab.measure.engines` that runs `arm`."""
        return ARMS[arm].engine

    def gpus(self, arm: str) -> int:
        """How many GPUs `arm` uses where it runs on GPUs."""
        settings: EngineSettings = getattr(self.measure, self.engine(arm))
        return settings.gpus()

    def files(self, workload: str) -> list[str]:
        """Local files that a workload is made from."""
        return local_files([self.workloads[workload].requests.file()])

    def simulation_files(self) -> list[str]:
        """Local files that a simulation is made from, the project's own apart."""
        return local_files([one.file() for one in self.simulation.published().values()] if self.simulation else [])

    def raw(self, open_loop: bool = False) -> list[list[str | int]]:
        """Every [workload, arm, repeat] that the run measures of a queue that is there from the start.

        `open_loop`: instead every [workload, arm@rate, repeat] of the workloads whose requests arrive over time.
        """
        found: list[list[str | int]] = []
        for block in range(max((part.repeats for part in self.workloads.values()), default=0)):
            for name, part in self.workloads.items():
                if block >= part.repeats or isinstance(part.arrivals, OpenLoop) != open_loop:
                    continue
                for arm in part.arms:
                    rates = part.arrivals.of(arm, block) if isinstance(part.arrivals, OpenLoop) else [None]
                    found += [[name, cell(arm, rate), block] for rate in rates]
        return found

    def processes(self) -> list[tuple[str, str, int]]:
        """Every (workload, process, block) of the run, in the order in which they run: block by block, so that drift
        of clocks and temperature affects all arms equally.

        A process loads an engine once and measures the arms that share its configuration, pass after pass. A block is
        one such process; its number is the repeat of all its passes.
        """
        most = max((part.repeats for part in self.workloads.values()), default=0)
        return [
            (workload, process, block)
            for block in range(most)
            for workload, part in self.workloads.items()
            for process in dict.fromkeys(self.process(arm) for arm in part.arms)
            if block < part.repeats and self.passes(workload, process, block)
        ]

    def process(self, arm: str) -> str:
        """The process that measures `arm`."""
        return settings_of(ARMS[arm].engine).process(arm, ARMS[arm].options)

    def processes_of(self, engine: str) -> list[str]:
        """Names of the processes in which `engine` measures arms of this run."""
        arms = [arm for part in self.workloads.values() for arm in part.arms if self.engine(arm) == engine]
        return list(dict.fromkeys(self.process(arm) for arm in arms))

    def passes(self, workload: str, process: str, block: int) -> list[tuple[str, float | None]]:
        """(arm, rate) of each pass of a process, in the order in which the block runs them: rotated by its number.

        Of an open loop an arm has a pass for each of its rates; the lowest of all arms come before the next.
        """
        part = self.workloads[workload]
        arms = [arm for arm in part.arms if self.process(arm) == process]
        found: list[tuple[str, float | None]] = [(arm, None) for arm in arms]
        if isinstance(part.arrivals, OpenLoop):
            rates = {arm: part.arrivals.of(arm, block) for arm in arms}
            most = max((len(given) for given in rates.values()), default=0)
            found = [(arm, rates[arm][n]) for n in range(most) for arm in arms if n < len(rates[arm])]
        turn = block % len(found) if found else 0
        return found[turn:] + found[:turn]


def _arrival(part: Comparison) -> dict[str, Any]:
    """A measurement's settings of arrivals and order; none for a queue in the workload's own order."""
    settings: dict[str, Any] = {"shuffle": True} if part.shuffle else {}
    if isinstance(part.arrivals, OpenLoop):
        settings["arrivals"] = {k: v for k, v in part.arrivals.model_dump(mode="json").items() if k != "rates"}
    return settings


def _known(value: str | None) -> str:
    if value is None:
        raise ValueError("this stage's section needs a workload (and measure an arm)")
    return value


def parse(data: Any, where: str) -> Config:
    """A checked configuration; ConfigError says in one line which keys are wrong and how."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a configuration is a mapping of keys, see config/README.md")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in fault["loc"]) or "(top level)"
            said = re.sub(r"^Value error, ", "", fault["msg"])
            if fault["type"] == "extra_forbidden":
                said = f"no such key{documents.nearest(str(fault['loc'][-1]))}"
            faults.append(f"{key}: {said}")
        raise ConfigError(f"{where}: " + "; ".join(faults)) from None


def spread(data: Any) -> Any:
    """Snakemake's `--config repeats=1 dtype=bfloat16` in the shape of the file.

    A setting may be named without its part: one of `measure` or `report` is set there, one of a workload (kv_slots,
    repeats, arms, prompts …) in every workload that has it.
    """
    if not isinstance(data, dict):
        return data
    out = copy.deepcopy(data)
    places: dict[str, tuple[str, ...]] = {"interval_ms": ("measure", "sampling")}
    places |= dict.fromkeys(Measure.model_fields, ("measure",))
    places |= dict.fromkeys(Report.model_fields, ("report",))
    for key in [k for k in out if k not in Config.model_fields]:
        theirs = [name for name, settings in engines().items() if key in settings.model_fields]
        if theirs and key not in places:
            value = out.pop(key)
            for name in theirs:
                out.setdefault("measure", {}).setdefault(name, {})[key] = value
            continue
        if key in places:
            home = out
            for part in places[key]:
                home = home.setdefault(part, {}) if isinstance(home, dict) else None
            if isinstance(home, dict):  # else that part is wrong, and its check reports it
                home[key] = out.pop(key)
            continue
        homes = []
        for workload in documents.mappings(out.get("workloads")):
            requests = workload.get("requests")
            if not isinstance(requests, dict):
                continue
            if key in Comparison.model_fields:
                homes.append(workload)
            elif key in KINDS.get(requests.get("kind"), Part).model_fields:
                homes.append(requests)
        if homes:
            value = out.pop(key)
            for home in homes:
                home[key] = value
    return out
