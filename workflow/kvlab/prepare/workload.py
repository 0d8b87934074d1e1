"""The workload: what every engine is asked, as token ids, made once so that all engines get the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kvlab.errors import ConfigError, KvlabError
from kvlab.prepare import arrivals, artifact, lengths
from kvlab.records import Request, read_text, write_lines


def make(section: dict[str, Any], model: Path, path: Path) -> list[Request]:
    """Write `workloads/<workload>.jsonl`. Raises ConfigError naming the request that no engine could serve."""
    fingerprint = json.loads(read_text(model / "fingerprint.json"))
    longest = section["max_model_len"]
    limit = fingerprint["max_position_embeddings"]
    if limit is not None and longest > limit:
        raise ConfigError(f"max_model_len {longest} is above the model's maximum of {limit} positions; lower it")
    wanted = section["requests"]
    if wanted["kind"] == "prompts":
        requests = _from_texts(model, _texts(wanted), wanted["max_new_tokens"], wanted["chat_template"])
    elif wanted["kind"] == "file":
        requests = _from_file(Path(wanted["path"]), wanted, model, fingerprint["vocab_size"], section["seed"])
    else:
        requests = _from_lengths(
            lengths_of(wanted, longest, section["seed"]), fingerprint["vocab_size"], section["seed"]
        )
    _check(requests, longest)
    if section.get("arrivals"):
        requests = arrivals.planned(requests, section["arrivals"], wanted, section["seed"])
    write_lines(path, requests)
    return requests


def _texts(wanted: dict[str, Any]) -> list[str]:
    return [p if isinstance(p, str) else p["text"] * p["times"] for p in wanted["prompts"]]


def _from_texts(model: Path, texts: list[str], max_new_tokens: int, chat: bool) -> list[Request]:
    from kvlab.prepare.model import tokenizer

    tok = tokenizer(model)
    requests = []
    for index, text in enumerate(texts):
        if not text:
            raise ConfigError(
                f"prompt {index} is empty; an engine needs at least one token, remove it or write some text"
            )
        if chat:
            ids = tok.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
            ids = ids["input_ids"] if hasattr(ids, "keys") else ids
        else:
            ids = tok(text)["input_ids"]
        if not ids:
            raise ConfigError(f"prompt {index} ({_short(text)}) has no tokens in this model's vocabulary")
        requests.append(Request(index, [int(i) for i in ids], max_new_tokens, text))
    return requests


def _from_file(path: Path, wanted: dict[str, Any], model: Path, vocabulary: int, seed: int) -> list[Request]:
    """The user's own JSON Lines: a text or a number of prompt tokens a line, output tokens where they differ."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"requests.path {path}: cannot be read ({error})") from None
    requests: list[Request] = []
    rng = np.random.default_rng(seed)
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        if len(requests) == wanted["requests"]:
            break
        try:
            item = json.loads(line)
            outputs = int(item.get("output_tokens", wanted["max_new_tokens"]))
            asked = None if "text" in item else int(item["prompt_tokens"])
        except (ValueError, TypeError, AttributeError, KeyError):
            raise ConfigError(
                f'{where}: not a request; write {{"text": "…"}} or {{"prompt_tokens": 12}}, and maybe "output_tokens"'
            ) from None
        if outputs < 1 or (asked is not None and asked < 1):
            raise ConfigError(f"{where}: prompt_tokens and output_tokens must be at least 1")
        if asked is None:
            try:
                (made,) = _from_texts(model, [item["text"]], outputs, False)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            made = Request(len(requests), made.prompt_token_ids, outputs, made.text)
        else:
            made = Request(len(requests), _random_ids(rng, asked, vocabulary), outputs)
        requests.append(made)
    if not requests:
        raise ConfigError(f"requests.path {path}: an empty workload; it needs at least one line")
    return requests


def lengths_of(wanted: dict[str, Any], longest: int, seed: int) -> lengths.Lengths:
    """The lengths that a workload of kind `azure-conv` or `paper` is made from; `longest`: prompt + output, tokens."""
    bounds = {
        "max_total": longest,
        "max_prompt": wanted["max_prompt_tokens"],
        "max_output": wanted["max_output_tokens"],
        "scale": wanted["scale"],
    }
    if wanted["kind"] == "azure-conv":
        table = lengths.read_trace(wanted["trace"]) if wanted["trace"] else lengths.read_table()
        return lengths.resample(table, wanted["requests"], seed, **bounds)
    if wanted["kind"] in artifact.FILES:
        pairs = artifact.read(wanted["kind"], wanted["path"], wanted["sha256"])
        seed = seed if wanted["seed"] is None else wanted["seed"]
        return artifact.draw(pairs, wanted["order"], wanted["requests"], seed, **bounds)
    shape = {key: wanted[key] for key in ("prompt_mean", "prompt_cv", "output_mean", "output_cv")}
    return lengths.paper(wanted["requests"], seed, **shape, **bounds)


def _from_lengths(drawn: lengths.Lengths, vocabulary: int, seed: int) -> list[Request]:
    rng = np.random.default_rng([seed, 1])  # apart from the stream that drew the lengths
    return [
        Request(index, _random_ids(rng, prompt, vocabulary), output)
        for index, (prompt, output) in enumerate(drawn.pairs())
    ]


def _random_ids(rng: np.random.Generator, count: int, vocabulary: int) -> list[int]:
    ids: list[int] = rng.integers(0, vocabulary, count).tolist()
    return ids


def _check(requests: list[Request], longest: int) -> None:
    for request in requests:
        prompt = len(request.prompt_token_ids)
        if prompt + request.max_new_tokens > longest:
            named = f" ({_short(request.text)})" if request.text else ""
            raise KvlabError(
                f"prompt {request.id}{named} has {prompt} tokens and asks for {request.max_new_tokens} more, "
                f"{prompt + request.max_new_tokens} in all: above max_model_len {longest}; shorten it, or raise that"
            )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else line[:39] + "…")
