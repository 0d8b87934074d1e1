"""The commands: each loads its section, runs its stage, and prints the result in a line.

A stage is imported when its command runs, so that probing, analysing and reporting work without the engines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kvlab import config, paths, terminal
from kvlab.config import documents
from kvlab.errors import KvlabError
from kvlab.terminal import say


def loaded(run: Path) -> config.Config:
    """The configuration of a run."""
    file = run / "config.json"
    if not file.exists():
        raise KvlabError(f"{file}: no such file; make it with: python -m kvlab configure config/smoke.yaml")
    return config.load(file)


def configure(args: argparse.Namespace) -> int:
    """Check a configuration and write it, with all defaults, to results/<run>/config.json."""
    if args.config.lstrip().startswith("{"):
        parsed = config.parse(documents.understand(args.config, "configuration"), "configuration")
    else:
        parsed = config.load(Path(args.config))
    from kvlab.records import write_json

    write_json(args.output or Path("results") / parsed.run / "config.json", parsed.model_dump(mode="json"))
    return 0


def schema(args: argparse.Namespace) -> int:
    """Print the JSON schema of a configuration."""
    sys.stdout.write(config.schema())
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Say what this machine can run and what it lacks; exit code 1 where the run of `config` could not be made."""
    from kvlab.prepare import doctor as stage

    parsed = config.load(args.config).model_dump(mode="json") if args.config else None
    found = stage.examine(Path("results"), parsed)
    for line in stage.lines(found, everything=not args.quiet):
        print(line)
    return int(parsed is not None and any(finding.stops and not finding.fine for finding in found))


def probe(args: argparse.Namespace) -> int:
    """Record the machine, driver, packages, code and container: environment.json."""
    from kvlab.prepare import probe as stage

    found = stage.write(args.run / "environment.json")
    gpus = ", ".join(gpu["name"] for gpu in found["gpus"]) or "no GPU"
    say(f"probe: {found['machine']['cpu']}, {found['machine']['cores_usable']} cores, {gpus}")
    return 0


def model(args: argparse.Namespace) -> int:
    """Fetch the model, make sure it is what it should be, and write its fingerprint: model/."""
    from kvlab.prepare import model as stage

    found = stage.prepare(loaded(args.run).section("model"), args.run / "model")
    say(f"model: {found['source']}, {found['architecture']}, {found['parameters'] / 1e6:.1f} M parameters")
    return 0


def workload(args: argparse.Namespace) -> int:
    """Make the requests of one workload as token ids: workloads/<workload>.jsonl."""
    from kvlab.prepare import workload as stage

    section = loaded(args.run).section("workload", _known(args, args.workload))
    made = stage.make(section, args.run / "model", args.run / "workloads" / f"{args.workload}.jsonl")
    prompt, output = sum(len(r.prompt_token_ids) for r in made), sum(r.max_new_tokens for r in made)
    say(f"workload {args.workload}: {len(made)} requests, {prompt} prompt tokens, {output} output tokens")
    return 0


def analyse(args: argparse.Namespace) -> int:
    """Turn the raw logs into quantities with their sources: metrics.json."""
    from kvlab.analyse import metrics as stage
    from kvlab.raw import foreign

    section = loaded(args.run).section("analyse")
    if faults := foreign(args.run, [*section["raw"], *section.get("open", [])]):
        raise KvlabError("; ".join(faults))
    made = stage.analyse(section, args.run)
    made.write(args.output or args.run / "metrics.json")
    say(f"analyse: {len(made.quantities)} quantities from {len(made.files)} raw logs")
    return 0


def simulate(args: argparse.Namespace) -> int:
    """Simulate what contiguous and paged allocators hold, and judge the paper's values beside ours: simulated/."""
    from kvlab.simulate.studies import stage

    made = stage.simulate(_simulation(args), args.run)
    say(f"simulate: {len(made.quantities)} quantities from {len(made.files)} simulated logs")
    return 0


def draw_simulation(args: argparse.Namespace) -> int:
    """Draw the simulation's figures: simulated/figures/."""
    from kvlab.publish.figures import simulation as stage

    drawn = stage.draw(_simulation(args), args.run, loaded(args.run).report.palette)
    say(f"draw-simulation: {drawn} figures; the paper's values beside ours: python -m kvlab simulated {args.run}")
    return 0


def simulated(args: argparse.Namespace) -> int:
    """Print the paper's values beside the simulated ones."""
    from kvlab.publish import simulation_table
    from kvlab.simulate.studies import stage

    found = stage.read_quantities(args.run), stage.read_traces(args.run)
    simulation_table.show_claims(stage.read_claims(args.run), *found)
    terminal.show(f"\nfigures: {(args.run / 'simulated' / 'figures').resolve()}")
    return 0


