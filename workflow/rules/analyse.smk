# Raw logs become quantities.


rule analyse:
    input:
        code("analyse.metrics"),
        config=ancient(RUN / "config.json"),
        model=RUN / "model" / "fingerprint.json",
        raw=raw(*RAW_FILES),
    output:
        RUN / "metrics.json",
    params:
        section=CONFIG.section("analyse"),
    log:
        LOGS / "analyse.log",
    benchmark:
        COSTS / "analyse.tsv"
    shell:
        "python -m kvlab analyse {RUN} --log {log}"
