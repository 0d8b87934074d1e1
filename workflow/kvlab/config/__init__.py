"""What a run is asked to be: the checked configuration and the section of it that each stage depends on."""

from kvlab.config.run import Config, load, parse, schema, spread

__all__ = ["Config", "load", "parse", "schema", "spread"]
