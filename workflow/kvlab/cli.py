"""One command a stage: a rule's shell line is what a person would type. A stage is imported when its command runs."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import kvlab
from kvlab import commands, measuring, predicting
from kvlab.dag.environment import take_over
from kvlab.errors import FULL, KvlabError, of_the_system
from kvlab.terminal import logging_to, say

Command = Callable[[argparse.Namespace], int]

EXAMPLES = """\
A whole run, stage by stage (Snakemake does the same, and remembers what is done):

  kvlab configure config/smoke.yaml
  kvlab probe     results/smoke
  kvlab model     results/smoke
  kvlab workload  results/smoke seed
  kvlab measure   results/smoke seed vllm-paged 0
  kvlab analyse   results/smoke
  kvlab notebook  results/smoke
  kvlab report    results/smoke
  kvlab verify    results/smoke/report.html

The paper's memory figures, simulated; no engine, no model:

  kvlab configure config/paper.yaml
  kvlab simulate  results/paper
  kvlab simulated results/paper
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvlab",
        description=kvlab.__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=kvlab.__version__)
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(function: Command, example: str, *arguments: tuple[str, dict]) -> None:
        text = (function.__doc__ or "").strip()
        sub = choices.add_parser(
            function.__name__.replace("_", "-"),
            help=text,
            description=text,
            epilog=f"Example:\n  kvlab {example}",
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
        commands.configure,
        "configure config/smoke.yaml",
        ("config", {"help": "a YAML or JSON file, or the JSON itself"}),
        output,
    )
    command(commands.schema, "schema > config/schema.json")
    command(
        commands.doctor,
        "doctor config/smoke.yaml",
        ("config", {"nargs": "?", "type": Path, "help": "what that run needs; without it, what any run might"}),
        ("--quiet", {"action": "store_true", "help": "name only what would stop the run"}),
    )
    command(completion, 'completion   # in ~/.bashrc: eval "$(kvlab completion)"')
    command(commands.probe, "probe results/smoke", run)
    command(commands.model, "model results/smoke", run)
    command(commands.workload, "workload results/smoke seed", run, of_workload)
    command(
        measuring.measure,
        "measure results/smoke seed vllm 0",
        run,
        of_workload,
        (
            "process",
            {"help": "a process (vllm: all arms that share its engine), or one arm"},
        ),
        ("block", {"type": int, "help": "which block: the repeat's number, from 0"}),
    )
    command(commands.analyse, "analyse results/smoke", run, output)
    command(commands.simulate, "simulate results/paper", run)
    command(commands.draw_simulation, "draw-simulation results/paper", run)
    command(commands.simulated, "simulated results/paper", run)
    command(
        commands.what_if,
        "what-if results/smoke pressured vllm-paged 0",
        run,
        of_workload,
        ("arm", {"help": "an arm that was measured"}),
        ("repeat", {"type": int, "help": "which repeat, from 0"}),
    )
    command(
        predicting.plan,
        "plan --model llama-3.1-8b --gpu 80GiB --lengths azure-conv --calibration results/reference/llama-8b",
        ("--model", {"required": True, "help": "a config.json, a folder, a name in the hub's cache, or a shape"}),
        ("--gpu", {"help": "its memory, e.g. 80GiB"}),
        ("--utilisation", {"type": float, "default": 0.92, "help": "part of it that the engine may use (0.92)"}),
        ("--weights", {"help": "their size, e.g. 15GiB, instead of counting them"}),
        ("--allowance", {"default": "2GiB", "help": "for activations and CUDA graphs (2GiB)"}),
        ("--kv-slots", {"type": int, "help": "the pool in tokens, instead of --gpu"}),
        ("--dtype", {"default": "bfloat16", "choices": ["bfloat16", "float16", "float32", "fp8"], "help": "of it all"}),
        ("--lengths", {"required": True, "help": "JSON Lines or CSV of lengths; azure-conv, sharegpt, paper"}),
        ("--max-model-len", {"type": int, "help": "longest prompt + output, tokens"}),
        ("--block-size", {"type": int, "default": 16, "help": "tokens (16)"}),
        ("--max-num-seqs", {"type": int, "help": "most requests at once; none: no bound"}),
        ("--rate", {"type": float, "help": "requests a second; needs --calibration"}),
        ("--bound", {"type": float, "default": 0.05, "help": "of the sustained rate, seconds an output token (0.05)"}),
        ("--calibration", {"type": Path, "help": "a run on this GPU and model with a vllm-paged arm"}),
        ("--seeds", {"type": int, "default": 3, "help": "how many (3)"}),
        ("--json", {"type": Path, "help": "write all numbers here"}),
        ("--html", {"type": Path, "help": "write a page in both languages here"}),
        ("--language", {"default": "en", "choices": ["en", "zh"], "help": "of the table, and of the page at first"}),
    )
    command(predicting.calibrate, "calibrate results/smoke", run)
    command(
        predicting.predict,
        "predict config/llama-8b.yaml --calibration results/reference/llama-8b",
        ("config", {"help": "a YAML or JSON file: the run that is to be predicted"}),
        ("--calibration", {"type": Path, "required": True, "help": "a run with a vllm-paged arm, packed or not"}),
        output,
    )
    logs = ("logs", {"type": Path, "help": "a run's folder, or any folder with raw folders in it, packed or not"})
    command(measuring.agree, "agree results/smoke", logs)
    command(commands.notebook, "notebook results/smoke", run)
    command(commands.report, "report results/smoke", run)
    command(
        commands.verify,
        "verify results/smoke/report.html",
        ("report", {"type": Path, "help": "the page; the run's folder is the one that it is in"}),
        output,
    )
    command(commands.summary, "summary results/smoke", run)
    command(
        commands.trace,
        "trace results/smoke pressured vllm-paged 0",
        run,
        of_workload,
        ("arm", {"help": "an arm that was measured"}),
        ("repeat", {"type": int, "help": "which repeat, from 0"}),
        output,
    )
    reference = ("reference", {"type": Path, "help": "a run's folder, packed or not"})
    command(
        commands.claims,
        "claims results/smoke",
        run,
        ("--only-write", {"action": "store_true", "help": "exit 0 also when a claim failed"}),
    )
    command(
        commands.compare,
        "compare results/smoke results/reference/smoke-cpu",
        run,
        reference,
        (
            "--margin",
            {"type": float, "default": 0.02, "help": "part of a value that counts as the same: 0.02"},
        ),
        ("--all", {"action": "store_true", "help": "list every quantity"}),
    )
    command(commands.crate, "crate results/smoke", run)
    command(
        commands.pack,
        "pack results/smoke results/reference/smoke-cpu",
        run,
        ("folder", {"type": Path, "help": "where to"}),
    )
    command(
        commands.repack,
        "repack results/reference/smoke-cpu",
        ("reference", {"type": Path, "help": "a packed run's folder"}),
    )
    command(
        commands.replay,
        "replay results/reference/smoke-cpu",
        reference,
        ("--into", {"type": Path, "help": "where to (default: results/replay/<name>)"}),
    )
    return parser


