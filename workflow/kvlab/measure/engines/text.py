"""Token ids to text, after the clock has stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def decoder(model: Path) -> Callable[[list[int]], str]:
    """Turns token ids into text with the model's tokenizer; into nothing where the model has none."""
    if not any((model / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return lambda token_ids: ""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)

    def decode(token_ids: list[int]) -> str:
        return str(tokenizer.decode(token_ids, skip_special_tokens=False))

    return decode
