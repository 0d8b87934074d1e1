"""A run as a trace that ui.perfetto.dev and chrome://tracing open: counters, and each request with its phases.

The format is Chrome's trace events in JSON ("Trace Event Format", Google): counters ("C"), nestable asynchronous
events ("b", "e") for requests and their phases, instants ("i") for preemptions. Times are microseconds since the
first request arrived.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvlab.accounting import SHARES
from kvlab.analyse.request_phases import request_phases
from kvlab.raw import RawRun
from kvlab.records import write_text

ENGINE, REQUESTS, DEVICE = 1, 2, 3  # process ids: what Perfetto shows as groups of tracks
COUNTERS = {"blocks": "KV blocks in use", "running": "running requests", "waiting": "waiting requests"}


def events(run: RawRun) -> list[dict[str, Any]]:
    """All events of one part of a run, in the order of their times."""
    zero = min((one.arrival_s for one in run.served), default=run.window[0])

    def at(seconds: float) -> float:
        return round(1e6 * (seconds - zero), 3)

    made = [*_counters(run, at), *_requests(run, at), *_device(run, at)]
    return [*_names(run), *sorted(made, key=lambda one: one["ts"])]  # stable: an end comes before the next begin


def write(run: RawRun, file: Path) -> int:
    """Write the trace; returns the number of its events."""
    found = events(run)
    about = {"run": run.name, "part": run.part, "pool slots": run.run.pool_slots, "block size": run.run.block_size}
    lines = ",\n".join(json.dumps(one, separators=(",", ":"), ensure_ascii=False) for one in found)
    write_text(file, f'{{"displayTimeUnit":"ms","otherData":{json.dumps(about)},"traceEvents":[\n{lines}\n]}}\n')
    return len(found)


def _names(run: RawRun) -> Iterator[dict[str, Any]]:
    for pid, name in ((ENGINE, f"{run.name}: KV pool"), (REQUESTS, "requests"), (DEVICE, "device")):
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "ts": 0, "args": {"name": name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "ts": 0, "args": {"sort_index": pid}}
    yield {"ph": "M", "name": "thread_name", "pid": ENGINE, "tid": 1, "ts": 0, "args": {"name": "preemptions"}}


def _counter(pid: int, name: str, ts: float, value: float) -> dict[str, Any]:
    return {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": ts, "args": {"value": value}}


def _counters(run: RawRun, at: Any) -> Iterator[dict[str, Any]]:
    """A value where it changes, so that a long run stays small."""
    account = run.accounting
    for name, title in (*COUNTERS.items(), *((share, f"slots: {share}") for share in SHARES)):
        last = None
        for t, value in zip(account.t_s.tolist(), account.series(name).tolist(), strict=True):
            if value != last:
                yield _counter(ENGINE, title, at(t), value)
                last = value


def _requests(run: RawRun, at: Any) -> Iterator[dict[str, Any]]:
    for phases in request_phases(run):
        one, end = phases.request, phases.spans[-1][2]
        mine = {"cat": "request", "id": one.id, "pid": REQUESTS, "tid": 1}
        about = {"prompt tokens": one.prompt_tokens, "output tokens": one.output_tokens}
        name = f"request {one.id}"
        yield {"ph": "b", "name": name, "ts": at(one.arrival_s), "args": about} | mine
        for phase, start, until in phases.spans:
            yield {"ph": "b", "name": phase, "ts": at(start)} | mine
            yield {"ph": "e", "name": phase, "ts": at(until)} | mine
        yield {"ph": "e", "name": name, "ts": at(end)} | mine
        for t in phases.preempted:
            yield {"ph": "i", "s": "t", "name": f"{name} preempted", "pid": ENGINE, "tid": 1, "ts": at(t)}


def _device(run: RawRun, at: Any) -> Iterator[dict[str, Any]]:
    start, end = run.window
    for sample in run.samples:
        if start <= sample.t_s <= end and at(sample.t_s) >= 0:
            yield _counter(DEVICE, "device memory, bytes", at(sample.t_s), sample.used_bytes)
            if sample.utilisation is not None:
                yield _counter(DEVICE, "GPU busy, part of the time", at(sample.t_s), sample.utilisation)