def completion(args: argparse.Namespace) -> int:
    """Print a script that lets bash and zsh complete commands and options."""
    from kvlab.completion import script

    sys.stdout.write(script(_parser()))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. A fault that the user can mend is one line on standard error and exit code 2."""
    args = _parser().parse_args(argv)
    try:
        with logging_to(args.log):
            return _run(args)
    except OSError as error:  # the log itself can't be written
        if error.filename is None:
            raise
        say(f"kvlab {args.command}: {of_the_system(error)}")
        return 2


def _run(args: argparse.Namespace) -> int:
    try:
        if args.log and isinstance(run := getattr(args, "run", None), Path):
            take_over(run)
        return int(args.function(args))
    except KvlabError as error:
        said, code = str(error), 2
    except KeyboardInterrupt:
        said, code = "interrupted; what was not finished is not written, give the command again", 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        error.filename = error.filename or str(getattr(args, "run", "a file"))
        said, code = of_the_system(error), 2
    except Exception as error:
        if any(os.strerror(one) in str(error) for one in FULL):  # in a library's own words
            said, code = f"{getattr(args, 'run', 'a file')}: {error}; make room there", 2
        elif args.log:
            with suppress(OSError):  # of the log
                traceback.print_exc()
            said, code = f"{type(error).__name__}: {error}; the traceback: {args.log}", 1
        else:
            raise
    say(f"kvlab {args.command}: {said}")
    return code
