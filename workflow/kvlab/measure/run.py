"""Runs one arm on one workload, once: phases, parts, and the raw logs. It knows no engine by name.

In: the section of the configuration, the workload's requests, the model's folder. Out: a raw folder with the files of
`records.RAW_FILES`, whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvlab.errors import NotRunnable
from kvlab.measure import inputs, machine
from kvlab.measure.engines import Engine, open_engine
from kvlab.measure.engines.text import decoder
from kvlab.measure.job import Job
from kvlab.measure.journal import Journal, now_ns, seconds
from kvlab.measure.monitor import Monitor
from kvlab.records import (
    Output,
    Phase,
    Request,
    Run,
    Sample,
    Served,
    Step,
    digest,
    whole_folder,
    write_json,
    write_lines,
)
from kvlab.terminal import say


def measure(
    section: dict[str, Any],
    *,
    workload: str,
    arm: str,
    repeat: int,
    requests_file: Path,
    model: Path,
    folder: Path,
) -> Run:
    """Measure one arm once and write its raw folder; returns its `run.json`.

    An arm that this machine can't run, or that takes longer than its time budget, is written with status not_run, its
    reason, and empty logs. A fault of the input raises KvlabError and a fault of the engine whatever it raised;
    neither leaves anything behind.
    """
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    requests = inputs.requests(requests_file, section["max_model_len"])
    origin_ns = now_ns()
    run = Run(
        workload=workload,
        arm=arm,
        repeat=repeat,
        status="failed",
        origin_ns=origin_ns,
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        dtype=section["settings"]["dtype"],
        kv_slots_asked=section["kv_slots"],
        max_model_len=section["max_model_len"],
        workload_sha256=digest(requests_file),
        model_fingerprint=inputs.fingerprint(model),
        caches_warm=machine.warm_caches(),
        settings=section,
    )
    with whole_folder(folder) as building:
        measurement = _Measurement(section, run, requests, model, building / "scratch")
        try:
            measurement.run_all()
            run.status = "completed"
        except NotRunnable as reason:
            run.status, run.reason, run.parts = "not_run", str(reason), []
            measurement.forget()
        finally:
            shutil.rmtree(building / "scratch", ignore_errors=True)
        measurement.write(building)
    say(measurement.summary())
    return run


class _Measurement:
    """One run under way."""

    def __init__(self, section: dict[str, Any], run: Run, requests: list[Request], model: Path, scratch: Path) -> None:
        self.section, self.run, self.requests, self.model, self.scratch = section, run, requests, model, scratch
        self.deadline_ns = run.origin_ns + int(section["settings"]["time_budget_s"] * 1e9)
        self.forget()

    def forget(self) -> None:
        """Drop all that was logged."""
        self.phases: list[Phase] = []
        self.steps: list[Step] = []
        self.served: list[Served] = []
        self.samples: list[Sample] = []
        self.outputs: list[Output] = []

    def run_all(self) -> None:
        """All phases, with the sampler beside them."""
        settings, run = self.section["settings"], self.run
        gpus = machine.gpu_indices()
        run.device = machine.choose_device(settings["device"], len(gpus))
        machine.check_gpus(settings["engine"], len(gpus))
        self.scratch.mkdir()
        arm = self.section["arm"]
        job = Job(
            arm=arm["name"],
            feed=arm["feed"],
            options=arm["options"],
            settings=settings["engine"],
            model=self.model,
            device=run.device,
            gpus=len(gpus),
            dtype=settings["dtype"],
            threads=machine.threads(settings["threads"]),
            kv_slots=self.section["kv_slots"],
            max_model_len=self.section["max_model_len"],
            record_steps=settings["record_steps"],
            scratch=self.scratch,
        )
        engine = open_engine(arm["engine"], job)
        interval_ms = settings["sampling"]["interval_ms"]
        used = gpus[: engine.gpus] if run.device == "cuda" else []
        with Monitor(self.scratch / "device", interval_ms, used) as monitor:
            run.sampler = {"source": monitor.source, "interval_ms": interval_ms}
            run.idle_device_bytes, run.device_total_bytes = monitor.idle_bytes, monitor.total_bytes
            free = (monitor.total_bytes or 0) - (monitor.idle_bytes or 0) if used else machine.free_memory()
            machine.check_room(self.model, run.dtype, engine.slots, free, "GPU" if used else "machine")
            try:
                journals = self._serve_all(engine)
                for name, value in vars(engine.facts()).items():
                    setattr(run, name, value)
            finally:
                engine.close()
        self._collect(journals, monitor)

    def _serve_all(self, engine: Engine) -> list[Journal]:
        settings = self.section["settings"]
        with self._phase("load"):
            engine.load()
        if engine.compile_s > 0:
            # Where within the load it lay is not known: it is put at its end.
            load = self.phases[-1]
            middle = round(max(load.start_s, load.end_s - engine.compile_s), 6)
            self.phases[-1:] = [replace(load, end_s=middle), Phase("compile", middle, load.end_s)]
        else:
            with self._phase("compile"):
                engine.compile()
        with self._phase("warmup"):
            warming = self.requests[: settings["warmup_requests"]]
            warmth = Journal(warming, "warmup", self.deadline_ns)
            if warming:
                engine.serve(warming, warmth)
        engine.collect(warmth)
        journals = []
        for part, requests in self._parts().items():
            journal = Journal(requests, part, self.deadline_ns, self._progress)
            with self._phase("measure", part):
                engine.serve(requests, journal)
            engine.collect(journal)
            journal.check()
            journals.append(journal)
        self.run.parts = [journal.part for journal in journals]
        return journals

    def _parts(self) -> dict[str, list[Request]]:
        """What is measured: a cut workload in part by sequential and other slow arms, in part and whole by the rest."""
        cut = self.section["sequential_requests"]
        if cut is None or cut >= len(self.requests):
            return {"all": self.requests}
        if self.section["cut_only"]:
            return {"cut": self.requests[:cut]}
        return {"cut": self.requests[:cut], "all": self.requests}

    @contextmanager
    def _phase(self, name: str, part: str = "all") -> Iterator[None]:
        say(f"{self._name()} {name}", passing=True)
        start = now_ns()
        if start > self.deadline_ns:
            raise NotRunnable(f"stopped at the time budget, before {name}; raise measure.time_budget_s")
        yield
        origin = self.run.origin_ns
        self.phases.append(Phase(name, seconds(start, origin), seconds(now_ns(), origin), part))

    def _collect(self, journals: list[Journal], monitor: Monitor) -> None:
        origin = self.run.origin_ns
        decode = decoder(self.model)
        for journal in journals:
            self.steps += journal.stepped(origin, first=len(self.steps))
            self.served += journal.served(origin)
            self.outputs += journal.outputs(decode)
        self.samples = [Sample(t_s=seconds(t_ns, origin), **reading) for t_ns, reading in monitor.readings]

    def write(self, folder: Path) -> None:
        """The raw folder's files."""
        write_lines(folder / "phases.jsonl", self.phases)
        write_lines(folder / "steps.jsonl", self.steps)
        write_lines(folder / "requests.jsonl", self.served)
        write_lines(folder / "device.jsonl", self.samples)
        write_lines(folder / "outputs.jsonl", self.outputs)
        write_json(folder / "run.json", vars(self.run))

    def _name(self) -> str:
        return f"measure {self.run.workload} {self.run.arm} #{self.run.repeat}:"

    def _progress(self, journal: Journal) -> None:
        say(
            f"{self._name()} {journal.finished}/{len(journal.entries)} requests, {journal.output_tokens} tokens",
            passing=True,
        )

    def summary(self) -> str:
        """One line for the person who waits."""
        if self.run.status != "completed":
            return f"{self._name()} not run: {self.run.reason}"
        last = [phase for phase in self.phases if phase.phase == "measure"][-1]
        took = last.end_s - last.start_s
        mine = [served for served in self.served if served.part == last.part]
        tokens = sum(served.output_tokens for served in mine)
        return (
            f"{self._name()} {len(mine)} requests, {tokens} output tokens in {took:.2f} s "
            f"({tokens / took:.1f} tokens/s), ready after {self._ready_s():.1f} s"
        )

    def _ready_s(self) -> float:
        return min(phase.start_s for phase in self.phases if phase.phase == "measure")
