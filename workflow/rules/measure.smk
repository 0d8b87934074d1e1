# A rule an engine, from the registry: workflow/kvlab/measure/engines/. A job is a process: it loads the engine once and
# measures the passes of a block that are not measured yet. Its product lists their raw logs, raw/<workload>/<pass>/<block>/,
# and passes that depend on nothing which changed are taken from results/<run>/.passes. The slot `machine` keeps two
# processes from sharing a GPU or its cores on one machine (the default profile has one); a cluster's scheduler sees to it
# by `gpu`, and runs them on as many nodes as there are.
for engine in engines():

    rule:
        name:
            f"measure_{engine}"
        input:
            code("measure.run", f"measure.engines.{engine}.driver"),
            model=MODEL,
            requests=REQUESTS,
        output:
            PROCESS,
        log:
            LOGS / "measure" / "{workload}" / "{process}" / "{block}.log",
        benchmark:
            COSTS / "measure" / "{workload}" / "{process}" / "{block}.tsv"
        wildcard_constraints:
            process="|".join(CONFIG.processes_of(engine)) or "(?!)",
        priority: lambda w: PLACE[w.workload, w.process, int(w.block)]
        resources:
            machine=1,
            gpu=gpus,
            mem_mb=lambda w, attempt: 16000 * attempt,
            runtime=minutes,
        params:
            run=RUN,
            passes=passes,
        shell:
            "python -m kvlab measure {params.run} {wildcards.workload} {wildcards.process} {wildcards.block} --log {log}"
