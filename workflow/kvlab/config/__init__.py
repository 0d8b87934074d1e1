"""What a run is configured to do: the checked configuration and the section of it that each stage depends on."""

import json
from pathlib import Path

from kvlab.config import documents
from kvlab.config.run import Config, parse, spread

__all__ = ["Config", "load", "parse", "schema", "spread"]


def load(path: Path) -> Config:
    """Read a YAML or JSON configuration."""
    return parse(documents.read(path), str(path))


def schema() -> str:
    """The JSON schema that `config/schema.json` holds."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
