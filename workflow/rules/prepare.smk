# What is needed before anything is measured: the configuration, the machine, the model, the requests.


rule configure:
    output:
        RUN / "config.json",
    params:
        resolved=CONFIG.model_dump_json(),
    log:
        LOGS / "configure.log",
    localrule: True
    shell:
        "python -m kvlab configure {params.resolved:q} --output {output} --log {log}"


rule probe:
    input:
        code("prepare.probe"),
    output:
        RUN / "environment.json",
    resources:
        gpu=1,
    log:
        LOGS / "probe.log",
    benchmark:
        COSTS / "probe.tsv"
    shell:
        "python -m kvlab probe {RUN} --log {log}"


rule model:
    input:
        code("prepare.model"),
        config=ancient(RUN / "config.json"),
    output:
        RUN / "model" / "fingerprint.json",
    params:
        section=CONFIG.section("model"),
    resources:
        mem_mb=8000,
        runtime=60,
    log:
        LOGS / "model.log",
    benchmark:
        COSTS / "model.tsv"
    shell:
        "python -m kvlab model {RUN} --log {log}"


rule workload:
    input:
        code("prepare.workload"),
        config=ancient(RUN / "config.json"),
        model=RUN / "model" / "fingerprint.json",
        files=lambda w: CONFIG.files(w.workload),
    output:
        RUN / "workloads" / "{workload}.jsonl",
    params:
        section=lambda w: CONFIG.section("workload", w.workload),
    log:
        LOGS / "workload" / "{workload}.log",
    benchmark:
        COSTS / "workload" / "{workload}.tsv"
    shell:
        "python -m kvlab workload {RUN} {wildcards.workload} --log {log}"
