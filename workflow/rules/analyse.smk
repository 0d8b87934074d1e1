# Raw logs become quantities.


rule analyse:
    input:
        code("analyse.metrics"),
        model=RUN / "model" / "fingerprint.json",
        raw=raw(*RAW_FILES),
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
