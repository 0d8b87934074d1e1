"""Numbers as readers of each language see them."""

import pytest

from kvlab.publish.words.numbers import date_text, decimal, interval_text, level_text, text_of, value_text
from kvlab.quantities import UNITS, Message, Quantity


def quantity(value, unit, **more):
    return Quantity("w.q", value, unit, "a formula", 3, [], **more)


@pytest.mark.parametrize(
    ("value", "unit", "english", "chinese"),
    [
        (0.0737, "share", "7.4%", "7.4%"),
        (0.0, "share", "0%", "0%"),
        (1.0, "share", "100%", "100%"),
        (0.99964, "share", "99.96%", "99.96%"),
        (0.0054, "share", "0.54%", "0.54%"),
        (0.00015, "share", "<\u00a00.1%", "<\u00a00.1%"),
        (11.1426, "change", "+1,114%", "+1,114%"),
        (-0.052, "change", "-5.2%", "-5.2%"),
        (5.8652, "ratio", "5.87×", "5.87\u00a0倍"),
        (12.14, "ratio", "12.1×", "12.1\u00a0倍"),
        (1234.5, "ratio", "1,234×", "1,234\u00a0倍"),
        (19906560, "bytes", "19.0\u00a0MiB", "19.0\u00a0MiB"),
        (512, "bytes", "512\u00a0B", "512\u00a0B"),
        (80 << 30, "bytes", "80.0\u00a0GiB", "80.0\u00a0GiB"),
        (13.4637, "s", "13.5\u00a0s", "13.5\u00a0秒"),
        (4e-6, "s", "<\u00a00.001\u00a0s", "<\u00a00.001\u00a0秒"),
        (0, "s", "0\u00a0s", "0\u00a0秒"),
        (448.01, "ms", "448\u00a0ms", "448\u00a0毫秒"),
        (83.64, "tokens/s", "83.6\u00a0tokens/s", "83.6\u00a0token/秒"),
        (1, "requests", "1\u00a0request", "1\u00a0个请求"),
        (4, "requests", "4\u00a0requests", "4\u00a0个请求"),
        (3.9998, "requests", "4.00\u00a0requests", "4.00\u00a0个请求"),
        (4096, "slots", "4,096\u00a0slots", "4,096\u00a0个槽位"),
        (0, "count", "0", "0"),
        (0.432, "points", "+43.2\u00a0percentage points", "+43.2\u00a0个百分点"),
    ],
)
def test_values_with_their_units(value, unit, english, chinese):
    assert text_of(quantity(value, unit), "en") == english
    assert text_of(quantity(value, unit), "zh") == chinese


@pytest.mark.parametrize("unit", sorted(UNITS))
@pytest.mark.parametrize("value", [0, 1e-9, 0.5, 1, 999.96, 1e7, -2.5])
def test_every_unit_can_be_said_in_every_language(unit, value):
    for language in ("en", "zh"):
        assert any(c.isdigit() for c in value_text(value, unit, language))


@pytest.mark.parametrize(
    ("why", "english", "chinese"),
    [
        (Message("arm-not-run-here", {"arm": "vllm-contiguous"}), "not run", "未运行"),
        (Message("not-told"), "not available", "未提供"),
        (Message("never-queued"), "never queued", "未排队"),
        (Message("nothing-queued"), "not decided", "无法判定"),
    ],
)
def test_no_value_is_said_in_words(why, english, chinese):
    assert text_of(quantity(None, "ratio", why_none=why), "en") == english
    assert text_of(quantity(None, "ratio", why_none=why), "zh") == chinese


def test_intervals_have_the_unit_at_both_ends():
    assert interval_text(quantity(2.0, "ratio", interval=(1.84, 2.163)), "en") == "1.84× to 2.16×"
    assert interval_text(quantity(2.0, "ratio", interval=(1.84, 2.163)), "zh") == "1.84\u00a0倍 至 2.16\u00a0倍"
    assert interval_text(quantity(2.0, "ratio"), "en") is None


def test_dates_levels_and_plain_numbers():
    assert date_text("2026-11-23T13:26:04+00:00", "en") == "November 23, 2026"
    assert date_text("2026-11-23T13:26:04+00:00", "zh") == "2026年11月23日"
    assert level_text(0.95, "en") == "95%"
    assert level_text(0.995, "zh") == "99.5%"
    assert decimal(1234567.0, "en", 0) == "1,234,567"
