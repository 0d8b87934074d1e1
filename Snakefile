# The table of contents. What is run: config/*.yaml. How: workflow/rules/, one file for each part of the DAG.
#
#   snakemake --cores 1                                        the default run, config/smoke.yaml
#   snakemake --cores 1 --configfile config/full.yaml          another configuration
#   snakemake --cores 1 --configfile config/paper.yaml         the paper's memory figures, simulated: no engine
#   snakemake --cores 1 --config run=mine repeats=5            a few keys of it
#   snakemake --cores 1 --use-singularity                      the same inside the image (make image)


# --configfile replaces the default, it is not merged into it.
if not workflow.overwrite_configfiles:

    configfile: "config/smoke.yaml"


include: "workflow/rules/common.smk"


container: IMAGE


include: "workflow/rules/prepare.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/publish.smk"


# Every product is asked for: one that is missing is made again, and what failed fails again until its cause is removed.
rule all:
    default_target: True
    input:
        [
            RUN / "environment.json",
            MODEL,
            expand(REQUESTS, workload=CONFIG.workloads),
            PROCESSES,
            [
                RUN / name
                for name in (
                    "metrics.json",
                    "predicted/metrics.json",
                    "analysis.ipynb",
                    "claims.json",
                )
            ],
            RUN / "figures" / "figures.json",
            PAGE,
            AFTER_THE_PAGE,
        ]
        if CONFIG.workloads
        else [],
        SIMULATION,
