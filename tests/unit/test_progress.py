"""The progress line: what it counts, how the time left is estimated, when Snakemake's own messages are shown."""

from __future__ import annotations

import logging
import os
import sys
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

import snakemake_logger_plugin_kvlab as plugin
from kvlab import terminal


def handler(**settings):
    common = SimpleNamespace(**({"verbose": False, "dryrun": False} | settings))
    return plugin.LogHandler(common, None)


def record(event, msg="", level=logging.INFO, **facts):
    made = logging.LogRecord("snakemake", level, "", 0, msg, (), None)
    vars(made).update(facts | {"event": event})
    return made


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(plugin.time, "monotonic", lambda: now.s)
    return now


def test_the_time_left_is_estimated_from_jobs_of_the_same_rule(clock):
    made = handler()
    made.emit(record(LogEvent.RUN_INFO, stats={"vllm": 5, "analyse": 1, "all": 1, "total": 7}))
    for job in range(3):
        assert made.time_left(clock.s) is None
        made.emit(record(LogEvent.JOB_INFO, jobid=job, rule_name="vllm", wildcards={"arm": "vllm-paged"}))
        clock.s += 20
        made.emit(record(LogEvent.JOB_FINISHED, job_id=job))
        made.emit(record(LogEvent.PROGRESS, done=job + 1, total=7))
    assert made.time_left(clock.s) == 3 * 20  # two of vllm, and analyse as long as what there was
    made.emit(record(LogEvent.JOB_INFO, jobid=9, rule_name="vllm", wildcards={"arm": "vllm-paged", "repeat": 1}))
    clock.s += 5
    assert made.time_left(clock.s) == 55
    clock.s += 500  # a job that takes longer than usual takes nothing from the others
    assert made.time_left(clock.s) == 40


def test_the_line_shows_what_a_stage_says_of_itself(clock, monkeypatch, tmp_path):
    made = handler()
    made.folder, made.done, made.total = tmp_path, 3, 7
    made.emit(record(LogEvent.JOB_INFO, jobid=1, rule_name="vllm", wildcards={"workload": "seed", "arm": "vllm-paged"}))
    assert made.line(12.0) == "3/7  vllm seed vllm-paged, 12 s"
    monkeypatch.setenv(plugin.VARIABLE, str(tmp_path))
    assert plugin.VARIABLE == terminal.PROGRESS
    terminal.say("measure seed vllm-paged #0: 12/20 requests", passing=True)
    assert made.line(12.0) == "3/7  measure seed vllm-paged #0: 12/20 requests"


def test_a_missing_folder_of_messages_stops_no_stage(monkeypatch, capsys):
    monkeypatch.setenv(plugin.VARIABLE, "/no/such/folder")
    terminal.say("half-way", passing=True)
    terminal.say("done")
    assert capsys.readouterr().err == "done\n"


@pytest.mark.parametrize("settings", [{"verbose": True}, {"dryrun": True}])
def test_with_verbose_and_in_a_dry_run_snakemake_shows_its_own_messages(settings, capsys):
    made = handler(**settings)
    assert not made.writes_to_stream
    made.emit(record(None, "anything", logging.ERROR))
    made.close()
    assert capsys.readouterr().err == ""


def test_snakemakes_routine_messages_are_left_out_and_warnings_are_not(capsys):
    made = handler()
    for text in ("Select jobs to execute...", "Execute 1 jobs...", "Provided cores: 1 (use --cores …)", "", None):
        made.emit(record(None, text))
    made.emit(record(None, "Nothing to be done (all requested files are present and up to date)."))
    made.emit(record(LogEvent.ERROR, "MissingInputException in rule model", logging.ERROR, exception="x"))
    made.close()
    assert capsys.readouterr().err.splitlines() == [
        "Nothing to be done (all requested files are present and up to date).",
        "MissingInputException in rule model",
    ]


def test_failures_come_last_and_in_full(tmp_path, capsys):
    log = tmp_path / "vllm.log"
    log.write_text("loading\nkvlab measure: the pool is too small\n")
    made = handler()
    made.emit(record(LogEvent.JOB_INFO, jobid=4, rule_name="vllm", wildcards={"workload": "w", "arm": "vllm-paged"}))
    made.emit(record(LogEvent.JOB_ERROR, level=logging.ERROR, jobid=4, rule_name="vllm", log=[str(log)]))
    made.emit(record(LogEvent.PROGRESS, done=3, total=9))
    assert capsys.readouterr().err == ""
    made.close()
    assert capsys.readouterr().err.splitlines() == [
        "failed: vllm w vllm-paged",
        f"  {log}:",
        "    loading",
        "    kvlab measure: the pool is too small",
        "1 of 9 jobs failed, 3 are done and stay: once the cause is removed, the same command continues from there",
    ]


def test_without_a_terminal_nothing_is_drawn():
    assert not sys.stderr.isatty()
    made = handler()
    assert made.live is False
    assert plugin.VARIABLE not in os.environ
