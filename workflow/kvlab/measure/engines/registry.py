"""The engines there are: every folder beside this file that has a module `settings`.

`<engine>/settings.py` says what may be set (`SETTINGS`, a subclass of `EngineSettings`), `<engine>/driver.py` runs it
(`engine(job)`). Settings import no engine, so that a configuration can be checked without one. Nothing is imported
before it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from kvlab.errors import ConfigError
from kvlab.part import Part


class EngineSettings(Part):
    """An engine's part of the configuration, `measure.<engine>`, and what other code uses of the engine."""

    label: ClassVar[str]  # its name in figures and on the page
    open_loop: ClassVar[bool] = False  # whether requests may arrive while it serves others
    checkpoint: ClassVar[bool] = True  # whether it needs weights on disk

    def gpus(self) -> int:
        """GPUs that it uses where it runs on GPUs."""
        return 1

    @classmethod
    def process(cls, arm: str, options: Mapping[str, Any]) -> str:
        """Name of the process that measures an arm. Arms of one name share a loaded engine, pass after pass."""
        return arm


@cache
def engines() -> dict[str, type[EngineSettings]]:
    """Settings of every engine, by the name of its folder."""
    here = Path(__file__).parent
    found = {}
    for file in sorted(here.glob("*/settings.py")):
        name = file.parent.name
        found[name] = importlib.import_module(f"{__package__}.{name}.settings").SETTINGS
    return found


def settings_of(name: str) -> type[EngineSettings]:
    """The settings of the engine `name`; ConfigError where there is no such engine."""
    known = engines()
    if name not in known:
        raise ConfigError(
            f"no engine {name!r}: no file workflow/kvlab/measure/engines/{name}/settings.py; "
            f"there are: {', '.join(known)}"
        )
    return known[name]
