"""The checks before anything runs in a container, and docker/build's faults; the tools are stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvlab.dag import container
from kvlab.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """PATH holds this folder and coreutils; `tools(name, script)` puts a command there."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in [name for name in os.environ if name.startswith(("APPTAINER", "SINGULARITY", "SIF_FOLDER", "VARIANT"))]:
        monkeypatch.delenv(name)

    def put(name: str, script: str) -> Path:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return folder / name

    return put


def recipe(variant: str = "cpu") -> str:
    return subprocess.check_output(
        [ROOT / "docker" / "build", "--recipe"], env=os.environ | {"VARIANT": variant}, text=True
    ).strip()


def labelled(tools, variant: str, recipe: str) -> None:
    tools("apptainer", f"printf 'kvlab.variant: {variant}\\nkvlab.recipe: {recipe}\\n'")


class TestImage:
    def test_no_apptainer_is_one_line(self, tools):
        with pytest.raises(ConfigError, match=r"needs apptainer .or singularity. on PATH"):
            container.image(ROOT, None)

    def test_no_image_says_make_image(self, tools, tmp_path, monkeypatch):
        tools("apptainer", "true")
        monkeypatch.setenv("SIF_FOLDER", str(tmp_path))
        with pytest.raises(ConfigError, match=r"no image .*kvlab-cpu-.*\.sif; make it with: make image"):
            container.image(ROOT, None)

    def test_the_image_of_this_checkout_is_found(self, tools, tmp_path, monkeypatch):
        tools("apptainer", "true")
        monkeypatch.setenv("SIF_FOLDER", str(tmp_path))
        made = tmp_path / f"kvlab-cpu-{recipe()}.sif"
        made.touch()
        assert container.image(ROOT, None) == str(made)

    def test_a_node_without_a_gpu_takes_the_image_for_the_others(self, tools, tmp_path, monkeypatch):
        tools("apptainer", "true")
        monkeypatch.setenv("SIF_FOLDER", str(tmp_path))
        made = tmp_path / f"kvlab-cuda-{recipe('cuda')}.sif"
        made.touch()
        assert container.image(ROOT, None) == str(made)

    @pytest.mark.parametrize(
        "name", ["docker://example.org/kvlab", "docker://example.org/kvlab:1", f"docker://a/b:1@{DIGEST}"]
    )
    def test_a_reference_without_a_digest_alone_is_refused(self, tools, name):
        tools("apptainer", "true")
        with pytest.raises(ConfigError, match="docker://name@sha256"):
            container.image(ROOT, name)

    @pytest.mark.parametrize(
        "name", ["docker://example.org/team/kvlab", "docker://localhost:5000/kvlab", "docker://kvlab"]
    )
    def test_a_pinned_reference_is_taken_as_it_is(self, tools, name):
        tools("singularity", "true")
        assert container.image(ROOT, f"{name}@{DIGEST}") == f"{name}@{DIGEST}"

    def test_a_missing_file_is_named(self, tools):
        tools("apptainer", "true")
        with pytest.raises(ConfigError, match=r"images/mine\.sif is not there; make image makes images/kvlab-cpu-"):
            container.image(ROOT, "images/mine.sif")

    def test_another_version_than_the_checkouts_is_refused(self, tools, tmp_path):
        labelled(tools, "cpu", "0123456789ab")
        (tmp_path / "old.sif").touch()
        with pytest.raises(ConfigError, match=f"recipe 0123456789ab.*{recipe()}"):
            container.image(ROOT, str(tmp_path / "old.sif"))

    def test_the_same_version_is_taken_whatever_its_file_is_called(self, tools, tmp_path):
        labelled(tools, "cuda", recipe("cuda"))
        (tmp_path / "mine.sif").touch()
        assert container.image(ROOT, str(tmp_path / "mine.sif")) == str(tmp_path / "mine.sif")

    def test_an_image_of_ones_own_is_taken(self, tools, tmp_path):
        tools("apptainer", "echo org.label-schema.schema-version: 1.0")
        (tmp_path / "own.sif").touch()
        assert container.image(ROOT, str(tmp_path / "own.sif")) == str(tmp_path / "own.sif")

    def test_a_file_that_is_no_image_is_named(self, tools, tmp_path):
        tools("apptainer", "echo FATAL: image format not recognized >&2; exit 255")
        (tmp_path / "text.sif").touch()
        with pytest.raises(ConfigError, match=r"text\.sif is not an image that apptainer can read"):
            container.image(ROOT, str(tmp_path / "text.sif"))


