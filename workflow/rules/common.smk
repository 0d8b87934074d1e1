# What all rules share: the checked configuration, the code that a stage depends on, the environment of its command.
import os
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
PACKAGE = ROOT / "workflow" / "kvlab"
sys.path.insert(0, str(ROOT / "workflow"))

import kvlab.config.run as kvlab_config
import kvlab.dag.container as kvlab_container
from kvlab.errors import KvlabError
from kvlab.dag.imports import closure
from kvlab.records import RAW_FILES, write_json

try:
    CONFIG = kvlab_config.parse(
        kvlab_config.spread(config), " ".join(map(str, workflow.configfiles))
    )
except KvlabError as error:
    sys.exit(f"kvlab: {error}")

RUN = Path("results") / CONFIG.run
LOGS, COSTS = RUN / "logs", RUN / "costs"


# The stages read their sections from here. Not a rule's output: what a stage depends on is in its params, and a change
# of one stage's settings must not look like a change to all.
onstart:
    write_json(RUN / "config.json", CONFIG.model_dump(mode="json"))


onsuccess:
    if (RUN / "metrics.json").exists():
        shell("{sys.executable} -m kvlab summary {RUN}")


wildcard_constraints:
    workload="[a-z0-9-]+",
    arm="[a-z0-9-]+",
    repeat="[0-9]+",


def code(*modules):
    """The files of the package that a stage's modules import, themselves included: found, not listed."""
    return [str(path.relative_to(ROOT)) for path in closure(PACKAGE, modules)]


# Earlier ones first: repeat by repeat, arms interleaved, so that drift of clocks and heat falls on all arms alike.
PLACE = {tuple(which): 1000 - place for place, which in enumerate(CONFIG.raw())}


def raw(*names):
    """The raw files of all of the run's measurements."""
    return [
        str(RUN / "raw" / w / a / str(r) / name)
        for w, a, r in CONFIG.raw()
        for name in names
    ]


def gpus(wildcards):
    """How many GPUs an arm asks a cluster for."""
    if CONFIG.measure.device == "cpu":
        return 0
    return CONFIG.gpus(wildcards.arm)


# Caches live in named folders that survive between jobs and containers; what the user has set stays.
CACHE = ROOT / ".cache"
CACHES = {
    "HF_HOME": "huggingface",
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg",
    "XDG_CONFIG_HOME": "xdg-config",
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter",
}
# Outside a container the stages run in the environment that Snakemake runs in, activated or not.
CONTAINED = any(
    str(method).lower().endswith("apptainer")
    for method in workflow.deployment_settings.deployment_method
)
# outside of a container nothing reads it
IMAGE = CONFIG.container or "images/kvlab.sif"
if CONTAINED:
    outside = [Path(os.environ[name]) for name in CACHES if name in os.environ]
    outside += [Path(CONFIG.model.source), Path("results")]
    outside += [Path(file) for name in CONFIG.workloads for file in CONFIG.files(name)]
    settings = workflow.deployment_settings
    try:
        IMAGE = kvlab_container.image(ROOT, CONFIG.container)
        settings.apptainer_args = kvlab_container.options(
            settings.apptainer_args, outside, ROOT
        )
    except KvlabError as error:
        sys.exit(f"kvlab: {error}")
OWN_PYTHON = "" if CONTAINED else f'export PATH="{Path(sys.executable).parent}:$PATH"; '

shell.prefix(
    "set -euo pipefail; "
    + OWN_PYTHON
    + " ".join(
        f'export {name}="${{{{{name}:-{CACHE / folder}}}}}";'
        for name, folder in CACHES.items()
    )
    + f' export PYTHONPATH="{ROOT / "workflow"}${{{{PYTHONPATH:+:$PYTHONPATH}}}}"; '
)
