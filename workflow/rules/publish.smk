# The notebook with its figures, the page, and the check that its numbers are those of the logs.


rule notebook:
    input:
        code("publish.notebook", "publish.figures.drawing"),
        own("workflow/notebooks/analysis.ipynb"),
        own("report/figures.en.yaml"),
        own("report/figures.zh.yaml"),
        metrics=RUN / "metrics.json",
        raw=PROCESSES,
    output:
        notebook=shown(RUN / "analysis.ipynb", "notebook"),
        figures=RUN / "figures" / "figures.json",
    log:
        LOGS / "notebook.log",
    benchmark:
        COSTS / "notebook.tsv"
    resources:
        runtime=30,
    params:
        run=RUN,
        section=CONFIG.section("notebook"),
    shell:
        "python -m kvlab notebook {params.run} --log {log}"


rule claims:
    input:
        code("publish.check.claims"),
        own("report/claims.yaml"),
        metrics=RUN / "metrics.json",
        predicted=RUN / "predicted" / "metrics.json",
    output:
        shown(RUN / "claims.json", "claims"),
    log:
        LOGS / "claims.log",
    params:
        run=RUN,
    shell:
        "python -m kvlab claims {params.run} --only-write --log {log}"


rule report:
    input:
        code("publish.page.render"),
        [
            seen(path)
            for path in sorted((ROOT / "report").rglob("*"))
            if path.is_file() and path.parent.name != "screenshots"
        ],
        metrics=RUN / "metrics.json",
        figures=RUN / "figures" / "figures.json",
        claims=RUN / "claims.json",
        environment=RUN / "environment.json",
        simulated=SIMULATION,
    output:
        shown(PAGE, "page"),
    log:
        LOGS / "report.log",
    benchmark:
        COSTS / "report.tsv"
    params:
        run=RUN,
        section=CONFIG.section("report"),
    shell:
        "python -m kvlab report {params.run} --log {log}"


rule verify:
    input:
        code("publish.check.verify"),
        page=PAGE,
        metrics=RUN / "metrics.json",
        raw=PROCESSES,
    output:
        shown(RUN / "verify.json", "verified"),
    log:
        LOGS / "verify.log",
    benchmark:
        COSTS / "verify.tsv"
    shell:
        "python -m kvlab verify {input.page} --output {output} --log {log}"


rule crate:
    input:
        code("publish.check.crate"),
        verified=RUN / "verify.json",
    output:
        RUN / "ro-crate-metadata.json",
    log:
        LOGS / "crate.log",
    params:
        run=RUN,
    shell:
        "python -m kvlab crate {params.run} --log {log}"
