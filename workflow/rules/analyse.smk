# Raw logs become quantities.


rule analyse:
    input:
        code("analyse.metrics"),
        model=MODEL,
        requests=expand(str(REQUESTS), workload=CONFIG.workloads),
        raw=PROCESSES,
    output:
        RUN / "metrics.json",
    log:
        LOGS / "analyse.log",
    benchmark:
        COSTS / "analyse.tsv"
    params:
        run=RUN,
        section=CONFIG.section("analyse"),
    shell:
        "python -m kvlab analyse {params.run} --log {log}"


rule calibrate:
    input:
        code("simulate.forecasts.before"),
        [
            seen(path)
            for path in [ROOT / "config" / "predictions" / f"{CONFIG.run}.json"]
            if path.exists()
        ],
        metrics=RUN / "metrics.json",
        raw=PROCESSES,
    output:
        RUN / "predicted" / "metrics.json",
        RUN / "predicted" / "grid.json",
    log:
        LOGS / "calibrate.log",
    benchmark:
        COSTS / "calibrate.tsv"
    params:
        run=RUN,
        section=CONFIG.section("analyse"),
    shell:
        "python -m kvlab calibrate {params.run} --log {log}"
