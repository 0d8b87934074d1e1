"""Requests that arrive over time: each is sent when it is due, while the engine serves the others.

Where the core is a process of its own the driver polls: it sends what is due, and takes outputs only when some are
there. `LLMEngine.step` would wait for the next output, a whole step late for an arrival (measured: 13 ms in the median,
against 0.14 ms). The queue of outputs is not public (vllm/v1/engine/core_client.py:794, 0.26.0). Where the core is in
the driver's process, a step is a call, and a request that is due meanwhile is sent after it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from kvlab.measure.job import Feed
from kvlab.measure.journal import Journal, now_ns

LEAD_NS = 50_000_000  # between the last preparation and the start of the cell


def take(outputs: Sequence[Any], journal: Journal) -> None:
    """Note the tokens that came with one `step`."""
    t_ns = now_ns()
    for output in outputs:
        id, completion = int(output.request_id), output.outputs[0]  # the id as it was given, without suffix
        journal.tokens(id, completion.token_ids, t_ns)
        if output.finished:
            journal.finish(id, completion.finish_reason, t_ns, output.num_cached_tokens or 0)


def serve_open(engine: Any, ready: dict[int, tuple[Any, Any]], journal: Journal, feed: Feed, core_apart: bool) -> None:
    """Send each request when it is due and note what comes, until all are done or the cell's time is up."""
    begin = now_ns() + LEAD_NS
    coming = deque((begin + int(due * 1e9), id) for id, due in zip(ready, feed.due_s, strict=True))
    for due, id in coming:
        journal.plan(id, due)
    end = None if feed.limit_s is None else begin + int(feed.limit_s * 1e9)
    left = len(coming)
    box = engine.engine_core.outputs_queue if core_apart else None
    while journal.finished < left:
        while coming and coming[0][0] <= now_ns():
            _, id = coming.popleft()
            journal.sent(id, now_ns())
            engine.add_request(str(id), *ready[id])
        if end is not None and now_ns() >= end:
            journal.complete = False
            return
        until = min((t for t in (coming[0][0] if coming else None, end) if t is not None), default=None)
        if box is None:
            if engine.has_unfinished_requests():
                take(engine.step(), journal)
            else:
                _sleep(until)
        elif box.qsize():
            take(engine.step(), journal)
        else:
            _await(box, until)


def _sleep(until: int | None) -> None:
    if until is not None:
        time.sleep(max(0.0, (until - now_ns()) / 1e9))


def _await(box: Any, until: int | None) -> None:
    """Until an output is there, or the next request is due; at most a second."""
    wait = 1.0 if until is None else min(1.0, (until - now_ns()) / 1e9)
    if wait > 0:
        with box.not_empty:
            if not box._qsize():
                box.not_empty.wait(wait)
