"""Two ways of doing the same work, compared round by round.

One process that can play both loads once, warms up, and plays a round of each in turn; who begins changes every round,
so that drift falls on both. Where each side needs a process of its own, they never run at the same time, since one
GPU does not hold two engines: the first plays half of its rounds, then the second all of its own, then the first again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from kvlab.arms import ARMS  # noqa: E402
from kvlab.measure import machine  # noqa: E402
from kvlab.measure.engines import Engine, open_engine  # noqa: E402
from kvlab.measure.job import Feed, Job  # noqa: E402
from kvlab.measure.journal import Journal  # noqa: E402
from kvlab.records import Request  # noqa: E402

# Before torch is imported, which the tokenizer does: threads that wait for each other on a busy core cost 40 times.
os.environ.setdefault("OMP_NUM_THREADS", str(machine.threads(None)))


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that all comparisons share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="random:tiny", help="a folder, e.g. results/smoke/model, or random:SHAPE")
    made.add_argument("--requests", type=int, default=48, help="requests a round")
    made.add_argument("--scale", type=float, default=0.1, help="of the Azure trace's lengths")
    made.add_argument("--max-model-len", type=int, default=256)
    made.add_argument("--kv-slots", type=int, default=2048)
    made.add_argument("--dtype", default="float32", choices=list(machine.ITEM_BYTES))
    made.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    made.add_argument("--dummy", action="store_true", help="vLLM draws the weights of a random: model, none on disk")
    made.add_argument("--max-num-seqs", type=int)
    made.add_argument("--max-num-batched-tokens", type=int)
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--side", help=argparse.SUPPRESS)
    return made


def model_folder(args: argparse.Namespace) -> Path:
    """The folder itself, or a random model made once in the system's temporary folder, without weights if `--dummy`."""
    source: str = args.model
    if not source.startswith("random:"):
        return Path(source).resolve()
    name = source.removeprefix("random:") + ("-dummy" if args.dummy else "")
    folder = Path(tempfile.gettempdir()) / "kvlab-benchmark-models" / name
    if not (folder / "fingerprint.json").exists():
        from kvlab.prepare.model import prepare

        model = {"source": source, "revision": None, "sha256": None, "trust_remote_code": False, "seed": 0}
        prepare({"model": model} | ({"dummy": True} if args.dummy else {}), folder)
    return folder


def _vllm(args: argparse.Namespace) -> dict[str, object]:
    """Settings of vLLM that were given."""
    given = {"max_num_seqs": args.max_num_seqs, "max_num_batched_tokens": args.max_num_batched_tokens}
    given |= {"load_format": "dummy"} if args.dummy else {}
    return {name: value for name, value in given.items() if value is not None}


def requests(args: argparse.Namespace) -> list[Request]:
    """Lengths of the Azure trace, scaled, as texts whose token ids are known: some peers only take text."""
    from kvlab.prepare import lengths
    from kvlab.prepare.model import tokenizer

    most = args.max_model_len // 2  # any two of them fit a padded batch together
    drawn = lengths.resample(
        lengths.read_table(), args.requests, seed=0, scale=args.scale, max_prompt=most, max_output=most
    )
    encode = tokenizer(model_folder(args))
    letters = [f"{space}{letter}" for space in (" ", "") for letter in "aeioubcdfg"]
    pieces = [piece for piece in letters if len(encode(piece * 50)["input_ids"]) == 50]  # a token each
    made = []
    for id, (prompt, output) in enumerate(drawn.pairs()):
        text = pieces[id % len(pieces)] * prompt
        made.append(Request(id, encode(text)["input_ids"], output, text))
    return made


def on_cpu(args: argparse.Namespace) -> bool:
    """Whether the engines run on the CPU."""
    return machine.choose_device(args.device, len(machine.gpu_indices())) == "cpu"


def job(args: argparse.Namespace, arm: str, **settings: object) -> Job:
    """An arm's job, as a measurement would make it."""
    from kvlab.config.run import parse

    workload = {
        "requests": {"kind": "azure-conv"},
        "arms": [arm],
        "kv_slots": args.kv_slots,
        "max_model_len": args.max_model_len,
    }
    measured = {"device": args.device, "dtype": args.dtype, "vllm": _vllm(args)} | settings
    model = {"source": args.model}
    config = parse({"run": "benchmark", "model": model, "workloads": {"w": workload}, "measure": measured}, "benchmark")
    section = config.section("measure", "w", arm)
    entry, chosen = section["arm"], section["settings"]
    gpus = machine.gpu_indices()
    return Job(
        arm=arm,
        feed=entry["feed"],
        options=entry["options"],
        settings=chosen["engine"],
        model=model_folder(args),
        device=machine.choose_device(args.device, len(gpus)),
        gpus=len(gpus),
        dtype=args.dtype,
        threads=machine.threads(chosen["threads"]),
        kv_slots=args.kv_slots,
        max_model_len=args.max_model_len,
        record_steps=chosen["record_steps"],
        scratch=Path(tempfile.mkdtemp(prefix="kvlab-benchmark-")),
    )


