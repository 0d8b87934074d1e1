"""A model's shape, as far as memory depends on it: from its `config.json`, without loading anything.

KV bytes a token are 2 (K and V) · layers · KV heads · head size · bytes an element. Parameters are counted from the
same sizes where the architecture is known; elsewhere the caller gives the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvlab.errors import ConfigError
from kvlab.prepare.shapes import SHAPES

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1}
GATED = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MixtralForCausalLM"}
KNOWN = {*GATED, "OPTForCausalLM", "GPT2LMHeadModel"}
_CLASSES = {"LlamaConfig": "LlamaForCausalLM", "OPTConfig": "OPTForCausalLM", "GPT2Config": "GPT2LMHeadModel"}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder. `parameters` None: not counted for this architecture. `longest`: its maximum positions."""

    name: str
    architecture: str
    layers: int
    kv_heads: int
    head_dim: int
    parameters: int | None
    longest: int | None

    def kv_bytes(self, dtype: str) -> int:
        """Bytes of keys and values of a token, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES[dtype]


def read_shape(where: str) -> ModelShape:
    """From a `config.json`, a folder that has one, a name in the hub's local cache, or one of the project's shapes.

    ConfigError where nothing is there, or where KV memory does not follow from these sizes alone.
    """
    named = where.removeprefix("random:")
    if named in SHAPES:
        kind, arguments = SHAPES[named]
        return shape_of(_defaults(kind) | {"architectures": [_CLASSES[kind]]} | arguments, named)
    path = Path(where)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        cached = _cached(where)
        if cached is None:
            raise ConfigError(
                f"--model {where}: no such file or folder, nor a model in the hub's cache on this machine; give its "
                f"config.json, or a shape: {', '.join(SHAPES)}"
            )
        path = cached
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a model's config.json ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a model's config.json; it holds no keys")
    return shape_of(found, str(path))


def shape_of(config: Mapping[str, Any], where: str) -> ModelShape:
    """The shape that a `config.json` states."""
    config = {**config, **config.get("text_config", {})}
    architecture = (config.get("architectures") or ["unknown"])[0]
    if config.get("kv_lora_rank"):
        raise ConfigError(
            f"{where}: multi-head latent attention (kv_lora_rank): its cache holds a compressed vector, not keys and "
            "values of heads; kvlab does not plan it"
        )
    layer_types = config.get("layer_types") or []
    windows = config.get("sliding_window") and config.get("use_sliding_window", True)
    if windows or any("sliding" in one or "linear" in one for one in layer_types):
        raise ConfigError(
            f"{where}: sliding windows or mixed layers: the cache of some layers stops growing, so slots are not "
            "tokens; kvlab does not plan it"
        )
    try:
        layers = _first(config, "num_hidden_layers", "n_layer", "num_layers")
        heads = _first(config, "num_attention_heads", "n_head")
        hidden = _first(config, "hidden_size", "n_embd")
    except KeyError as error:
        raise ConfigError(
            f"{where}: architecture {architecture}: states no {error.args[0]}; kvlab can't plan it"
        ) from None
    if config.get("multi_query"):
        kv_heads = 1
    else:
        kv_heads = int(config.get("num_key_value_heads") or config.get("num_kv_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    longest = config.get("max_position_embeddings") or config.get("n_positions")
    return ModelShape(
        where,
        architecture,
        layers,
        kv_heads,
        head_dim,
        _parameters(architecture, config, hidden, heads, head_dim),
        int(longest) if longest else None,
    )


def _parameters(architecture: str, config: Mapping[str, Any], hidden: int, heads: int, head_dim: int) -> int | None:
    if architecture not in KNOWN or "vocab_size" not in config:
        return None
    layers, vocabulary = _first(config, "num_hidden_layers", "n_layer"), int(config["vocab_size"])
    if architecture == "OPTForCausalLM":
        inner = int(config.get("ffn_dim", 4 * hidden))
        layer = 4 * hidden * (hidden + 1) + 2 * hidden * inner + inner + hidden + 4 * hidden
        return vocabulary * hidden + (int(config["max_position_embeddings"]) + 2) * hidden + layers * layer + 2 * hidden
    if architecture == "GPT2LMHeadModel":
        layer = 12 * hidden * hidden + 13 * hidden
        return vocabulary * hidden + int(config["n_positions"]) * hidden + layers * layer + 2 * hidden
    kv_heads = int(config.get("num_key_value_heads") or heads)
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    if architecture == "Qwen2ForCausalLM":
        attention += head_dim * (heads + 2 * kv_heads)
    if architecture == "Qwen3ForCausalLM":
        attention += 2 * head_dim
    experts = int(config.get("num_local_experts") or 1)
    inside = experts * 3 * hidden * int(config["intermediate_size"]) + (hidden * experts if experts > 1 else 0)
    ends = vocabulary * hidden * (1 if config.get("tie_word_embeddings", False) else 2)
    return ends + layers * (attention + inside + 2 * hidden) + hidden


def _first(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if config.get(name):
            return int(config[name])
    raise KeyError(names[0])


def _defaults(kind: str) -> dict[str, Any]:
    """What transformers' configuration class states where the shape does not."""
    if kind == "GPT2Config":
        return {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
    return {}


def _cached(name: str) -> Path | None:
    """`config.json` of a model that the hub's cache on this machine holds."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        return None
    import os

    home = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    folder = home.expanduser() / f"models--{name.replace('/', '--')}" / "snapshots"
    return next(iter(sorted(folder.glob("*/config.json"))), None)
