"""The engines. `Arm.engine` names a folder here; its module `driver` has one function, `engine(job)`.

A driver imports its library only inside functions, after `environment.prepare`, and never another engine's folder:
what an arm's raw logs depend on is read from the imports.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

from kvlab.errors import ConfigError
from kvlab.measure.job import EngineFacts, Feed, Job
from kvlab.measure.journal import Journal
from kvlab.records import Request


class Engine(Protocol):
    """A loaded engine. The calls come in this order; `serve` and `collect` may come several times.

    `load` and `compile` raise NotRunnable where this machine can't run the arm: any refusal by the engine's library.
    """

    slots: int  # KV slots that it will allocate
    gpus: int  # GPUs that it uses where it runs on GPUs: the first ones
    compile_s: float  # seconds that compilation took inside `load`, by the engine's own account; known after it

    def load(self) -> None:
        """Put the model and the KV cache into memory."""

    def compile(self) -> None:
        """Compile what is compiled on first use; nothing where nothing is."""

    def check(self, requests: Sequence[Request], feed: Feed) -> None:
        """Raises NotRunnable where these could never be served this way; called before anything is loaded."""

    def serve(self, requests: Sequence[Request], journal: Journal, feed: Feed) -> None:
        """Serve all requests, greedily and to exactly `max_new_tokens`; note arrivals and tokens."""

    def collect(self, journal: Journal) -> None:
        """Note the steps of what was served since the last call; the clock does not run."""

    def settle(self) -> None:
        """Between passes: drop unfinished requests and empty the cache, as it was when loaded."""

    def facts(self) -> EngineFacts:
        """Sizes and settings in use, read back from the engine."""

    def close(self) -> None:
        """Free the device."""


def open_engine(name: str, job: Job) -> Engine:
    """The engine of the folder `kvlab/measure/engines/<name>`; ConfigError where there is none."""
    module = f"{__name__}.{name}.driver"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.removesuffix(".driver")):
            raise
        raise ConfigError(f"no engine {name!r}: no file workflow/kvlab/measure/engines/{name}/driver.py") from None
    engine: Engine = found.engine(job)
    return engine