def engine(args: argparse.Namespace, arm: str, **settings: object) -> Engine:
    """An arm's engine, loaded."""
    wanted = job(args, arm, **settings)
    made = open_engine(ARMS[arm].engine, wanted)
    made.load()
    made.compile()
    return made


Round = tuple[float, float, int]  # seconds, seconds of the worker's CPU, output tokens
Play = Callable[[], Round]


def timed(work: Callable[[], int]) -> Round:
    """Time `work`, which returns its output tokens."""
    began, began_cpu = time.perf_counter(), time.process_time()
    tokens = work()
    return time.perf_counter() - began, time.process_time() - began_cpu, tokens


def arm(engine: Engine, served: list[Request], name: str, recorded: bool = True) -> Play:
    """An arm as a measurement runs it: what it notes after the clock is not timed here either.

    `recorded`: whether the engine's scheduler notes the cache at every step; it can change from round to round.
    """
    feed = Feed(ARMS[name].feed, ARMS[name].options.get("policy"), record=recorded)

    def play() -> Round:
        journal = Journal(served)

        def serve() -> int:
            engine.serve(served, journal, feed)
            return journal.output_tokens

        took = timed(serve)
        engine.collect(journal)
        journal.check()
        if bool(journal.steps) != recorded:
            raise RuntimeError(f"{len(journal.steps)} steps were recorded, {recorded=}")
        return took

    return play


def serve_rounds(plays: dict[str, Play]) -> None:
    """The worker's side: play the round that each line on standard input names; answer with what it took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between
    for play in plays.values():
        play()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(plays[line.strip()]()), file=answers, flush=True)


class Worker:
    """The caller's side: a process that plays one side, or both."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        command = [sys.executable, *sys.argv, "--side", "|".join(names)]
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  what libraries print, shown where the worker fails
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True
        )
        self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.said.seek(0)
            raise SystemExit(f"{self.said.read()[-3000:]}\n{self.names}: stopped with exit code {code}, see above")
        return json.loads(line)

    def round(self, name: str) -> Round:
        """What one round took."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        seconds, cpu, tokens = self._answer()
        return seconds, cpu, tokens

    def close(self) -> None:
        """Let the worker go."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def _side_by_side(ours: str, theirs: str, rounds: int) -> dict[str, list[Round]]:
    samples: dict[str, list[Round]] = {ours: [], theirs: []}
    worker = Worker([ours, theirs])
    for number in range(rounds):
        for name in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            samples[name].append(worker.round(name))
    worker.close()
    return samples


def _in_turn(ours: str, theirs: str, rounds: int) -> dict[str, list[Round]]:
    """One process at a time: half of ours, all of theirs, the other half of ours."""
    samples: dict[str, list[Round]] = {ours: [], theirs: []}
    first = (rounds + 1) // 2
    for name, count in ((ours, first), (theirs, rounds), (ours, rounds - first)):
        if count:
            worker = Worker([name])
            samples[name] += [worker.round(name) for _ in range(count)]
            worker.close()
    return samples


def compare(ours: str, theirs: str, rounds: int, target: float, *, together: bool, on_cpu: bool) -> bool:
    """Run both, print every sample and the ratio ours / theirs of each round; whether the median meets the target.

    `together` has one process play both sides: the same weights in the same place, where two processes differ by some
    per cent for no other reason. Without it two processes play, one after the other. On a machine that does other
    things as well the clock measures poorly; `on_cpu` all work is done by the worker, so its own CPU time is compared,
    and decides.
    """
    samples = _side_by_side(ours, theirs, rounds) if together else _in_turn(ours, theirs, rounds)
    width = max(len(ours), len(theirs), 12) + 2

    def line(name: str, values: Sequence[float], digits: int, unit: str = "") -> None:
        print(f"  {name:{width}}" + " ".join(f"{value:9.{digits}f}" for value in values) + unit)

    def ratios(unit: int) -> list[float]:
        pairs = zip(samples[ours], samples[theirs], strict=True)
        return [(mine[2] / mine[unit]) / (other[2] / other[unit]) for mine, other in pairs]

    for name, taken in samples.items():
        line(name, [tokens / seconds for seconds, _, tokens in taken], 1, "  output tokens/s")
    line("ratio", ratios(0), 4, f"  median {statistics.median(ratios(0)):.4f}")
    if on_cpu:
        line("by CPU time", ratios(1), 4, f"  median {statistics.median(ratios(1)):.4f}")
    found = ratios(1 if on_cpu else 0)
    median = statistics.median(found)
    print(
        f"  {'by CPU time: ' if on_cpu else ''}{median:.4f} ({min(found):.4f} to {max(found):.4f}, {rounds} rounds), "
        f"target at least {target}: {'met' if median >= target else 'MISSED'}; load {os.getloadavg()[0]:.1f}\n",
        flush=True,
    )
    return median >= target
