"""What the user sees of a run: one line with its progress, the stages' own results, and failures last, in full.

Snakemake finds this package by its name (`--logger kvlab`; the profiles ask for it). Where standard error is no
terminal the line is left out. With --verbose, and in a dry run, Snakemake's own messages appear instead.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from logging import WARNING, LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from kvlab.config.documents import read
from kvlab.errors import ConfigError

VARIABLE = "KVLAB_PROGRESS"  # names a folder in which a stage says how far it is; kvlab.terminal writes there
REFRESH_S = 0.5
ENOUGH = 3  # finished jobs before the time left is estimated

# Messages of Snakemake that are the same in every run.
CHATTER = re.compile(
    r"Using (workflow specific )?profile|Using shell|Building DAG|Provided (cores|resources)|host: |Rules claiming|"
    r"Elapsed time|Select jobs|Execute \d+ jobs|Assuming unrestricted|Job stats|Finished job|Complete log|Shutting|"
    r"Exiting because a job|Removing output files of failed|Removing temporary|Will exit after|Singularity containers|"
    r"Activating singularity|WorkflowError:\s+At least one job|"
    # what a command of ours ends with; its own line says why
    r"RuleException:\s+CalledProcessError in file .*\s+Command '[^']*' returned non-zero exit status (1|2|130)\.|"
    r"Config file \S+ is extended|\s*$"
)


class LogHandler(LogHandlerBase):
    """Snakemake's log records in, lines on standard error out."""

    def __post_init__(self) -> None:
        self.live = False
        refuse_unreadable(sys.argv[1:])
        if not self.writes_to_stream:
            return
        self.done = self.total = 0
        self.left: dict[str, int] = {}  # rule -> jobs to come
        self.jobs: dict[int, tuple[str, str, float]] = {}  # running: id -> rule, title, when it began
        self.took: dict[str, list[float]] = {}  # rule -> seconds of the jobs that are done
        self.failures: list[str] = []
        self.drawn = False
        self.live = sys.stderr.isatty()
        if self.live:
            self.folder = Path(tempfile.mkdtemp(prefix="kvlab-progress-"))
            os.environ[VARIABLE] = str(self.folder)
            self.over = threading.Event()
            self.ticker = threading.Thread(target=self._tick, daemon=True)
            self.ticker.start()

    @property
    def writes_to_stream(self) -> bool:
        """Whether this handler replaces Snakemake's own."""
        return not (self.common_settings.verbose or self.common_settings.dryrun)

    writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True

    def emit(self, record: LogRecord) -> None:
        """Keep what one record says; print it if it is for the user."""
        if not self.writes_to_stream:
            return
        event, facts = getattr(record, "event", None), record.__dict__
        if event == LogEvent.RUN_INFO:
            self.left = {name: n for name, n in facts["stats"].items() if name not in ("all", "total")}
            self.total = facts["stats"].get("total", 0)
        elif event == LogEvent.JOB_INFO:
            self.jobs[facts["jobid"]] = (facts["rule_name"], title(facts), time.monotonic())
        elif event == LogEvent.JOB_FINISHED:
            self._finished(facts["job_id"])
        elif event == LogEvent.PROGRESS:
            self.done, self.total = facts["done"], facts["total"]
        elif event == LogEvent.JOB_ERROR:
            ended = self._ended(facts["jobid"])
            self.failures.append(failure(ended[1] if ended else facts["rule_name"], facts["log"]))
        elif event in (None, LogEvent.ERROR) and not CHATTER.match(text := str(record.msg or "")):
            self._print(text if record.levelno < WARNING else text.strip())

    def close(self) -> None:
        """The failures, each with its log; then how to go on."""
        if self.live:
            self.over.set()
            self.ticker.join()
            self._erase()
            shutil.rmtree(self.folder, ignore_errors=True)
            os.environ.pop(VARIABLE, None)
            self.live = False
        if self.writes_to_stream and self.failures:
            for text in self.failures:
                self._print(text)
            self._print(
                f"{len(self.failures)} of {self.total} jobs failed, {self.done} are done and stay: "
                "once the cause is removed, the same command continues from there"
            )
            self.failures = []
        super().close()

    def _finished(self, job: int) -> None:
        if ended := self._ended(job):
            rule, _, began = ended
            self.took.setdefault(rule, []).append(time.monotonic() - began)
            self.left[rule] = self.left.get(rule, 1) - 1

    def _ended(self, job: int) -> tuple[str, str, float] | None:
        ended = self.jobs.pop(job, None)
        if self.live and not self.jobs:  # the stage's last message is outdated
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self._erase()
        return ended

    def _print(self, text: str) -> None:
        self._erase()
        print(text, file=sys.stderr, flush=True)

    def _erase(self) -> None:
        if self.drawn:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        self.drawn = False

    def _tick(self) -> None:
        while not self.over.wait(REFRESH_S):
            if self.jobs and (line := self.line(time.monotonic())):
                width = shutil.get_terminal_size().columns
                print(f"\r\x1b[2K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
                self.drawn = True

    def line(self, now: float) -> str:
        """Where the run is: jobs done of all, what runs and for how long, its own message, the time left."""
        running = list(self.jobs.values())
        messages = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.folder.glob("[0-9]*"))]
        parts = [f"{self.done}/{self.total}"]
        parts += messages or [f"{name}, {span(now - began)}" for _, name, began in running]
        if left := self.time_left(now):
            parts.append(f"about {span(left)} left")
        return "  ".join(parts)

    def time_left(self, now: float) -> float | None:
        """Seconds, by the mean of the jobs of the same rule that are done; None while too few are."""
        times = [took for rule in self.took.values() for took in rule]
        if len(times) < ENOUGH:
            return None
        usual = sum(times) / len(times)
        means = {rule: sum(took) / len(took) for rule, took in self.took.items()}
        to_come = sum(n * means.get(rule, usual) for rule, n in self.left.items())
        gone = sum(min(now - began, means.get(rule, usual)) for rule, _, began in self.jobs.values())
        return max(to_come - gone, 0.0)


def refuse_unreadable(arguments: list[str]) -> None:
    """End with one line where a file given by --configfile is no configuration.

    Snakemake reads it before it reads the Snakefile, and answers with a traceback; this is the first code of the
    project that runs.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", type=Path, default=[])
    for file in parser.parse_known_args(arguments)[0].configfile:
        try:
            if not isinstance(read(file), dict):
                raise ConfigError(f"{file}: a configuration is a mapping of keys, see config/README.md")
        except ConfigError as error:
            sys.exit(f"kvlab: {error}")


def title(facts: dict[str, Any]) -> str:
    """A job's name: the rule and its wildcards."""
    return " ".join([facts["rule_name"], *map(str, dict(facts["wildcards"] or {}).values())])


def span(seconds: float) -> str:
    """Seconds in words."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def failure(name: str, logs: list[str]) -> str:
    """One failed job: what it was, and all that its log says."""
    lines = [f"failed: {name}"]
    for log in logs or []:
        text = Path(log).read_text(encoding="utf-8", errors="replace") if Path(log).exists() else ""
        lines += [f"  {log}:", *(f"    {line}" for line in text.rstrip().splitlines() or ["(nothing)"])]
    return "\n".join(lines)
