"""What pyproject.toml can't say about the wheel: the files that it carries, its dependencies as the lock pins them."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
FILES = (
    "Snakefile",
    "config",
    "report",
    "workflow/notebooks",
    "workflow/rules",
)  # kvlab/files/… in the wheel; kvlab.paths finds them
IGNORED = shutil.ignore_patterns("screenshots", ".*", "*sharegpt*", "alpaca_opt*")  # and what .gitignore names there
# What a checkout needs and the command does not: Snakemake runs the DAG, the rest installs or builds.
CHECKOUT = {
    "snakemake",
    "snakemake-executor-plugin-slurm",
    "snakemake-executor-plugin-kubernetes",
    "setuptools",
    "uv",
}


def dependencies() -> list[str]:
    """Those of docker/light.in at the versions of docker/light.lock: other ones would draw other figures."""
    pins = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", (ROOT / "docker" / "light.lock").read_text(), re.M))
    names = re.findall(r"^([a-z0-9.-]+)", (ROOT / "docker" / "light.in").read_text(), re.M)
    return [f"{name}=={pins[name]}" for name in names if name not in CHECKOUT]


class Build(build_py):
    """Copies the project's own files beside the package; an editable installation reads them in the checkout."""

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "kvlab" / "files"
        shutil.rmtree(target, ignore_errors=True)
        for name in FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target / name, ignore=IGNORED)
            else:
                shutil.copy2(ROOT / name, target / name)


setup(cmdclass={"build_py": Build}, install_requires=dependencies())
