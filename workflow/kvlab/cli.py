"""One command a stage: a rule's shell line is what a person would type. Stages are imported when asked for."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from kvlab import __version__, config
from kvlab.errors import KvlabError
from kvlab.terminal import logging_to, say, stream

Command = Callable[[argparse.Namespace], int]

EXAMPLES = """\
A whole run, stage by stage (Snakemake does the same, and remembers what is done):

  python -m kvlab configure config/smoke.yaml
  python -m kvlab probe     results/smoke
  python -m kvlab model     results/smoke
  python -m kvlab workload  results/smoke seed
  python -m kvlab measure   results/smoke seed vllm-paged 0
  python -m kvlab analyse   results/smoke
  python -m kvlab notebook  results/smoke
  python -m kvlab report    results/smoke
  python -m kvlab verify    results/smoke/report.html
"""


def _loaded(run: Path) -> config.Config:
    file = run / "config.json"
    if not file.exists():
        raise KvlabError(f"{file}: no such file; make it with: python -m kvlab configure config/smoke.yaml")
    return config.load(file)


def configure(args: argparse.Namespace) -> int:
    """Check a configuration and write it, with all defaults, to results/<run>/config.json."""
    if args.config.lstrip().startswith("{"):
        parsed = config.parse(json.loads(args.config), "configuration")
    else:
        parsed = config.load(Path(args.config))
    from kvlab.records import write_json

    write_json(args.output or Path("results") / parsed.run / "config.json", parsed.model_dump(mode="json"))
    return 0


def schema(args: argparse.Namespace) -> int:
    """Print the JSON schema of a configuration."""
    sys.stdout.write(config.schema())
    return 0


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

    found = stage.prepare(_loaded(args.run).section("model"), args.run / "model")
    say(f"model: {found['source']}, {found['architecture']}, {found['parameters'] / 1e6:.1f} M parameters")
    return 0


def workload(args: argparse.Namespace) -> int:
    """Make the requests of one workload as token ids: workloads/<workload>.jsonl."""
    from kvlab.prepare import workload as stage

    section = _loaded(args.run).section("workload", _known(args, args.workload))
    made = stage.make(section, args.run / "model", args.run / "workloads" / f"{args.workload}.jsonl")
    prompt, output = sum(len(r.prompt_token_ids) for r in made), sum(r.max_new_tokens for r in made)
    say(f"workload {args.workload}: {len(made)} requests, {prompt} prompt tokens, {output} output tokens")
    return 0


def measure(args: argparse.Namespace) -> int:
    """Run one arm on one workload, once, and write its raw logs: raw/<workload>/<arm>/<repeat>/."""
    from kvlab.measure import run as stage

    section = _loaded(args.run).section("measure", _known(args, args.workload), args.arm)
    stage.measure(
        section,
        workload=args.workload,
        arm=args.arm,
        repeat=args.repeat,
        requests_file=args.run / "workloads" / f"{args.workload}.jsonl",
        model=args.run / "model",
        folder=args.run / "raw" / args.workload / args.arm / str(args.repeat),
    )
    return 0


def analyse(args: argparse.Namespace) -> int:
    """Turn the raw logs into quantities with their sources: metrics.json."""
    from kvlab.analyse import metrics as stage

    made = stage.analyse(_loaded(args.run).section("analyse"), args.run)
    made.write(args.output or args.run / "metrics.json")
    say(f"analyse: {len(made.quantities)} quantities from {len(made.files)} raw logs")
    return 0


def notebook(args: argparse.Namespace) -> int:
    """Execute the analysis notebook with papermill: analysis.ipynb and figures/."""
    from kvlab.publish import notebook as stage

    drawn = stage.execute(_loaded(args.run).section("notebook"), args.run)
    say(f"notebook: {drawn} figures")
    return 0


def report(args: argparse.Namespace) -> int:
    """Render the self-contained page: report.html."""
    from kvlab.publish import report as stage

    page = stage.render(_loaded(args.run).section("report"), args.run)
    say(f"report: {args.run / 'report.html'}, {len(page) / 1024:.0f} KiB")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Recompute every number of a report from the raw logs and check every digest; each fault is one line."""
    from kvlab.publish import verify as stage

    run = args.report.parent
    faults, checked = stage.verify(args.report, _loaded(run).section("analyse"), _loaded(run).section("report"))
    for fault in faults:
        say(f"verify: {fault}")
    if args.output:
        stage.write(args.output, faults, checked)
    if faults:
        raise KvlabError(f"{args.report}: {len(faults)} faults; the lines above name them")
    say("verify: " + ", ".join(f"{count} {what}" for what, count in checked.items()) + ": all as they should be")
    return 0


def summary(args: argparse.Namespace) -> int:
    """Print the headlines of a run."""
    from kvlab.publish import summary as stage

    stage.show(args.run)
    return 0


def _known(args: argparse.Namespace, name: str) -> str:
    known = _loaded(args.run).workloads
    if name not in known:
        raise KvlabError(f"no workload {name!r} in {args.run / 'config.json'}; it has: {', '.join(known)}")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvlab",
        description=__import__("kvlab").__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(function: Command, example: str, *arguments: tuple[str, dict]) -> None:
        text = (function.__doc__ or "").strip()
        sub = commands.add_parser(
            function.__name__.replace("_", "-"),
            help=text,
            description=text,
            epilog=f"Example:\n  python -m kvlab {example}",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        for name, options in arguments:
            sub.add_argument(name, **options)
        sub.add_argument("--log", type=Path, help="write what libraries print to this file")
        sub.set_defaults(function=function)

    run = ("run", {"type": Path, "help": "the run's folder, e.g. results/smoke"})
    output = ("--output", {"type": Path, "help": "write here instead"})
    of_workload = ("workload", {"help": "a workload of the configuration"})
    command(
        configure,
        "configure config/smoke.yaml",
        ("config", {"help": "a YAML or JSON file, or the JSON itself"}),
        output,
    )
    command(schema, "schema > config/schema.json")
    command(probe, "probe results/smoke", run)
    command(model, "model results/smoke", run)
    command(workload, "workload results/smoke seed", run, of_workload)
    command(
        measure,
        "measure results/smoke seed vllm-paged 0",
        run,
        of_workload,
        ("arm", {"help": "an arm, see workflow/kvlab/arms.py"}),
        ("repeat", {"type": int, "help": "which repeat, from 0"}),
    )
    command(analyse, "analyse results/smoke", run, output)
    command(notebook, "notebook results/smoke", run)
    command(report, "report results/smoke", run)
    command(
        verify,
        "verify results/smoke/report.html",
        ("report", {"type": Path, "help": "the page; its run's folder is where it lies"}),
        output,
    )
    command(summary, "summary results/smoke", run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. A fault that the user can mend is one line on standard error and exit code 2."""
    args = _parser().parse_args(argv)
    with logging_to(args.log):
        try:
            return int(args.function(args))
        except KvlabError as error:
            say(f"kvlab {args.command}: {error}")
            return 2
        except OSError as error:
            if error.filename is None:
                raise
            say(f"kvlab {args.command}: {error.filename}: {error.strerror}; check that it exists and can be written")
            return 2
        except Exception as error:
            if not args.log:
                raise
            traceback.print_exc()
            stream().write(f"kvlab {args.command}: {type(error).__name__}: {error}; the whole story: {args.log}\n")
            return 1
