"""docs/licences.md names every file that is not source text, and a report holds nothing that is not the project's."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch

import pytest

from kvlab.paths import ROOT

TEXT = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^\| `([^`]+)` \|", TEXT, re.M)
SOURCE = {
    *(".py", ".js", ".css", ".j2", ".smk", ".rst", ".md", ".toml", ".cff", ".yaml", ".yml", ".ipynb"),
    *(".in", ".lock", ".overrides", ""),
}
SAMPLE = ROOT / "docs" / "sample" / "report.html"


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def test_every_file_of_data_is_named_and_every_name_is_a_file():
    files = tracked()
    hidden = (".gitignore", ".dockerignore")
    data = [name for name in files if (ROOT / name).suffix not in SOURCE and not name.endswith(hidden)]
    assert len(data) > 100
    assert [name for name in data if not any(fnmatch(name, pattern) for pattern in NAMED)] == []
    assert [pattern for pattern in NAMED if not any(fnmatch(name, pattern) for name in files)] == []
    carried = {name for name in files if name.startswith("config/data/") and not name.endswith(".md")}
    assert carried <= set(NAMED)


def test_no_source_carries_anothers_notice():
    """A copied script or style sheet says so at its top; one that is added belongs in the list."""
    notice = re.compile(r"copyright\b|licen[sc]ed under|@licen[sc]e|SPDX-License|\(c\) (19|20)\d\d|/\*!", re.I)
    kinds = (".js", ".css", ".j2", ".py", ".smk")
    found = [name for name in tracked() if name.endswith(kinds) and notice.search((ROOT / name).read_text("utf-8"))]
    assert [name for name in found if name not in NAMED and name != "tests/unit/test_licences.py"] == []


def test_a_report_inlines_no_font_and_no_picture_of_others():
    page = SAMPLE.read_text(encoding="utf-8")
    assert "@font-face" not in page
    assert not re.findall(r"url\(\s*['\"]?(?!#|['\"]?#)", page)
    assert not re.findall(r"\b(?:src|data)\s*=\s*[\"'](?:data:|https?:)", page)
    assert not re.findall(r"<link\b[^>]*rel=[\"'](?:stylesheet|preload)", page)
    assert not re.search(r"<(?:img|image|iframe|object|embed|video|audio)\b", page)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", page, re.S)
    assert styles
    for text in [*styles, *re.findall(r"<script(?![^>]*json)[^>]*>(.*?)</script>", page, re.S)]:
        assert not re.search(r"copyright|@licen[sc]e|/\*!", text, re.I)
