# The table of contents. What is run: config/*.yaml. How: workflow/rules/, one file for each wing of workflow/kvlab.
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


rule all:
    default_target: True
    input:
        [
            RUN / name
            for name in ("report.html", "verify.json", "ro-crate-metadata.json")
            if CONFIG.workloads
        ],
        [SIMULATED / "figures" / "figures.json"] if CONFIG.simulation else [],
