"""Medians, intervals, and the rules by which a run counts."""

import math

import numpy as np
import pytest
import scipy.stats  # noqa: F401  the first interval would import it, and hypothesis limits the time of an example
from hypothesis import given
from hypothesis import strategies as st

from kvlab.analyse.statistics import Observed, Settings, classify, interval, median, ratio, ratio_interval

SETTINGS = Settings(bootstrap_resamples=500, confidence=0.95)
samples = st.lists(st.floats(1, 1000), min_size=3, max_size=8)


def test_no_interval_below_three_repeats():
    assert interval([1.0, 2.0], SETTINGS) is None
    assert ratio_interval([1.0, 2.0], [1.0, 2.0], SETTINGS) is None


@given(samples)
def test_an_interval_lies_within_the_samples_and_is_the_same_again(values):
    (low, high), kind = interval(values, SETTINGS)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert interval(values, SETTINGS) == ((low, high), kind)


def test_few_repeats_are_called_a_range():
    assert interval([3.0, 1.0, 2.0], SETTINGS) == ((1.0, 3.0), "range")
    assert interval([3.0, 1.0, 2.0, 4.0, 5.0], SETTINGS)[1] == "range"
    assert interval([3.0, 1.0, 2.0, 4.0, 5.0, 6.0], SETTINGS)[1] == "bootstrap"


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(1, 1000)), min_size=3, max_size=8))
def test_the_interval_of_a_ratio_holds_it_and_turns_with_it(pairs):
    top, bottom = zip(*pairs, strict=True)
    low, high = ratio_interval(top, bottom, SETTINGS)
    assert low * (1 - 1e-9) <= ratio(top, bottom) <= high * (1 + 1e-9)
    assert ratio_interval(bottom, top, SETTINGS) == pytest.approx((1 / high, 1 / low))


def test_a_ratio_has_the_same_bits_on_every_processor():
    """NumPy's logarithm and exponential have another last bit on one with AVX-512: a packed run would not replay."""
    draw = np.random.default_rng(0)
    for top, bottom in draw.uniform(0.1, 100, (2000, 2)).tolist():
        assert ratio([top], [bottom]) == math.exp(math.log(top / bottom))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_of_a_ratio_covers_the_true_one_as_often_as_it_says(n):
    """Blocks that differ by a tenth (clocks, requests), each arm with noise of its own: the true ratio is 1.2."""
    rng = np.random.default_rng(n)
    covered = 0
    for _ in range(2000):
        block = rng.lognormal(0, 0.1, n)
        top, bottom = (1.2 * block * rng.lognormal(0, 0.03, n), block * rng.lognormal(0, 0.03, n))
        low, high = ratio_interval(top, bottom, SETTINGS)
        covered += low <= 1.2 <= high
    assert 0.93 <= covered / 2000 <= 0.97


def test_the_interval_of_a_median_covers_it_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    draws = [rng.normal(10, 1, 25).tolist() for _ in range(120)]
    covered = sum(low <= 10 <= high for (low, high), _ in (interval(d, SETTINGS) for d in draws))
    assert 0.85 <= covered / len(draws) <= 1.0


def test_median():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([1.0, 2.0]) == 1.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "steady"),
        ({"time_full": 0.95, "time_waiting": 0.5}, "saturated"),
        ({"time_full": 0.95, "time_waiting": 0.05}, "steady"),
        ({"time_full": 0.15, "time_waiting": 0.9}, "steady"),
        ({"throughput": 80.0}, "noisy"),
        ({"disturbances": ["other processes used the GPU"], "time_full": 1.0, "time_waiting": 1.0}, "noisy"),
        ({"faults": ["token counts"], "disturbances": ["heat"]}, "broken"),
    ],
)
def test_rules_of_validity(changes, expected):
    run = {
        "faults": [],
        "disturbances": [],
        "throughput": 100.0,
        "arm_median": 100.0,
        "time_full": 0.3,
        "time_waiting": 0.0,
    }
    kind, reason = classify(Observed(**run | changes))
    assert kind == expected
    assert reason
