"""What every part of the configuration is; see `kvlab.part`, which engines' settings use too."""

from kvlab.part import Name, Part

__all__ = ["Name", "Part"]
