"""Models with seeded random weights, in the shape of known ones: memory and speed do not depend on the values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kvlab.errors import KvlabError

# name -> (transformers' configuration class, its arguments). Sizes from the models' published config.json.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "LlamaConfig",
        {
            "vocab_size": 512,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
        },
    ),
    "gpt2": ("GPT2Config", {}),
    "smollm2-135m": (
        "LlamaConfig",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "llama-3.1-8b": (
        "LlamaConfig",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rope_theta": 500000.0,
        },
    ),
    "opt-13b": (
        "OPTConfig",
        {
            "vocab_size": 50272,
            "hidden_size": 5120,
            "ffn_dim": 20480,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "max_position_embeddings": 2048,
            "word_embed_proj_dim": 5120,
        },
    ),
}


def make_random(shape: str, seed: int, folder: Path, weights: bool = True) -> None:
    """Write a model of `shape` with random bfloat16 weights drawn from `seed`, and a byte-level tokenizer.

    Without `weights`, its configuration and tokenizer alone.
    """
    if shape not in SHAPES:
        raise KvlabError(f"model.source: no shape {shape!r}; known: {', '.join('random:' + name for name in SHAPES)}")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    import transformers

    class_name, arguments = SHAPES[shape]
    config = getattr(transformers, class_name)(**arguments, dtype="bfloat16")
    if not weights:
        with torch.device("meta"):
            config.architectures = [type(transformers.AutoModelForCausalLM.from_config(config)).__name__]
        config.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"  # billions of draws are slow on a CPU
    torch.manual_seed(seed)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def parameters_of(folder: Path) -> int:
    """Parameters of the model that `config.json` describes, counted without making them; tied ones once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    return sum(parameter.numel() for parameter in model.parameters())


def byte_tokenizer() -> Any:
    """A tokenizer of 256 byte tokens and an end token, id 256: any text in any script can be encoded and decoded
    without loss."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
