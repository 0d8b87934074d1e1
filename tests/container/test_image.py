"""The whole DAG inside the image: complete, verified, the same tokens as outside, and no file left elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.container.conftest import copy_project

WRITABLE = ("/tmp", "/kvlab/.cache", "/kvlab/.snakemake")  # and results: docker/README.md
ARMS = ("hf-sequential-static", "vllm-paged")


def untimed(file: Path) -> list[dict]:
    """What a run decides without a clock: the tokens, and which slots were held at which step."""
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in record.items() if not key.endswith("_s")} for record in records]


def test_the_report_is_made_and_verifies(inside):
    run = inside.root / "results" / "contained"
    assert (run / "report.html").stat().st_size > 50_000
    verified = json.loads((run / "verify.json").read_text())
    assert not verified["faults"]


def test_the_image_is_named_in_the_environment_and_in_the_report(inside, image):
    run = inside.root / "results" / "contained"
    container = json.loads((run / "environment.json").read_text())["container"]
    assert container["engine"] == "apptainer"
    assert container["image"] == image.sif.name
    assert container["label"]["variant"] == "cpu"
    assert container["label"]["recipe"] in image.sif.name
    assert image.sif.name in (run / "report.html").read_text()


def test_a_second_run_does_nothing(inside):
    done = inside.snakemake("--use-singularity")
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in done.stdout


def test_caches_lie_in_their_folder_and_nowhere_else(inside):
    assert {path.name for path in inside.root.iterdir()} <= {
        ".cache", ".dockerignore", ".snakemake", "Snakefile", "LICENSE", "README.md", "config", "docker", "profiles",
        "pyproject.toml", "report", "results", "tests", "workflow",
    }  # fmt: skip


def test_the_container_gives_the_same_tokens_as_the_host(inside, tmp_path, clean_env):
    outside = copy_project(tmp_path, clean_env)
    raw = Path("results/contained/raw/words")
    measured = (inside.root / "results/contained/processes").rglob("*.json")
    done = outside.snakemake(*(str(file.relative_to(inside.root)) for file in measured))
    assert done.returncode == 0, done.stdout[-6000:]
    for arm in ARMS:
        for file in ("outputs.jsonl", "steps.jsonl", "requests.jsonl"):
            there, here = inside.root / raw / arm / "0" / file, outside.root / raw / arm / "0" / file
            assert untimed(there) == untimed(here), f"{arm}/{file}"


def test_the_image_runs_the_main_job_by_itself_as_its_own_user_and_writes_nothing_to_its_root(image, tmp_path):
    """What `docker run --read-only --tmpfs … -v $PWD/results:/kvlab/results IMAGE --configfile …` does, by buildah.

    buildah can't make the root read-only; nothing in it may be newer than the run's start.
    """
    if not image.tool:
        pytest.skip("a SIF that was kept: buildah's image of it is gone (gpu-less work on these tests only)")
    results = tmp_path / "results"
    results.mkdir()
    os.chown(results, 10001, 10001)
    config = (Path(__file__).parent / "contained.yaml").read_text().replace("arms: [hf-sequential-static, ", "arms: [")
    (results / "mine.yaml").write_text(config)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    container = subprocess.check_output([*image.tool, "from", image.name], env=image.env, text=True).strip()
    try:
        root = Path(subprocess.check_output([*image.tool, "mount", container], env=image.env, text=True).strip())
        assert (root / "kvlab" / "Snakefile").is_file()
        mounts = []
        for place in WRITABLE:
            (tmp_path / place.replace("/", "_")).mkdir()
            (tmp_path / place.replace("/", "_")).chmod(0o1777)
            mounts += ["-v", f"{tmp_path / place.replace('/', '_')}:{place}"]
        started = time.time()
        done = subprocess.run(
            [*image.tool, "run", "--isolation", "chroot", "-v", f"{results}:/kvlab/results", *mounts,
             container, "--", "/kvlab/docker/entrypoint", "--configfile", "results/mine.yaml"],
            env=image.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False,
        )  # fmt: skip
        written = [str(path.relative_to(root)) for path in root.rglob("*") if path.lstat().st_mtime > started]
    finally:
        subprocess.run([*image.tool, "rm", container], env=image.env, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    report = results / "contained" / "report.html"
    assert report.stat().st_uid == 10001
    outside = tuple(f"{place[1:]}" for place in (*WRITABLE, "/etc", "/proc", "/sys", "/dev", "/run"))  # buildah's own
    assert [name for name in written if not f"{name}/".startswith(tuple(f"{place}/" for place in outside))] == []
    assert json.loads((results / "contained" / "verify.json").read_text())["faults"] == []


def test_an_image_of_another_recipe_is_refused(image, tmp_path):
    project = copy_project(tmp_path, image.env)
    with (project.root / "docker" / "Dockerfile").open("a") as file:
        file.write("# changed\n")
    done = project.snakemake("-n", "--use-singularity", "--config", f"container={image.sif}")
    assert done.returncode != 0
    assert done.stdout.count("\n") < 5
    assert "was made from other docker/ files" in done.stdout
    done = project.snakemake("-n", "--use-singularity")
    assert "make it with: make image" in done.stdout


def test_a_bind_path_that_is_missing_is_named(inside):
    done = inside.snakemake("-n", "--use-singularity", "--singularity-args=--bind /nowhere:/data")
    assert done.returncode != 0
    assert "bind path /nowhere is not there" in done.stdout
