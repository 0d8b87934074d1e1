"""The workload: the requests as token ids, made once so that all engines get the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kvlab.errors import ConfigError, KvlabError, first_fault
from kvlab.prepare import arrivals, artifact, lengths
from kvlab.records import Request, read_json, write_lines

MOST = 10_000_000  # tokens of a prompt or an output, characters of a text


def make(section: dict[str, Any], model: Path, path: Path) -> list[Request]:
    """Write `workloads/<workload>.jsonl`. Raises ConfigError naming the request that no engine could serve."""
    fingerprint = read_json(model / "fingerprint.json")
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


class UserLine(BaseModel):
    """One request of a user's file: a text, or a number of prompt tokens; output tokens where they differ."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Annotated[str, Field(min_length=1, max_length=MOST)] | None = None
    prompt_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    output_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None

    @model_validator(mode="after")
    def _is_one_of_two(self) -> UserLine:
        if (self.text is None) == (self.prompt_tokens is None):
            raise ValueError("text or prompt_tokens, one of the two")
        return self


def _from_file(path: Path, wanted: dict[str, Any], model: Path, vocabulary: int, seed: int) -> list[Request]:
    """The requests of the user's own JSON Lines, those that are too long for the configuration dropped."""
    requests: list[Request] = []
    rng = np.random.default_rng(seed)
    for where, line in _user_lines(path):
        if len(requests) == wanted["requests"]:
            break
        outputs = line.output_tokens or wanted["max_new_tokens"]
        if line.text is None:
            made = Request(len(requests), _random_ids(rng, line.prompt_tokens or 0, vocabulary), outputs)
        else:
            try:
                (made,) = _from_texts(model, [line.text], outputs, False)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            made = replace(made, id=len(requests))
        if len(made.prompt_token_ids) <= (wanted["max_prompt_tokens"] or MOST) and outputs <= (
            wanted["max_output_tokens"] or MOST
        ):
            requests.append(made)
    if not requests:
        raise ConfigError(f"requests.path {path}: an empty workload; it needs at least one line that is not dropped")
    return requests


def _user_lines(path: Path) -> Iterator[tuple[str, UserLine]]:
    """Each line that is not empty, with its place. ConfigError names what is no request."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(f"requests.path {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"requests.path {path}: not UTF-8 (byte {error.start}); save it in that encoding") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", UserLine.model_validate_json(line)
        except ValidationError as error:
            raise ConfigError(
                f"{path}:{number}: not a request ({first_fault(error)}); "
                'write {"text": "…"} or {"prompt_tokens": 12}, and maybe "output_tokens"'
            ) from None


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
