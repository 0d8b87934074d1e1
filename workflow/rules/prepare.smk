# What is needed before anything is measured: the machine, the model, the requests.


rule probe:
    input:
        code("prepare.probe"),
    output:
        RUN / "environment.json",
    log:
        LOGS / "probe.log",
    benchmark:
        COSTS / "probe.tsv"
    priority: 3000  # before the engines heat the machine
    resources:
        gpu=int(CONFIG.measure.device != "cpu"),
    params:
        run=RUN,
    shell:
        "python -m kvlab probe {params.run} --log {log}"


rule model:
    input:
        code("prepare.model"),
    output:
        MODEL,
    log:
        LOGS / "model.log",
    benchmark:
        COSTS / "model.tsv"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        run=RUN,
        section=CONFIG.section("model"),
    shell:
        "python -m kvlab model {params.run} --log {log}"


rule workload:
    input:
        code("prepare.workload"),
        model=MODEL,
        files=lambda w: CONFIG.files(w.workload),
    output:
        REQUESTS,
    log:
        LOGS / "workload" / "{workload}.log",
    benchmark:
        COSTS / "workload" / "{workload}.tsv"
    priority: 2000
    params:
        run=RUN,
        section=lambda w: CONFIG.section("workload", w.workload),
    shell:
        "python -m kvlab workload {params.run} {wildcards.workload} --log {log}"
