"""Colours: an arm is never taken for a share, and every arm is seen on both themes."""

import math
from itertools import combinations

import pytest

from kvlab.arms import ARMS
from kvlab.publish.figures.palette import PALETTES, POLICIES

PAGES = {"light": "#fdfdfb", "dark": "#131619"}
ARM_COLOURS = {name: arm.colour for name, arm in ARMS.items()}
SHARES = ("tokens", "reserved", "internal", "external", "waiting", "prefill", "decode")


def linear(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(one, other):
    light, dark = sorted(
        (sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (one, other)),
        reverse=True,
    )
    return (light + 0.05) / (dark + 0.05)


def distance(one, other):
    """CIE 1976, in L*a*b*: 2.3 is just noticeable."""

    def lab(colour):
        r, g, b = linear(colour)
        xyz = (
            (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
            0.2126 * r + 0.7152 * g + 0.0722 * b,
            (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
        )
        x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
        return 116 * y - 16, 500 * (x - y), 200 * (y - z)

    return math.dist(lab(one), lab(other))


@pytest.mark.parametrize("palette", PALETTES)
def test_an_arm_never_has_the_colour_of_a_share_or_a_phase(palette):
    for arm, name in ((arm, name) for arm in ARM_COLOURS for name in SHARES):
        assert distance(ARM_COLOURS[arm], PALETTES[palette][name]) > 25, (arm, name)


@pytest.mark.parametrize("page", PAGES)
def test_every_arm_is_seen_on_both_pages(page):
    low = {arm: round(contrast(colour, PAGES[page]), 2) for arm, colour in ARM_COLOURS.items()}
    assert {arm: ratio for arm, ratio in low.items() if ratio < 3} == {}


def test_the_colours_of_arms_can_be_distinguished():
    for one, other in combinations(ARM_COLOURS, 2):
        assert distance(ARM_COLOURS[one], ARM_COLOURS[other]) > 12, (one, other)


def test_borders_and_free_cells_are_seen():
    from kvlab.paths import REPORT

    style = (REPORT / "style.css").read_text(encoding="utf-8")
    edges = [part.split(";")[0].strip() for part in style.split("--edge:")[1:]]
    assert len(edges) == 4
    for edge, page in zip(edges[:3], ("light", "dark", "dark"), strict=True):
        assert contrast(edge, PAGES[page]) >= 3, (edge, page)


def test_a_policy_has_the_colour_of_the_arm_that_measures_it():
    for policy, colour in POLICIES.items():
        measuring = [arm.colour for arm in ARMS.values() if arm.options.get("policy") == policy]
        assert measuring[0] == colour, policy
