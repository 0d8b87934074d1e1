"""The demand: the user's lengths or the project's, and the calibration that may be used for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kvlab.errors import ConfigError
from kvlab.paths import lengths_file
from kvlab.prepare import artifact, lengths
from kvlab.prepare.own_lengths import read_pairs
from kvlab.simulate.forecasts.calibration import Calibration, calibrate
from kvlab.simulate.planning.plan import Draw
from kvlab.simulate.planning.shape import ModelShape


def drawn(where: str, max_model_len: int | None, most: int | None) -> tuple[int, Draw]:
    """(longest prompt + output, how pairs are drawn): azure-conv, sharegpt, paper, or a file of lengths.

    Without `max_model_len` 2,048 for the project's own, which leave longer pairs out, and the next power of two of the
    longest pair for a file, at most `most`. A file's pairs above it are an error.
    """
    if where in ("azure-conv", "paper", "sharegpt"):
        longest = max_model_len or min(lengths.PAPER_MAX_TOTAL, most or lengths.PAPER_MAX_TOTAL)
        if where == "paper":
            return longest, lambda count, seed: lengths.paper(count, seed, max_total=longest).pairs()
        if where == "azure-conv":
            table = lengths.read_table()
            return longest, lambda count, seed: lengths.resample(table, count, seed, max_total=longest).pairs()
        pairs = artifact.read("sharegpt", lengths_file("sharegpt", None))
        return longest, lambda count, seed: artifact.draw(pairs, "resampled", count, seed, max_total=longest).pairs()
    own = read_pairs(Path(where))
    total = int((own.prompt + own.output).max())
    longest = max_model_len or min(1 << (total - 1).bit_length(), most or 1 << 62)
    if total > longest:
        read_pairs(Path(where), max_total=longest)
    table = lengths.LengthTable(own.prompt, own.output, np.ones(len(own), dtype=np.int64))
    return longest, lambda count, seed: lengths.resample(table, count, seed).pairs()


def calibration_for(run: Path | None, shape: ModelShape, dtype: str) -> Calibration | None:
    """The step times of a run; ConfigError where it served a model of another shape."""
    if run is None:
        return None
    fitted, raw = calibrate(run)
    if raw.run.kv_bytes_per_slot != shape.kv_bytes(dtype):
        raise ConfigError(
            f"--calibration {run}: its model has {raw.run.kv_bytes_per_slot} bytes of KV cache a token, {shape.name} "
            f"in {dtype} has {shape.kv_bytes(dtype)}; step times hold for one model on one GPU"
        )
    return fitted
