"""Prompts and the arms' answers. They are untrusted text from a log: control characters are replaced, HTML escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvlab.raw import RawRun
from kvlab.records import Request, read_lines, there

MOST_TEXTS = 6  # prompts of a workload that are shown with their answers


def visible(text: str) -> str:
    """A text from a log with visible control characters (their Unicode pictures) and without lone surrogates."""
    shown = "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text.replace("\x7f", "␡"))
    return shown.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True)
class Answered:
    """A prompt and the first arm's answer; `different`: (arm, text from the first difference on) of the others."""

    id: int
    prompt: str
    answer: str
    different: list[tuple[str, str]]


def answered(requests: Path, runs: Mapping[str, RawRun]) -> list[Answered]:
    """The first prompts of a workload's file that are texts, with each arm's answer; `runs`: one of each arm."""
    if not there(requests):
        return []
    prompts = {one.id: one.text for one in read_lines(requests, Request) if one.text is not None}
    made = {arm: {out.id: out for out in run.all_outputs} for arm, run in runs.items()}
    shown = []
    for key in sorted(prompts)[:MOST_TEXTS]:
        answers = [(arm, outputs[key]) for arm, outputs in made.items() if key in outputs]
        if not answers:
            continue
        first = answers[0][1]
        different = [(arm, _rest(first.text, out.text)) for arm, out in answers if out.token_ids != first.token_ids]
        shown.append(Answered(key, prompts[key] or "", first.text, different))
    return shown


def _rest(first: str, other: str) -> str:
    """Another answer from where it first differs."""
    at = next((i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), min(len(first), len(other)))
    return other[at:]
