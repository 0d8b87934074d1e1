"""The memory sampler, as a process of its own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from kvlab.measure.monitor import Monitor
from kvlab.records import Sample

MIB = 1 << 20


def test_it_sees_memory_that_is_taken_and_given_back(tmp_path):
    with Monitor(tmp_path / "device", interval_ms=10) as monitor:
        time.sleep(0.1)
        taken_at = time.monotonic_ns()
        block = b"x" * (200 * MIB)
        time.sleep(0.2)
        given_at = time.monotonic_ns()
        del block
        time.sleep(0.2)
    used = [(t_ns, reading["used_bytes"]) for t_ns, reading in monitor.readings]
    before = max(bytes_ for t_ns, bytes_ in used if t_ns < taken_at)
    during = max(bytes_ for t_ns, bytes_ in used if taken_at < t_ns < given_at)
    assert 190 * MIB < during - before < 220 * MIB
    assert used[-1][1] < before + 20 * MIB
    assert monitor.idle_bytes == used[0][1] <= before
    assert monitor.source == "process-tree"
    assert monitor.total_bytes == psutil.virtual_memory().total


def test_a_child_counts_and_the_sampler_does_not(tmp_path):
    sleeper = "import time; block = bytearray(b'x' * (100 << 20)); print(flush=True); time.sleep(60)"
    with Monitor(tmp_path / "device", interval_ms=20) as monitor:
        alone = psutil.Process().memory_info().rss
        assert monitor.idle_bytes is not None
        assert abs(monitor.idle_bytes - alone) < 10 * MIB  # the sampler itself would be more
        child = subprocess.Popen([sys.executable, "-c", sleeper], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(1.3)  # the tree is looked up once a second
        child.kill()
        child.wait()
    assert max(reading["used_bytes"] for _, reading in monitor.readings) > alone + 100 * MIB


def test_times_are_real_and_as_asked(tmp_path):
    start = time.monotonic_ns()
    with Monitor(tmp_path / "device", interval_ms=20) as monitor:
        time.sleep(1.0)
    times = [t_ns for t_ns, _ in monitor.readings]
    assert times == sorted(times)
    assert start < times[0]
    assert times[-1] < time.monotonic_ns()
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    assert 18e6 < gaps[len(gaps) // 2] < 40e6
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize("forked", [False, True])
def test_it_goes_when_the_measuring_process_is_killed(tmp_path, forked):
    driver = textwrap.dedent(f"""
        import os, time
        from pathlib import Path
        from kvlab.measure.monitor import Monitor
        with Monitor(Path({str(tmp_path / "device")!r}), 20) as monitor:
            if {forked} and os.fork() == 0:
                time.sleep(5)  # holds the sampler's pipe open, as a forked engine does
                os._exit(0)
            print(monitor._process.pid, flush=True)
            time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", driver], stdout=subprocess.PIPE, env=_environment())
    assert process.stdout is not None
    sampler = psutil.Process(int(process.stdout.readline()))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    sampler.wait(timeout=3)
    assert not (tmp_path / "device").exists()


def test_a_sampler_that_died_is_a_fault(tmp_path):
    def sample():
        with Monitor(tmp_path / "device", 20) as monitor:
            monitor._process.kill()
            monitor._process.wait()

    with pytest.raises(RuntimeError, match="sampler died"):
        sample()


def test_the_first_fault_is_the_one_that_is_reported(tmp_path):
    def fail():
        with Monitor(tmp_path / "device", 20) as monitor:
            monitor._process.kill()
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        fail()


def test_a_gpu_that_is_not_there_is_a_fault_at_once(tmp_path):
    with pytest.raises(RuntimeError, match="did not start"):
        Monitor(tmp_path / "device", 20, gpus=[97]).__enter__()


NVML = """
NVML_CLOCK_SM = 1
class NVMLError(Exception): pass
class Memory:
    def __init__(self, gpu): self.used, self.total = 1000 + gpu, 9000
class Rates: gpu = 50
calls = 0
def nvmlInit(): pass
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetMemoryInfo(gpu): return Memory(gpu)
def nvmlDeviceGetUtilizationRates(gpu): return Rates()
def nvmlDeviceGetClockInfo(gpu, kind): return 1700 + gpu
NVML_TEMPERATURE_GPU = 0
def nvmlDeviceGetTemperature(gpu, kind): return 40 + gpu
def nvmlDeviceGetPowerUsage(gpu): return 300_000
def nvmlDeviceGetComputeRunningProcesses(gpu): return []
def nvmlDeviceGetCurrentClocksEventReasons(gpu): return gpu
def nvmlDeviceGetTotalEnergyConsumption(gpu):
    global calls
    calls += 1
    return 1_000_000 * gpu + 500 * calls
"""


@pytest.mark.parametrize("gpus", [[3], [3, 5]])
def test_gpus_are_summed_and_each_is_there_where_there_are_several(tmp_path, monkeypatch, gpus):
    """NVML's answers are made up here: this machine has no GPU."""
    (tmp_path / "pynvml.py").write_text(NVML)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with Monitor(tmp_path / "device", 10, gpus=gpus) as monitor:
        time.sleep(0.1)
    readings = [reading for _, reading in monitor.readings]
    assert monitor.total_bytes == 9000 * len(gpus)
    assert readings[0]["used_bytes"] == sum(1000 + gpu for gpu in gpus)
    energy = [reading["energy_j"] for reading in readings]
    assert energy == sorted(energy)
    assert energy[0] > 1000 * sum(gpus)
    if len(gpus) == 1:
        assert "used_bytes_each" not in readings[0]
    else:
        assert readings[0]["used_bytes_each"] == [1003, 1005]
        assert all(sum(reading["energy_j_each"]) == pytest.approx(reading["energy_j"]) for reading in readings)
    assert [Sample(t_s=0.0, **reading) for reading in readings]  # what is read is what a record holds


def _environment() -> dict[str, str]:
    from pathlib import Path

    import kvlab

    return os.environ | {"PYTHONPATH": str(Path(kvlab.__file__).parents[1])}
