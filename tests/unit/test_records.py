"""Raw logs: written whole or not at all, read alike packed or not, and with errors that name the fault."""

import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from kvlab.errors import KvlabError, LogError
from kvlab.folders import whole_folder
from kvlab.records import Output, Request, Served, Step, digest, read_lines, read_run, write_lines, write_text

STEPS = [Step(0, 0.5, 1, 2, 0, 1, [[0, 5, 16]]), Step(1, 0.6, 1, 2, 0, 1, [[0, 6, 16]])]


def test_lines_come_back(tmp_path):
    write_lines(tmp_path / "steps.jsonl", STEPS)
    assert read_lines(tmp_path / "steps.jsonl", Step) == STEPS


@pytest.mark.parametrize(("end", "packing"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_packed_and_plain_are_one_log(tmp_path, end, packing):
    file = tmp_path / "steps.jsonl"
    write_lines(file, STEPS)
    plain = digest(file)
    (tmp_path / f"steps.jsonl.{end}").write_bytes(packing(file.read_bytes()))
    file.unlink()
    assert digest(file) == plain
    assert read_lines(file, Step) == STEPS


@pytest.mark.parametrize(("end", "packing"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_a_changed_byte_in_a_packed_log_is_seen(tmp_path, end, packing):
    write_lines(tmp_path / "steps.jsonl", STEPS)
    packed = bytearray(packing((tmp_path / "steps.jsonl").read_bytes()))
    (tmp_path / "steps.jsonl").unlink()
    packed[len(packed) // 2] ^= 1
    (tmp_path / f"steps.jsonl.{end}").write_bytes(packed)
    with pytest.raises(LogError, match=rf"steps\.jsonl\.{end}: cannot be read"):
        read_lines(tmp_path / "steps.jsonl", Step)


WHOLE = '{"step":1,"t_s":1,"running":1,"waiting":2,"preempted":0,"blocks":1,"held":[[0,6,16]]'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "EOF"),
        ("{", "EOF"),
        ('{"step": 1}', "t_s: Field required"),
        (WHOLE + ',"stepp":1}', "stepp: Unexpected"),
        (WHOLE.replace('"step":1', '"step":1.5') + "}", "step: Input should be a valid integer"),
        (WHOLE.replace('"step":1', '"step":true') + "}", "step: Input should be a valid integer"),
        (WHOLE.replace('"step":1', '"step":"1"') + "}", "step: Input should be a valid integer"),
        (WHOLE.replace('"t_s":1', '"t_s":NaN') + "}", "t_s: Input should be a finite number"),
        (WHOLE.replace('"t_s":1', '"t_s":1e999') + "}", "t_s: Input should be a finite number"),
        (WHOLE.replace("[0,6,16]", '[0,"6",16]') + "}", "held.0.1: Input should be a valid integer"),
        ("[]", "Step"),
        ("[" * 10_000 + "]" * 10_000, "recursion limit"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, line, said):
    file = tmp_path / "steps.jsonl"
    write_lines(file, STEPS[:1])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(LogError, match=r"steps\.jsonl:2: not a line of Step") as caught:
        read_lines(file, Step)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_may_hold_every_separator(tmp_path):
    """U+2028, U+0085 and the like end a line for `str.splitlines`, not for JSON Lines."""
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\r\nj\n"
    for record in (Request(0, [1], 2, text), Output(0, [1], text)):
        write_lines(tmp_path / "x.jsonl", [record, record])
        assert "\u2028" in (tmp_path / "x.jsonl").read_text(encoding="utf-8")
        assert read_lines(tmp_path / "x.jsonl", type(record)) == [record, record]


def test_what_a_log_may_leave_out_has_its_default(tmp_path):
    (tmp_path / "r.jsonl").write_text(
        '{"id":0,"prompt_tokens":3,"output_tokens":0,"arrival_s":1,"token_s":[],"finish_s":null,"finish_reason":null}\n'
    )
    assert read_lines(tmp_path / "r.jsonl", Served) == [Served(0, 3, 0, 1.0, [], None, None)]


def test_missing_files_and_newer_schemas_are_named(tmp_path):
    with pytest.raises(LogError, match="no such file"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"workload":"w","arm":"a","repeat":0,"status":"completed","schema":99}')
    with pytest.raises(LogError, match="newer version"):
        read_run(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "raw" / "0"
    folder.mkdir(parents=True)
    (folder / "mark").touch()
    (folder / "old").write_text("kept until the new one is whole")

    def fail_half_way():
        with whole_folder(folder, "mark") as building:
            (building / "run.json").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert {p.name for p in folder.iterdir()} == {"old", "mark"}
    assert [p.name for p in folder.parent.iterdir()] == ["0"]
    with whole_folder(folder, "mark") as building:
        (building / "run.json").write_text("whole")
    assert {p.name for p in folder.iterdir()} == {"run.json", "mark"}


def test_what_a_killed_process_left_of_a_folder_goes_and_what_another_writes_stays(tmp_path):
    code = f"""
import os, signal, sys
from pathlib import Path
from kvlab.folders import whole_folder
with whole_folder(Path({str(tmp_path / "figures")!r}), "mark") as building:
    (building / "half.svg").write_text("half")
    print(building, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) for _ in range(2)]
    (tmp_path / ".figures.old").mkdir()  # of the user's
    places = [Path(one.stdout.readline().strip()) for one in both]
    both[0].communicate("go\n")
    with whole_folder(tmp_path / "figures", "mark"):
        assert not places[0].exists()
        assert (places[1] / "half.svg").exists()
    both[1].communicate("go\n")
    with whole_folder(tmp_path / "figures", "mark"):
        pass
    assert sorted(one.name for one in tmp_path.iterdir()) == [".figures.old", "figures"]


def test_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "made-for-a-job").mkdir()
    with whole_folder(tmp_path / "made-for-a-job", "mark"):
        pass
    assert (tmp_path / "made-for-a-job" / "mark").exists()


@pytest.mark.parametrize("kind", ["a folder of the user's", "a file", "a link"])
def test_what_the_stage_did_not_make_is_not_replaced(tmp_path, kind):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    place = {"a folder of the user's": mine, "a file": mine / "notes.txt", "a link": tmp_path / "link"}[kind]
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(KvlabError, match=f"{place}: .*move it away"), whole_folder(place, "mark"):
        pytest.fail("it began to work")
    assert (mine / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "mine"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    file = tmp_path / "x.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
