"""Raw logs: whole or not at all, the same packed or not, and clear about what is wrong with them."""

import gzip
import lzma

import pytest

from kvlab.errors import LogError
from kvlab.records import Step, digest, read_lines, read_run, whole_folder, write_lines, write_text

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


@pytest.mark.parametrize("line", ["", "{", '{"step": 1}', '{"stepp": 1}', "[]"])
def test_a_line_that_does_not_fit_is_named(tmp_path, line):
    file = tmp_path / "steps.jsonl"
    write_lines(file, STEPS[:1])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(LogError, match=r"steps\.jsonl:2: not a line of Step"):
        read_lines(file, Step)


def test_missing_files_and_newer_schemas_are_named(tmp_path):
    with pytest.raises(LogError, match="no such file"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"workload":"w","arm":"a","repeat":0,"status":"completed","schema":99}')
    with pytest.raises(LogError, match="newer version"):
        read_run(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "raw" / "0"
    folder.mkdir(parents=True)
    (folder / "old").write_text("kept until the new one is whole")

    def fail_half_way():
        with whole_folder(folder) as building:
            (building / "run.json").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [p.name for p in folder.iterdir()] == ["old"]
    assert [p.name for p in folder.parent.iterdir()] == ["0"]
    with whole_folder(folder) as building:
        (building / "run.json").write_text("whole")
    assert [p.name for p in folder.iterdir()] == ["run.json"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    file = tmp_path / "x.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
