"""Products that are made again and compared: pictures, the simulation, the prediction."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl

from kvlab.errors import KvlabError
from kvlab.publish.check.found import Found, Sections
from kvlab.publish.figures import simulation
from kvlab.publish.figures.drawing import Figures
from kvlab.records import digest, read_json
from kvlab.simulate.forecasts import before
from kvlab.simulate.forecasts.validation import FOLDER
from kvlab.simulate.studies import stage


def pictures(root: Path, section: dict[str, Any], found: Found) -> None:
    """Every figure is drawn again, from metrics and logs that are checked. Another matplotlib may draw otherwise."""
    file = root / "figures" / "figures.json"
    try:
        document = read_json(file)
        entries, by = [(str(f["kind"]), str(f["workload"]), f) for f in document["figures"]], document.get("matplotlib")
    except KvlabError as error:
        found.faults.append(f"{error}; make it again with: python -m kvlab notebook {root}")
        return
    except (AttributeError, KeyError, TypeError):
        found.faults.append(f"{file}: not a list of figures; make it again with: python -m kvlab notebook {root}")
        return
    with tempfile.TemporaryDirectory() as place:
        drawn = Figures(root, Path(place), section["palette"], section["language"])
        for kind, workload, entry in entries:
            try:
                with redirect_stdout(StringIO()):  # of figures that are left out
                    drawn.draw(kind, workload)
            except (KvlabError, KeyError, StopIteration) as error:
                found.faults.append(f"{file}: {kind}.{workload}: can't be drawn ({error})")
                continue
            now: dict[str, Any] = next((f for f in drawn.manifest if f["id"] == f"{kind}.{workload}"), {"files": {}})
            for name in [f["file"] for f in now["files"].values()]:
                _same_picture(root / "figures" / name, Path(place) / name, entry, by, found)
            if _without_digests(entry) != _without_digests(now):
                found.faults.append(f"{file}: {kind}.{workload}: its files, caption or text alternative are others")


def _same_picture(file: Path, drawn: Path, entry: dict[str, Any], by: str | None, found: Found) -> None:
    found.checked["pictures"] = found.checked.get("pictures", 0) + 1
    if file.exists() and file.read_bytes() == drawn.read_bytes():
        return
    if by not in (None, mpl.__version__) and file.exists() and digest(file) in json.dumps(entry):
        found.leave("pictures", f"{file.name}, drawn by matplotlib {by}, is as its manifest has it")
    else:
        found.faults.append(f"{file}: not the figure that metrics and logs give")


def _without_digests(entry: Any) -> str:
    return re.sub(r'"sha256": "[0-9a-f]*"', "", json.dumps(entry, sort_keys=True))


def simulated(root: Path, section: Sections, found: Found) -> None:
    """The same configuration simulates, and draws, the same bytes."""

    def make(place: Path) -> None:
        stage.simulate(section("simulate"), place)
        simulation.draw(section("simulate"), place, section("report")["palette"])

    _same_files(root, "simulated", make, found)


def predicted(root: Path, section: dict[str, Any], found: Found) -> None:
    """The same logs give the same step times and predictions. `section`: that of analyse."""

    def make(place: Path) -> None:
        place.mkdir(exist_ok=True)
        for one in root.iterdir():
            if one.name != FOLDER:
                (place / one.name).symlink_to(one.resolve())
        before.calibrate(place, section, root / FOLDER / "expected.json")

    _same_files(root, FOLDER, make, found)


def _same_files(root: Path, folder: str, make: Callable[[Path], None], found: Found) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / root.resolve().name  # the run's name is its folder's
        try:
            make(place)
        except KvlabError as error:
            found.faults.append(f"{root / folder}: can't be made again ({error})")
            return
        now = place / folder
        names = {path.relative_to(now) for path in now.rglob("*") if path.is_file() and not path.name.startswith(".")}
        found.checked[f"files of {folder}/"] = len(names)
        faults = []
        for name in sorted(names):
            kept = root / folder / name
            if not kept.exists():
                faults.append(f"{kept}: missing")
            elif kept.read_bytes() != (now / name).read_bytes():
                faults.append(f"{kept}: not what is made when it is made again")
        found.add(faults, str(root / folder))
