"""One process: an engine loaded, compiled and warmed up once, then passes, each a raw folder. No engine is named here.

In: the passes of a process, which share an engine configuration, the workload's requests, the model's folder. Out: for
each pass a raw folder with the files of `records.RAW_FILES`, whole or not at all. A pass that is there already is not
measured again; a process that is killed keeps its whole passes.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvlab.errors import NotRunnable, OutOfTime
from kvlab.measure import inputs, machine
from kvlab.measure.engines import Engine, environment, open_engine
from kvlab.measure.engines.text import decoder
from kvlab.measure.job import Job
from kvlab.measure.journal import Journal, now_ns, seconds
from kvlab.measure.monitor import Monitor
from kvlab.measure.passes import Pass, Planned
from kvlab.measure.store import Store
from kvlab.messages import Message
from kvlab.records import Phase, Request, Run, Sample, digest
from kvlab.terminal import say


def measure(section: dict[str, Any], *, workload: str, arm: str, repeat: int, requests_file: Path, model: Path,
            folder: Path) -> Run:  # fmt: skip
    """Measure one arm once, in a process of its own, and write its raw folder; returns its `run.json`."""
    cell = Planned(section, workload, arm, repeat, folder)
    (run,) = measure_process([cell], name=arm, requests_file=requests_file, model=model)
    return run


def measure_process(
    cells: Sequence[Planned], *, name: str, requests_file: Path, model: Path, store: Store | None = None
) -> list[Run]:
    """Measure the cells, in order, with one loaded engine, and write their raw folders; returns each `run.json`.

    A cell that this machine can't run, or whose time budget is over before its last part began, is written with status
    not_run, its reason, and empty logs. One that is stopped in its last part has status stopped, and the logs of what
    was done until then: they bound what it would have given. A fault of the input raises KvlabError and a fault of the
    engine whatever it raised; neither leaves anything of its cell behind. `store` keeps finished passes: those it has
    are not measured again. The process's environment is afterwards what it was.
    """
    for cell in cells:
        for left in cell.folder.parent.glob(f".{cell.folder.name}.*"):  # left by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    requests = inputs.requests(requests_file, cells[0].section["max_model_len"])
    facts = {"workload_sha256": digest(requests_file), "model_fingerprint": inputs.fingerprint(model)}
    runs: dict[str, Run] = {}
    missing = []
    for cell in cells:
        found = store.fetch(cell, facts) if store else None
        if found is None:
            missing.append(cell)
        else:
            say(f"measure {cell.workload} {cell.name} #{cell.repeat}: measured before")
            runs[cell.name] = found
    if missing:
        beside = missing[0].folder
        beside.parent.mkdir(parents=True, exist_ok=True)
        hidden = tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{beside.name}.")
        with environment.kept(), hidden as scratch:
            order = [cell.name for cell in missing]
            process = _Process(missing, name, order, requests, model, Path(scratch), facts, store)
            for one in process.run_all():
                runs[one.cell] = one
    return [runs[cell.name] for cell in cells]


class _Process:
    """A process under way."""

    def __init__(
        self,
        cells: Sequence[Planned],
        name: str,
        order: list[str],
        requests: list[Request],
        model: Path,
        scratch: Path,
        facts: dict[str, str],
        store: Store | None,
    ) -> None:
        self.requests, self.model, self.scratch, self.store = requests, model, scratch, store
        self.origin_ns = now_ns()
        self.section = cells[0].section
        self.phases: list[Phase] = []  # of the process: load, compile, warmup
        process = {"id": uuid.uuid4().hex[:12], "name": name, "block": cells[0].repeat}
        self.passes = []
        for number, cell in enumerate(cells):
            run = Run(
                workload=cell.workload,
                arm=cell.arm,
                repeat=cell.repeat,
                status="failed",
                origin_ns=self.origin_ns,
                started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
                dtype=cell.section["settings"]["dtype"],
                kv_slots_asked=cell.section["kv_slots"],
                max_model_len=cell.section["max_model_len"],
                caches_warm=machine.warm_caches(),
                settings=cell.section,
                policy=cell.policy,
                rate=cell.rate,
                arrivals=cell.section.get("arrivals", {}),
                process=process | {"pass": number, "order": order},
                workload_sha256=facts["workload_sha256"],
                model_fingerprint=facts["model_fingerprint"],
            )
            self.passes.append(Pass(cell, run, requests))

    def run_all(self) -> list[Run]:
        """All passes, with the sampler beside them. What can't run is written as not run."""
        try:
            gpus = machine.gpu_indices()
            device = machine.choose_device(self.section["settings"]["device"], len(gpus))
            engine = self._engine(device, len(gpus))
            machine.check_workers(engine.gpus, device, len(gpus))
            ready = [one for one in self.passes if self._checked(one, engine)]
            if ready:
                self._measure(ready, engine, gpus[: engine.gpus] if device == "cuda" else [])
        except NotRunnable as reason:
            for one in self.passes:
                if one.run.status == "failed":
                    self._refuse(one, reason)
        return [one.run for one in self.passes]

    def _engine(self, device: str, gpus: int) -> Engine:
        settings, arm = self.section["settings"], self.section["arm"]
        for one in self.passes:
            one.run.device = device
        job = Job(
            arm=arm["name"],
            feed=arm["feed"],
            options=arm["options"],
            settings=settings["engine"],
            model=self.model,
            device=device,
            gpus=gpus,
            dtype=settings["dtype"],
            threads=machine.threads(settings["threads"]),
            kv_slots=self.section["kv_slots"],
            max_model_len=self.section["max_model_len"],
            record_steps=settings["record_steps"],
            scratch=self.scratch,
        )
        return open_engine(arm["engine"], job)

    def _checked(self, one: Pass, engine: Engine) -> bool:
        """Before anything is loaded: every request that a pass may send, against its policy."""
        try:
            for requests in one.parts().values():
                engine.check(requests, one.feed(requests))
        except NotRunnable as reason:
            self._refuse(one, reason)
            return False
        return True

    def _refuse(self, one: Pass, reason: NotRunnable) -> None:
        one.run.status, one.run.reason, one.run.why, one.run.parts = "not_run", str(reason), asdict(reason.why), []
        one.forget()
        self._write(one)

    def _measure(self, passes: list[Pass], engine: Engine, used: list[int]) -> None:
        interval_ms = self.section["settings"]["sampling"]["interval_ms"]
        with Monitor(self.scratch / "device", interval_ms, used) as monitor:
            for one in passes:
                one.run.sampler = {"source": monitor.source, "interval_ms": interval_ms}
                one.run.idle_device_bytes, one.run.device_total_bytes = monitor.idle_bytes, monitor.total_bytes
            free = (monitor.total_bytes or 0) - (monitor.idle_bytes or 0) if used else machine.free_memory()
            dtype = self.section["settings"]["dtype"]
            machine.check_room(self.model, dtype, engine.slots, free, "gpu" if used else "machine")
            try:
                self._load(engine)
                for number, one in enumerate(passes):
                    self._serve(one, engine, monitor, self.origin_ns if number == 0 else now_ns())
            finally:
                engine.close()

    def _deadline(self, begin_ns: int) -> int:
        return begin_ns + int(self.section["settings"]["time_budget_s"] * 1e9)

    def _load(self, engine: Engine) -> None:
        deadline = self._deadline(self.origin_ns)
        with self._phase("load", self.phases, deadline):
            engine.load()
        if engine.compile_s > 0:
            # When it ran within the load is not known: it is put at the end.
            load = self.phases[-1]
            middle = round(max(load.start_s, load.end_s - engine.compile_s), 6)
            self.phases[-1:] = [replace(load, end_s=middle), Phase("compile", middle, load.end_s)]
        else:
            with self._phase("compile", self.phases, deadline):
                engine.compile()
        first = self.passes[0]
        with self._phase("warmup", self.phases, deadline):
            warming = self.requests[: self.section["settings"]["warmup_requests"]]
            warmth = Journal(warming, "warmup", deadline)
            if warming:
                engine.serve(warming, warmth, first.warming())
        engine.collect(warmth)
        engine.settle()

    def _serve(self, one: Pass, engine: Engine, monitor: Monitor, begin_ns: int) -> None:
        """One pass: all its parts, then its folder. Its time budget is its own."""
        deadline = self._deadline(begin_ns)
        phases: list[Phase] = []
        try:
            parts = one.parts()
            for part, requests in parts.items():
                journal = Journal(requests, part, deadline, self._progress(one))
                with self._phase("measure", phases, deadline, part, one):
                    try:
                        engine.serve(requests, journal, one.feed(requests))
                    except OutOfTime as reason:
                        if part != list(parts)[-1]:
                            raise
                        journal.stop(now_ns())
                        one.run.reason, one.run.why = str(reason), asdict(reason.why)
                if not journal.complete:
                    one.run.stopped = part
                engine.collect(journal)
                journal.check()
                one.journals.append(journal)
            for name, value in vars(engine.facts()).items():
                setattr(one.run, name, value)
            one.run.parts = [journal.part for journal in one.journals]
            one.run.status = "stopped" if one.run.reason else "completed"
            one.collect(self.phases + phases, decoder(self.model))
            one.samples = [Sample(t_s=seconds(t_ns, self.origin_ns), **seen) for t_ns, seen in monitor.take()]
        except NotRunnable as reason:
            self._refuse(one, reason)
        else:
            self._write(one)
        engine.settle()

    def _write(self, one: Pass) -> None:
        one.write()
        if self.store and one.run.status == "completed":
            self.store.keep(one.cell, one.run)
        say(one.summary())

    @contextmanager
    def _phase(
        self, name: str, phases: list[Phase], deadline: int, part: str = "all", one: Pass | None = None
    ) -> Iterator[None]:
        say(f"{(one or self.passes[0]).title} {name}", passing=True)
        start = now_ns()
        if start > deadline:
            raise NotRunnable(Message("out-of-time-before", {"phase": name}))
        yield
        phases.append(Phase(name, seconds(start, self.origin_ns), seconds(now_ns(), self.origin_ns), part))

    def _progress(self, one: Pass) -> Any:
        def show(journal: Journal) -> None:
            count = f"{journal.finished}/{len(journal.entries)} requests"
            say(f"{one.title} {count}, {journal.output_tokens} tokens", passing=True)

        return show
