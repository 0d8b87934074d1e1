"""Medians, intervals, and the rules by which a run counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlab.analyse.statistics import Observed, Settings, classify, interval, median, ratio_interval

SETTINGS = Settings(bootstrap_resamples=500, confidence=0.95)
samples = st.lists(st.floats(1, 1000), min_size=3, max_size=8)


def test_no_interval_below_three_repeats():
    assert interval([1.0, 2.0], SETTINGS) is None
    assert ratio_interval([1.0, 2.0, 3.0], [1.0, 2.0], SETTINGS) is None


@given(samples)
def test_an_interval_lies_within_the_samples_and_is_the_same_again(values):
    low, high = interval(values, SETTINGS)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert interval(values, SETTINGS) == (low, high)


@given(samples, samples)
def test_a_ratio_lies_within_what_the_samples_allow(top, bottom):
    low, high = ratio_interval(top, bottom, SETTINGS)
    assert min(top) / max(bottom) - 1e-9 <= low <= high <= max(top) / min(bottom) + 1e-9


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    draws = [rng.normal(10, 1, 25).tolist() for _ in range(120)]
    covered = sum(low <= 10 <= high for low, high in (interval(d, SETTINGS) for d in draws))
    assert 0.85 <= covered / len(draws) <= 1.0


def test_median():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([1.0, 2.0]) == 1.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "steady"),
        ({"peak_allocated": 0.95, "time_waiting": 0.5}, "saturated"),
        ({"peak_allocated": 0.95, "time_waiting": 0.05}, "steady"),
        ({"peak_allocated": 0.5, "time_waiting": 0.9}, "steady"),
        ({"throughput": 80.0}, "noisy"),
        ({"disturbances": ["other processes used the GPU"], "peak_allocated": 1.0, "time_waiting": 1.0}, "noisy"),
        ({"faults": ["token counts"], "disturbances": ["heat"]}, "broken"),
    ],
)
def test_rules_of_validity(changes, expected):
    run = {
        "faults": [],
        "disturbances": [],
        "throughput": 100.0,
        "arm_median": 100.0,
        "peak_allocated": 0.3,
        "time_waiting": 0.0,
    }
    kind, reason = classify(Observed(**run | changes))
    assert kind == expected
    assert reason
