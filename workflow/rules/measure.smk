# One process an arm and repeat. The slot `gpu` keeps two measurements from sharing a machine's GPU (or its cores).
from kvlab.records import RAW_FILES

RAW = RUN / "raw" / "{workload}" / "{arm}" / "{repeat}"


def raw(*names):
    """The raw files of all of the run's measurements."""
    return [str(RUN / "raw" / w / a / str(r) / name) for w, a, r in CONFIG.raw() for name in names]


rule measure:
    input:
        lambda w: code("measure.run", f"measure.engines.{CONFIG.engine(w.arm)}"),
        config=ancient(RUN / "config.json"),
        model=RUN / "model" / "fingerprint.json",
        requests=RUN / "workloads" / "{workload}.jsonl",
        environment=ancient(RUN / "environment.json"),
    output:
        expand(str(RAW / "{file}"), file=RAW_FILES, allow_missing=True),
    params:
        section=lambda w: CONFIG.section("measure", w.workload, w.arm),
    # Repeat by repeat, so that drift of clocks and heat falls on all arms alike.
    priority: 100
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=60,
    log:
        LOGS / "measure" / "{workload}" / "{arm}" / "{repeat}.log",
    benchmark:
        COSTS / "measure" / "{workload}" / "{arm}" / "{repeat}.tsv"
    shell:
        "python -m kvlab measure {RUN} {wildcards.workload} {wildcards.arm} {wildcards.repeat} --log {log}"
