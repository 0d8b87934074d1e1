"""What a measurement is given: the workload's requests and the model's fingerprint, checked before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

from kvlab.errors import KvlabError
from kvlab.records import Request, read_lines


def requests(file: Path, max_model_len: int) -> list[Request]:
    """The workload's requests. Raises KvlabError where one can't be served at `max_model_len` tokens."""
    found = read_lines(file, Request)
    if not found:
        raise KvlabError(f"{file}: no requests; make it again with: python -m kvlab workload")
    for request in found:
        prompt = len(request.prompt_token_ids)
        if not prompt or request.max_new_tokens < 1 or prompt + request.max_new_tokens > max_model_len:
            raise KvlabError(
                f"{file}: request {request.id} has {prompt} prompt and {request.max_new_tokens} output tokens; each "
                f"must be at least 1 and both together at most max_model_len {max_model_len}"
            )
    if len({request.id for request in found}) < len(found):
        raise KvlabError(f"{file}: two requests with the same id")
    return found


def fingerprint(model: Path) -> str:
    """sha256 of the model, as the stage that prepared it wrote it. Raises KvlabError where it did not."""
    file = model / "fingerprint.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise KvlabError(f"{file}: no fingerprint ({error}); make it with: python -m kvlab model") from None
