# One process an arm and repeat. The slot `machine` keeps two of them from sharing a GPU or its cores on one machine (the
# default profile has one); a cluster's scheduler sees to it by `gpu`, and runs the arms on as many nodes as there are.

RAW = RUN / "raw" / "{workload}" / "{arm}" / "{repeat}"


rule measure:
    input:
        lambda w: code("measure.run", f"measure.engines.{CONFIG.engine(w.arm)}.driver"),
        model=MODEL,
        requests=REQUESTS,
    output:
        expand(str(RAW / "{file}"), file=RAW_FILES, allow_missing=True),
    log:
        LOGS / "measure" / "{workload}" / "{arm}" / "{repeat}.log",
    benchmark:
        COSTS / "measure" / "{workload}" / "{arm}" / "{repeat}.tsv"
    priority: lambda w: PLACE[w.workload, w.arm, int(w.repeat)]
    resources:
        machine=1,
        gpu=gpus,
        mem_mb=16000,
        runtime=60,
    params:
        run=RUN,
        section=lambda w: CONFIG.section("measure", w.workload, w.arm),
    shell:
        "python -m kvlab measure {params.run} {wildcards.workload} {wildcards.arm} {wildcards.repeat} --log {log}"
