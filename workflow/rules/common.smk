# What all rules share: the checked configuration, the code that a stage depends on, the environment of its command.
# The Snakefile is run in its checkout, taken as a module by another workflow, or deployed from a repository: then there is no
# checkout, and the installed package (a wheel of the same release) carries the project's files.
import subprocess
import sys
from pathlib import Path

HERE = workflow.current_basedir
if HERE.is_local:
    ROOT = Path(HERE.get_path_or_uri(secret_free=True)).resolve().parents[1]
    PACKAGE = ROOT / "workflow" / "kvlab"
    sys.path.insert(0, str(PACKAGE.parent))
else:
    try:
        from kvlab.paths import PACKAGE, ROOT
    except ImportError:
        PACKAGE = ROOT = Path()
    rules_here = [
        Path(workflow.source_path(f"{wing}.smk"))
        for wing in ("common", "prepare", "measure", "analyse", "simulate", "publish")
    ]
    installed = ROOT / "workflow" / "rules"
    if not all(
        (installed / path.name).is_file()
        and path.read_text().rstrip() == (installed / path.name).read_text().rstrip()
        for path in rules_here
    ):
        sys.exit(
            "kvlab: the package of this release is not installed in the Python of Snakemake: "
            f"pip install git+https://{HERE.host}/{HERE.repo}@{HERE.ref}"
        )
if {"{", "}"} & set(
    f"{ROOT}{Path.cwd()}"
):  # Snakemake takes them for wildcards, in its own files too
    sys.exit(
        f"kvlab: {ROOT}: Snakemake can't run where a path has {{ or }}; move the project"
    )

import kvlab.config.run as kvlab_config
import kvlab.dag.container as kvlab_container
from kvlab.dag import products
from kvlab.dag.products import process_file
from kvlab.dag.environment import hand_over, set_for_jobs, users_caches
from kvlab.dag.imports import closure
from kvlab.errors import KvlabError, of_the_system
from kvlab.measure.engines.registry import engines
from kvlab.paths import seen
from kvlab.prepare.model import made_from
from kvlab.records import write_json
from kvlab.terminal import say

try:
    CONFIG = kvlab_config.parse(
        kvlab_config.spread(config), " ".join(map(str, workflow.configfiles))
    )
except KvlabError as error:
    sys.exit(f"kvlab: {error}")

RUN = Path("results") / CONFIG.run
LOGS, COSTS = RUN / "logs", RUN / "costs"
REQUESTS = RUN / "workloads" / "{workload}.jsonl"
MODEL = RUN / "model" / made_from(CONFIG.section("model"))
PAGE = RUN / products.PAGE
SIMULATED = RUN / "simulated"
SIMULATION = ["metrics.json", "claims.json", "table1.jsonl", "figures/figures.json"]
SIMULATION = [SIMULATED / name for name in SIMULATION if CONFIG.simulation]
AFTER_THE_PAGE = {str(RUN / "verify.json"), str(RUN / "ro-crate-metadata.json")}

# What Snakemake does not check: files behind links, single figures.
if workflow.is_main_process:
    for reason in products.mark_stale(RUN, MODEL):
        say(f"kvlab: {reason}; it is made again, and what depends on it")


report: "../report/workflow.rst"


def shown(product, kind):
    """The product with its place in `snakemake --report`."""
    return report(product, caption=f"../report/{kind}.rst", category=kind.capitalize())


# The stages read their sections from here. Not a rule's output: what a stage depends on is in its params, and a change
# of one stage's settings must not look like a change to all.
onstart:
    try:
        write_json(RUN / "config.json", CONFIG.model_dump(mode="json"))
        due = {
            str(file) for job in workflow.dag.needrun_jobs() for file in job.output
        }
        if not workflow.touch and due - AFTER_THE_PAGE:
            products.set_aside(RUN)
    except OSError as error:
        sys.exit(f"kvlab: {of_the_system(error)}")


onsuccess:
    products.drop_outdated(RUN)
    if (RUN / "metrics.json").exists():
        subprocess.run(
            [sys.executable, "-m", "kvlab", "summary", str(RUN)], check=False
        )


wildcard_constraints:
    workload="[a-z0-9-]+",
    block="[0-9]+",


def code(*modules):
    """The files of the package that a stage's modules import, themselves included: found, not listed."""
    return [seen(path) for path in closure(PACKAGE, modules)]


def own(name):
    """A file of the project."""
    return seen(ROOT / name)


PROCESS = str(process_file(RUN, "{workload}", "{process}", "{block}"))
PROCESSES = [str(process_file(RUN, *which)) for which in CONFIG.processes()]
# Earlier ones first: block by block, so that drift of clocks and temperature affects all arms equally.
PLACE = {which: 1000 - place for place, which in enumerate(CONFIG.processes())}


def passes(wildcards):
    """What a process measures: each pass with its rate and its part of the configuration."""
    workload, process = wildcards.workload, wildcards.process
    return [
        (arm, rate, CONFIG.section("measure", workload, arm))
        for arm, rate in CONFIG.passes(workload, process, int(wildcards.block))
    ]


def minutes(wildcards, attempt):
    """What a process may take on a cluster: loading, and each pass's time budget; more when it is tried again."""
    budget = CONFIG.measure.time_budget_s * len(passes(wildcards)) / 60
    return attempt * (15 + round(budget))


def gpus(wildcards):
    """How many GPUs a process asks a cluster for."""
    arm, _, _ = passes(wildcards)[0]
    return 0 if CONFIG.measure.device == "cpu" else CONFIG.gpus(arm)


CONTAINED = any(
    str(method).lower().endswith("apptainer")
    for method in workflow.deployment_settings.deployment_method
)
# outside of a container nothing reads it
IMAGE = CONFIG.container or "images/kvlab.sif"
if CONTAINED:
    outside = [*users_caches(), Path(CONFIG.model.source), Path("results")]
    if HERE.is_local:
        outside.append(ROOT)
    outside += [Path(file) for name in CONFIG.workloads for file in CONFIG.files(name)]
    outside += [Path(file) for file in CONFIG.simulation_files()]
    settings = workflow.deployment_settings
    try:
        IMAGE = kvlab_container.image(ROOT, CONFIG.container)
        settings.apptainer_args = kvlab_container.options(
            settings.apptainer_args, outside, Path.cwd()
        )
    except KvlabError as error:
        sys.exit(f"kvlab: {error}")

set_for_jobs(PACKAGE.parent if HERE.is_local else None, CONTAINED)
# Snakemake runs no hook of a module: the stages write config.json there.
if not workflow.modifier.is_main_snakefile():
    if workflow.modifier.path_modifier.modify(f"{RUN}/") != f"{RUN}/":
        sys.exit(
            f"kvlab: a run lies in {RUN}; leave prefix and replace_prefix out of the module, and choose the name of the run"
        )
    hand_over(RUN, CONFIG.model_dump(mode="json"))
