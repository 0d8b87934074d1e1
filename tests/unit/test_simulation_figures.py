"""The picture of the pool shows what the accounting counts; figures are the same bytes each time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlab import config
from kvlab.allocators.contiguous import NOBODY
from kvlab.config.simulation import SmallPool
from kvlab.errors import KvlabError
from kvlab.publish.figures import simulation as simulation_figures
from kvlab.publish.figures import small_pool
from kvlab.publish.figures.palette import INK
from kvlab.simulate.studies import stage as simulate
from kvlab.simulate.studies.cases import POLICIES
from kvlab.simulate.studies.small_pool import FREE, INTERNAL, RESERVED, ROUNDING, TOKEN, picture

pytestmark = pytest.mark.slow

REPORT = Path(__file__).resolve().parents[2] / "report"
DEFAULT = SmallPool().model_dump(mode="json")


@pytest.mark.parametrize("policy", POLICIES)
@given(
    requests=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 17)), min_size=1, max_size=8),
    block=st.integers(1, 9),
)
@settings(max_examples=30, deadline=None)
def test_every_slot_of_the_picture_is_a_slot_of_the_accounting(policy, requests, block):
    section = {"pool_slots": 80, "block_size": block, "max_model_len": 32, "requests": requests}
    drawn = picture(section, policy)
    counts = {kind: (drawn.kind == kind).sum(axis=0) for kind in (TOKEN, RESERVED, INTERNAL, ROUNDING, FREE)}
    for kind, name in ((TOKEN, "tokens"), (RESERVED, "reserved"), (INTERNAL, "internal"), (ROUNDING, "rounding")):
        assert counts[kind].tolist() == drawn.accounting.series(name).tolist()
    assert counts[FREE].tolist() == drawn.accounting.free.tolist()
    assert ((drawn.request == NOBODY) == (drawn.kind == FREE)).all()


def test_a_contiguous_request_lies_in_one_piece_and_a_paged_one_need_not():
    whole, paged = (picture(DEFAULT, policy) for policy in ("orca-max", "paged"))

    def pieces(drawn):
        most = 0
        for row in range(drawn.kind.shape[1]):
            for request in set(drawn.request[:, row].tolist()) - {NOBODY}:
                most = max(most, int((np.diff((drawn.request[:, row] == request).astype(int), prepend=0) == 1).sum()))
        return most

    assert pieces(whole) == 1
    assert pieces(paged) > 1
    assert paged.kind.shape[1] < whole.kind.shape[1]  # the same requests are done sooner


def test_a_request_that_does_not_fit_the_picture_is_refused():
    with pytest.raises(KvlabError, match="request 0"):
        picture(DEFAULT | {"requests": [(30, 30)]}, "orca-max")


@given(st.integers(0, 2**24 - 1))
def test_the_outline_covers_exactly_the_cells(bits):
    cells = np.array([(bits >> n) & 1 for n in range(24)], dtype=bool).reshape(4, 6)
    outline = small_pool._outline(cells)
    covered = np.zeros_like(cells, dtype=int)
    if outline is not None:
        for begin, bottom, end, top in (
            (*outline.vertices[n], *outline.vertices[n + 2]) for n in range(0, len(outline.vertices), 5)
        ):
            covered[int(bottom) : int(top), int(begin) : int(end)] += 1
    assert (covered == cells).all()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    studies = {
        **{"iterations": 400, "warmup_iterations": 100, "seeds": 1},
        "block_size": {"workloads": ["w"], "sizes": [1, 16]},
        "pool": {"workload": "w", "slots": [4096, 8192], "max_running": 8},
        "output_cv": {"workload": "w", "values": [0.5, 1.0]},
        "load": {"workload": "w", "values": [0.5, 0.9]},
        "shapes": {"workload": "w", "output_families": ["gamma"], "prompt_cv": [1.6], "output_cv": [0.877]},
        "sharing": {"workloads": ["w"], "samples": [2]},
        "prefix": {"workload": "w", "tokens": [32]},
    }
    simulation = {"iterations": 400, "warmup_iterations": 100, "seeds": 1, "studies": studies}
    data = {"run": "t", "simulation": simulation | {"workloads": {"w": {"lengths": {"kind": "paper"}}}}}
    section = config.parse(data, "test").section("simulate")
    simulate.simulate(section, root)
    assert simulation_figures.draw(section, root, "okabe-ito") == len(simulation_figures.KINDS)
    return root, section


def test_figures_are_the_same_bytes_each_time(drawn):
    root, section = drawn
    files = sorted((root / "simulated" / "figures").glob("[!.]*"))
    assert len(files) == 2 * len(simulation_figures.KINDS) + 1
    before = [file.read_bytes() for file in files]
    simulation_figures.draw(section, root, "okabe-ito")
    assert [file.read_bytes() for file in files] == before


def test_figures_follow_the_pages_theme_and_hold_no_metadata(drawn):
    root, _ = drawn
    for file in (root / "simulated" / "figures").glob("*.svg"):
        text = file.read_text()
        assert "currentColor" in text
        assert INK not in text
        assert not re.search(r"<dc:date>|Matplotlib", text)
        assert len(text) < 400_000


def test_without_studies_their_figure_is_left_out(drawn):
    root, section = drawn
    assert simulation_figures.draw(section | {"studies": None}, root, "tol-bright") == len(simulation_figures.KINDS) - 1


def test_both_languages_say_the_same_things_and_type_no_number():
    words = [yaml.safe_load((REPORT / f"simulation.{at}.yaml").read_text(encoding="utf-8")) for at in ("en", "zh")]

    def leaves(part, path=()):
        if isinstance(part, dict):
            return [leaf for key, value in part.items() for leaf in leaves(value, (*path, key))]
        return [(path, part)]

    one, other = (dict(leaves(word)) for word in words)
    assert one.keys() == other.keys()
    for key, text in one.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", other[key]))
        if key[0] not in ("policies",):
            assert not re.search(r"\d", text + other[key])
