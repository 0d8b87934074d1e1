# One process an arm and repeat. The slot `gpu` keeps two measurements from sharing a machine's GPU (or its cores).

RAW = RUN / "raw" / "{workload}" / "{arm}" / "{repeat}"


rule measure:
    input:
        lambda w: code("measure.run", f"measure.engines.{CONFIG.engine(w.arm)}"),
        model=RUN / "model" / "fingerprint.json",
        requests=RUN / "workloads" / "{workload}.jsonl",
    output:
        expand(str(RAW / "{file}"), file=RAW_FILES, allow_missing=True),
    log:
        LOGS / "measure" / "{workload}" / "{arm}" / "{repeat}.log",
    benchmark:
        COSTS / "measure" / "{workload}" / "{arm}" / "{repeat}.tsv"
    priority: lambda w: PLACE[w.workload, w.arm, int(w.repeat)]
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=60,
    params:
        run=RUN,
        section=lambda w: CONFIG.section("measure", w.workload, w.arm),
    shell:
        "python -m kvlab measure {params.run} {wildcards.workload} {wildcards.arm} {wildcards.repeat} --log {log}"
