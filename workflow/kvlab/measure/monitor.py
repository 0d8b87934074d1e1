"""Device memory over time, sampled from a process of its own so that a busy engine does not delay it.

With a GPU: NVML, device-level used bytes (per-process numbers are not available in containers) and the energy counter,
summed over the GPUs in use, and of each where there are several. Without: the resident memory of the measuring process
and its children, the sampler left out. Resident memory counts a page once for each process that maps it, so the sum
over a tree of several processes is an upper bound; the proportional set size would not be, but reading it takes
milliseconds and holds the lock of the engine's memory map.

The file is also the sampler's program: it needs only the standard library, and psutil or pynvml.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

Reading = dict[str, Any]  # the fields of records.Sample but its time
REFRESH_S = 1.0  # how often the process tree, and who else uses the GPU, is looked up


class Monitor:
    """Runs the sampler while the context is open. `take` returns the samples since its last call, [t_ns, fields]; after
    it is closed, `readings` has the rest.
    """

    def __init__(self, file: Path, interval_ms: float, gpus: Sequence[int] = ()) -> None:
        self.file, self.interval_ms, self.gpus = file, interval_ms, list(gpus)
        self.readings: list[tuple[int, Reading]] = []
        self.source = "nvml" if self.gpus else "process-tree"
        self.total_bytes: int | None = None
        self.idle_bytes: int | None = None

    def __enter__(self) -> Monitor:
        """Returns once the first sample is taken: the device before anything is loaded."""
        gpus = ",".join(map(str, self.gpus))
        command = [sys.executable, "-P", __file__, str(os.getpid()), str(self.interval_ms), gpus, str(self.file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first:
            raise RuntimeError(f"the memory sampler did not start (exit code {self._process.wait()})")
        started = json.loads(first)
        self.idle_bytes, self.total_bytes = started["used_bytes"], started["total_bytes"]
        return self

    def take(self) -> list[tuple[int, Reading]]:
        """The samples since the last call, the last one taken now. RuntimeError where the sampler has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("more\n")
            self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError(f"the memory sampler died (exit code {self._process.wait()})")
        lines = self.file.read_text(encoding="utf-8").splitlines()
        self.file.unlink()
        return [(t_ns, reading) for t_ns, reading in map(json.loads, lines)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the sampler; raises RuntimeError where it had died, unless another error came first."""
        if kind is None:
            self.readings = self.take()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("stop\n")  # an end of file may not come: forked processes hold the pipe open
            self._process.stdin.close()
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if code and kind is None:
            raise RuntimeError(f"the memory sampler died (exit code {code})")


def _tree_reader(driver: int) -> tuple[Callable[[], Reading], int]:
    import psutil

    root = psutil.Process(driver)
    tree: list[Any] = []
    due = 0.0

    def read() -> Reading:
        nonlocal tree, due
        if time.monotonic() >= due:
            tree = [p for p in [root, *root.children(recursive=True)] if p.pid != os.getpid()]
            due = time.monotonic() + REFRESH_S
        used = 0
        for process in tree:
            try:
                used += process.memory_info().rss
            except psutil.NoSuchProcess:
                due = 0.0
        return {"used_bytes": used}

    return read, psutil.virtual_memory().total


def _nvml_reader(driver: int, gpus: Sequence[int]) -> tuple[Callable[[], Reading], int]:
    import psutil
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in gpus]
    root = psutil.Process(driver)
    due, others = 0.0, None
    first = True

    def ask(function: str, *arguments: Any) -> list[Any] | None:
        try:  # what a GPU, its driver or a container does not report is left out
            return [getattr(pynvml, function)(handle, *arguments) for handle in handles]
        except pynvml.NVMLError:
            return None

    def processes_of_others() -> int | None:
        running = ask("nvmlDeviceGetComputeRunningProcesses")
        if running is None:
            return None
        seen = {process.pid for list_ in running for process in list_}
        ours = {driver} | {child.pid for child in root.children(recursive=True)}
        # In a container NVML gives other process ids than the system: until ours has started, all are of others.
        return len(seen - ours) if first or seen & ours or not seen else None

    def each(memory: list[Any], energy: list[Any] | None) -> Reading:
        return {
            "used_bytes_each": [m.used for m in memory],
            "energy_j_each": None if energy is None else [one / 1000 for one in energy],
        }

    def read() -> Reading:
        nonlocal due, others, first
        if time.monotonic() >= due:
            others, due = processes_of_others(), time.monotonic() + REFRESH_S
            first = False
        memory = [pynvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        utilisation = ask("nvmlDeviceGetUtilizationRates")
        clocks = ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM)
        heat = ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU)
        power = ask("nvmlDeviceGetPowerUsage")
        energy = ask("nvmlDeviceGetTotalEnergyConsumption")  # millijoules since the driver was loaded
        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons") or ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        mask = 0
        for reason in reasons or ():
            mask |= int(reason)
        return {
            "used_bytes": sum(m.used for m in memory),
            "utilisation": None if utilisation is None else sum(u.gpu for u in utilisation) / len(handles) / 100,
            "sm_clock_mhz": None if clocks is None else min(clocks),  # the slowest GPU sets the pace of the others
            "temperature_c": None if heat is None else max(heat),
            "power_w": None if power is None else sum(power) / 1000,
            "throttle": None if reasons is None else mask,
            "other_processes": others,
            "energy_j": None if energy is None else sum(energy) / 1000,
        } | (each(memory, energy) if len(handles) > 1 else {})

    return read, sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles)


def sample(driver: int, interval_ms: float, gpus: Sequence[int], file: Path) -> None:
    """Samples until `stop` comes on standard input, or the driver is gone; at `more` writes [t_ns, fields] a line."""
    read, total = _nvml_reader(driver, gpus) if gpus else _tree_reader(driver)
    lines = []
    due = time.monotonic()
    first = True
    while True:
        t_ns, reading = time.monotonic_ns(), read()
        lines.append((t_ns, reading))
        if first:
            print(json.dumps(reading | {"total_bytes": total}), flush=True)
            first = False
        due += interval_ms / 1000
        if due < time.monotonic():  # late: from now on, rather than many samples at once
            due = time.monotonic()
        if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            line = sys.stdin.readline()
            if line != "more\n":
                break
            lines.append((time.monotonic_ns(), read()))
            file.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), encoding="utf-8")
            lines = []
            print("there", flush=True)
        if os.getppid() != driver:
            line = ""
            break
    if not line:
        sys.exit("the measuring process is gone")


if __name__ == "__main__":
    _driver, _interval, _gpus, _file = sys.argv[1:]
    sample(int(_driver), float(_interval), [int(i) for i in _gpus.split(",") if i], Path(_file))
