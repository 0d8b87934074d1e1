# The memory figures of the paper, simulated: no engine, no model, no GPU. Asked for by config/paper.yaml.


rule simulate:
    input:
        code("simulate.studies.stage"),
        own("config/data/azure-conv-lengths.csv"),
        own("config/data/paper-values.yaml"),
        CONFIG.simulation_files(),
    output:
        SIMULATED / "metrics.json",
        SIMULATED / "claims.json",
        SIMULATED / "table1.jsonl",
    log:
        LOGS / "simulate.log",
    benchmark:
        COSTS / "simulate.tsv"
    params:
        run=RUN,
        section=CONFIG.section("simulate"),
    shell:
        "python -m kvlab simulate {params.run} --log {log}"


rule draw_simulation:
    input:
        code("publish.figures.simulation"),
        own("report/simulation.en.yaml"),
        own("report/simulation.zh.yaml"),
        metrics=SIMULATED / "metrics.json",
    output:
        SIMULATED / "figures" / "figures.json",
    log:
        LOGS / "draw-simulation.log",
    benchmark:
        COSTS / "draw-simulation.tsv"
    params:
        run=RUN,
        section=CONFIG.section("simulate"),
        palette=CONFIG.report.palette,
    shell:
        "python -m kvlab draw-simulation {params.run} --log {log}"
