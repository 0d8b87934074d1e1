"""The image that the rules run in with `--use-singularity`, and how Apptainer is called: checked before jobs start."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from kvlab.errors import ConfigError
from kvlab.paths import seen

RUNTIMES = ("apptainer", "singularity")  # Snakemake looks for them in this order


def image(root: Path, configured: str | None) -> str:
    """The image: the configuration's, else the one that `make image` makes of this checkout."""
    tool = _runtime()
    if configured is None:
        return _own(root)
    if configured.startswith("docker://"):
        if not re.fullmatch(r"docker://[^@:/]+(:\d+)?(/[^@:]+)*@sha256:[0-9a-f]{64}", configured):
            raise ConfigError(f"container: {configured} must be docker://name@sha256:… (a digest, no tag beside it)")
        return configured
    path = Path(configured).absolute()
    if not path.is_file():
        raise ConfigError(f"container: {path} is not there; make image makes {_asked(root, '--name')}")
    _same_recipe(root, tool, path)
    return configured


def options(given: str, folders: Iterable[Path], here: Path) -> str:
    """Apptainer's options: those given, the GPU where there is one, and the folders outside `here`, which it binds."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--nv", action="store_true")
    parser.add_argument("-B", "--bind", action="append", default=[])
    known, _ = parser.parse_known_args(shlex.split(given))
    environment = [os.environ.get(f"{name.upper()}_{key}", "") for name in RUNTIMES for key in ("BIND", "BINDPATH")]
    for bind in ",".join([*known.bind, *environment]).split(","):
        source = bind.split(":")[0]
        if source and not Path(source).exists():
            raise ConfigError(f"bind path {source} is not there; create it, or leave it out of --bind")
    if known.nv and not driver_answers():
        raise ConfigError("--nv asks for the GPU, but no NVIDIA driver answers here; leave --nv off to run on the CPU")
    added = [] if known.nv or not driver_answers() else ["--nv"]
    for folder in sorted({folder.resolve() for folder in folders if folder.exists()}):
        if not folder.is_relative_to(here.resolve()):
            added += ["--bind", shlex.quote(str(folder))]
    return " ".join([given, *added]).strip()


def driver_answers() -> bool:
    """Whether an NVIDIA driver answers."""
    tool = shutil.which("nvidia-smi") or shutil.which("/usr/lib/wsl/lib/nvidia-smi")
    return tool is not None and _run(tool, "-L").returncode == 0


def _runtime() -> str:
    for name in RUNTIMES:
        if found := shutil.which(name):
            return found
    raise ConfigError("--use-singularity needs apptainer (or singularity) on PATH; docker/README.md says how to get it")


def _own(root: Path) -> str:
    """What this machine's variant is called; on a node without a GPU an image made for a GPU serves too.

    Named from the working directory: a project that moves does not run again.
    """
    expected = [_asked(root, "--name")]
    if "-cpu-" in expected[0]:
        expected.append(_asked(root, "--name", "cuda"))
    for name in expected:
        if (root / name).is_file():
            return seen(root / name)
    raise ConfigError(f"no image {expected[0]}; make it with: make image (or name one in the configuration)")


def _same_recipe(root: Path, tool: str, path: Path) -> None:
    labels = _run(tool, "inspect", "--labels", str(path))
    if labels.returncode:
        raise ConfigError(f"container: {path} is not an image that {Path(tool).name} can read; make image makes one")
    found = dict(re.findall(r"^kvlab\.(variant|recipe): *(\S+)$", labels.stdout, re.M))
    if {"variant", "recipe"} - found.keys():
        return  # an image that kvlab did not build
    wanted = _asked(root, "--recipe", found["variant"])
    if found["recipe"] != wanted:
        raise ConfigError(
            f"container: {path} was made from other docker/ files (recipe {found['recipe']}) than this checkout's "
            f"({wanted}); make image, or check out the release that it belongs to"
        )


def _asked(root: Path, question: str, variant: str | None = None) -> str:
    if not (root / "docker").is_dir():
        raise ConfigError("container: name one in the configuration; make image makes one, in a checkout")
    done = _run(str(root / "docker" / "build"), question, variant=variant)
    if done.returncode:
        raise ConfigError(f"docker/build {question} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def _run(*command: str, variant: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"VARIANT": variant} if variant else {})
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