def what_if(args: argparse.Namespace) -> int:
    """Serve a measured run's requests again from simulated pools: what each allocator would have held."""
    from kvlab.publish import simulation_table
    from kvlab.raw import RawRun
    from kvlab.simulate import counterfactual as stage

    raw = RawRun.read(args.run, args.workload, args.arm, args.repeat)
    simulation_table.show_replay(stage.quantities(raw, f"{args.workload}.{args.arm}"), raw)
    return 0


def notebook(args: argparse.Namespace) -> int:
    """Execute the analysis notebook with papermill: analysis.ipynb and figures/."""
    from kvlab.publish import notebook as stage

    drawn = stage.execute(loaded(args.run).section("notebook"), args.run)
    say(f"notebook: {drawn} figures")
    return 0


def report(args: argparse.Namespace) -> int:
    """Render the self-contained page: report.html."""
    from kvlab.publish.page import render as stage

    page = stage.render(loaded(args.run).section("report"), args.run)
    say(f"report: {args.run / 'report.html'}, {len(page) / 1024:.0f} KiB")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Compute what a page shows anew from the raw logs, check every digest, and say what can't be proved here."""
    from kvlab.publish.check import verify as stage

    found = stage.verify(args.report, loaded(args.report.parent).section)
    for fault in found.faults:
        terminal.show(fault)
    if args.output:
        stage.write(args.output, found)
    if found.faults:
        raise KvlabError(f"{args.report}: {len(found.faults)} faults; the lines above name them")
    for what in found.not_proved:
        terminal.show(f"not proved: {what}")
    counted = ", ".join(f"{count} {what}" for what, count in found.checked.items())
    terminal.show(f"{counted}: all as they should be")
    return 0


def trace(args: argparse.Namespace) -> int:
    """Write one measured run as a trace for ui.perfetto.dev: traces/<workload>.<arm>.<repeat>.json."""
    from kvlab.publish import trace as stage
    from kvlab.raw import RawRun

    file = args.output or args.run / "traces" / f"{args.workload}.{args.arm}.{args.repeat}.json"
    count = stage.write(RawRun.read(args.run, args.workload, args.arm, args.repeat), file)
    say(f"trace: {count} events; open {file} in ui.perfetto.dev")
    return 0


def summary(args: argparse.Namespace) -> int:
    """Print the headlines of a run."""
    from kvlab.publish import summary as stage

    stage.show(args.run)
    return 0


def claims(args: argparse.Namespace) -> int:
    """Hold a run against the claims of report/claims.yaml; a failed one makes the exit code 1."""
    from kvlab.publish.check import claims as stage

    verdicts = stage.write(args.run)
    if not args.only_write:
        return 1 if stage.show(verdicts) else 0
    counts = {name: sum(v["verdict"] == name for v in verdicts) for name in ("held", "failed", "not decided")}
    say("claims: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    return 0


def compare(args: argparse.Namespace) -> int:
    """Whether two runs' conclusions agree, then the quantities that matter; exit code 1 where a conclusion differs."""
    from kvlab.publish.check import compare as stage

    return 1 if stage.show(stage.compare(args.run, args.reference, args.margin), everything=args.all) else 0


def crate(args: argparse.Namespace) -> int:
    """Describe a run as a Workflow Run RO-Crate: ro-crate-metadata.json."""
    from kvlab.publish.check import crate as stage

    stage.describe(args.run, paths.ROOT)
    return 0


def pack(args: argparse.Namespace) -> int:
    """Pack a run, raw logs and all, into a folder that can be committed."""
    from kvlab.publish.check import packed as stage

    size = stage.pack(args.run, args.folder)
    say(f"pack: {args.folder}, {size / 1e6:.2f} MB")
    return 0


def repack(args: argparse.Namespace) -> int:
    """Pack a reference anew from its own raw logs, after the quantities or their ids have changed."""
    from kvlab.publish.check import packed as stage

    size = stage.repack(args.reference)
    say(f"repack: {args.reference}, {size / 1e6:.2f} MB")
    return 0


def replay(args: argparse.Namespace) -> int:
    """Recompute everything after the measurements from a packed run's raw logs, and compare; needs no engine."""
    from kvlab.publish.check import packed as stage

    run = args.into or Path("results") / "replay" / args.reference.resolve().name
    faults = stage.unpack(args.reference, run)
    if not faults:
        faults = stage.replay(args.reference, run)
    for fault in faults:
        terminal.show(fault)
    if faults:
        raise KvlabError(f"{args.reference}: does not replay; the lines above name what differs")
    terminal.show(f"{args.reference}: the same metrics, byte for byte; {run / 'report.html'}")
    return 0


def _simulation(args: argparse.Namespace) -> dict[str, Any]:
    section = loaded(args.run).section("simulate")
    if not section:
        raise KvlabError(f"{args.run / 'config.json'}: has no simulation; config/paper.yaml shows one")
    return section


def _known(args: argparse.Namespace, name: str) -> str:
    known = loaded(args.run).workloads
    if name not in known:
        raise KvlabError(f"no workload {name!r} in {args.run / 'config.json'}; it has: {', '.join(known)}")
    return name