class TestOptions:
    def test_the_gpu_is_passed_through_where_a_driver_answers(self, tools):
        tools("nvidia-smi", "true")
        assert container.options("", [], ROOT) == "--nv"
        assert container.options("--nv", [], ROOT) == "--nv"

    def test_a_driver_that_does_not_answer_is_no_gpu(self, tools):
        tools("nvidia-smi", "exit 9")
        assert container.options("", [], ROOT) == ""

    def test_nv_without_a_driver_is_refused(self, tools):
        with pytest.raises(ConfigError, match="no NVIDIA driver answers"):
            container.options("--nv", [], ROOT)

    @pytest.mark.parametrize("given", ["--bind /nowhere", "--bind=/tmp,/nowhere:/data:ro", "-B /nowhere"])
    def test_a_missing_bind_path_is_named(self, tools, given):
        with pytest.raises(ConfigError, match="bind path /nowhere is not there"):
            container.options(given, [], ROOT)

    def test_a_missing_bind_path_of_the_environment_is_named(self, tools, monkeypatch):
        monkeypatch.setenv("APPTAINER_BIND", "/tmp,/nowhere")
        with pytest.raises(ConfigError, match="bind path /nowhere is not there"):
            container.options("", [], ROOT)

    def test_folders_outside_the_project_are_bound(self, tools, tmp_path):
        (tmp_path / "models").mkdir()
        folders = [tmp_path / "models", ROOT / "config", tmp_path / "absent"]
        assert container.options("--cleanenv", folders, ROOT) == f"--cleanenv --bind {tmp_path / 'models'}"


class TestBuild:
    """docker/build with a container tool that does nothing but what the test needs."""

    def build(self, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"SIF_FOLDER": str(folder), "VARIANT": "cpu"} | environment
        return subprocess.run(
            [ROOT / "docker" / "build"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def test_no_tool_at_all_says_what_to_install(self, tools, tmp_path):
        done = self.build(tmp_path, CONTAINER_TOOL="no-such-tool")
        assert done.returncode == 1
        assert "no docker, podman or buildah here" in done.stderr

    def test_a_failed_build_leaves_nothing(self, tools, tmp_path):
        tools("podman", "echo step 3: no such package >&2; exit 125")
        done = self.build(tmp_path / "images", CONTAINER_TOOL="podman")
        assert done.returncode == 1
        assert "no such package" in done.stderr
        assert list((tmp_path / "images").iterdir()) == []

    def test_the_sif_carries_the_recipe_in_its_name(self, tools, tmp_path):
        tools("podman", "true")
        tools("apptainer", 'for last; do before=$file; file=$last; done; echo sif > "$before"')
        done = self.build(tmp_path, CONTAINER_TOOL="podman")
        assert done.returncode == 0, done.stderr
        made = tmp_path / f"kvlab-cpu-{recipe()}.sif"
        assert done.stdout.strip() == str(made)
        assert [made] == list(tmp_path.glob("*.sif"))
        again = self.build(tmp_path, CONTAINER_TOOL="podman")
        assert "is there already" in again.stderr

    def test_a_docker_without_its_daemon_is_named(self, tools, tmp_path):
        tools("docker", "exit 1")
        assert "its daemon does not answer" in self.build(tmp_path, CONTAINER_TOOL="docker").stderr

    def test_a_full_disk_is_one_line_and_leaves_nothing(self, tools, tmp_path):
        """A real file system of 1 MB, in a mount namespace of its own."""
        if (
            os.geteuid() != 0
            and subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode
        ):
            pytest.skip("neither root nor user namespaces: no small file system to fill")
        tools("podman", 'for last; do :; done; case $last in oci:*) head -c 3000000 /dev/zero > "${last#oci:}";; esac')
        tools("apptainer", "true")
        small = tmp_path / "small"
        small.mkdir()
        script = f'mount -t tmpfs -o size=1m none {small} && {{ {ROOT}/docker/build; echo "rc $?"; ls -A {small}; }}'
        own = [] if os.geteuid() == 0 else ["--map-root-user"]
        done = subprocess.run(
            ["unshare", *own, "--mount", "bash", "-c", script],
            env=os.environ | {"SIF_FOLDER": str(small), "VARIANT": "cpu", "CONTAINER_TOOL": "podman"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "the disk is full" in done.stderr
        assert done.stdout == "rc 1\n"  # nothing left in the folder


def test_the_recipe_follows_the_files_that_decide_the_environment(tmp_path):
    for part in ("docker", "workflow/kvlab/__init__.py"):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / part, target], check=True)

    def asked(variant: str) -> str:
        return subprocess.check_output(
            [tmp_path / "docker" / "build", "--recipe"], env=os.environ | {"VARIANT": variant}, text=True
        ).strip()

    cpu, cuda = asked("cpu"), asked("cuda")
    assert cpu != cuda
    with (tmp_path / "docker" / "cuda.lock").open("a") as lock:
        lock.write("# another\n")
    assert asked("cpu") == cpu
    assert asked("cuda") != cuda


def test_the_profiles_hold_only_options_that_snakemake_knows():
    import yaml

    snakemake = Path(sys.executable).parent / "snakemake"
    known = subprocess.run([snakemake, "--help"], capture_output=True, text=True, timeout=60, check=False).stdout
    for file in sorted((ROOT / "workflow" / "profiles").glob("*/config.yaml")):
        options = yaml.safe_load(file.read_text())
        assert options["rerun-incomplete"] is True
        assert options["logger"] == "kvlab"  # what can not be read is one line, whichever profile
        for option in options:
            assert f"--{option}" in known, f"{file}: {option}"
