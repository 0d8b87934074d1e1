# What all rules share: the checked configuration, the code that a stage depends on, the environment of its command.
import os
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
PACKAGE = ROOT / "workflow" / "kvlab"
sys.path.insert(0, str(ROOT / "workflow"))

import kvlab.config as kvlab_config
from kvlab.errors import KvlabError
from kvlab.imports import closure

try:
    CONFIG = kvlab_config.parse(
        kvlab_config.unflatten(config), " ".join(map(str, workflow.configfiles))
    )
except KvlabError as error:
    sys.exit(f"kvlab: {error}")

RUN = Path("results") / CONFIG.run
LOGS, COSTS = RUN / "logs", RUN / "costs"


wildcard_constraints:
    workload="[a-z0-9-]+",
    arm="[a-z0-9-]+",
    repeat="[0-9]+",


def code(*modules):
    """The files of the package that a stage's modules import, themselves included: found, not listed."""
    return [str(path.relative_to(ROOT)) for path in closure(PACKAGE, modules)]


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
shell.prefix(
    "set -euo pipefail; "
    + " ".join(f'export {name}="${{{{{name}:-{CACHE / folder}}}}}";' for name, folder in CACHES.items())
    + f' export PYTHONPATH="{ROOT / "workflow"}${{{{PYTHONPATH:+:$PYTHONPATH}}}}"; '
)
