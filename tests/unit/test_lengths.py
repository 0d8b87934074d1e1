import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlab.errors import ConfigError, LogError
from kvlab.prepare import lengths

TABLE = lengths.read_table()


@pytest.fixture
def table():
    return TABLE


def test_the_carried_table_is_the_trace(table):
    n = table.requests.sum()
    assert n == 19_366
    assert (table.prompt * table.requests).sum() / n == pytest.approx(1154.70, abs=0.005)
    assert (table.output * table.requests).sum() / n == pytest.approx(211.13, abs=0.005)


def test_writing_what_was_read_gives_the_same_bytes(table, tmp_path):
    lengths.write_table(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == lengths.TABLE.read_bytes()


def test_a_trace_becomes_a_table(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nt,9,4\nt,3,2\nt,9,4\n")
    digest = hashlib.sha256(trace.read_bytes()).hexdigest()
    table = lengths.read_trace(str(trace), digest)
    assert [table.prompt.tolist(), table.output.tolist(), table.requests.tolist()] == [[3, 9], [2, 4], [1, 2]]
    with pytest.raises(LogError, match="sha256"):
        lengths.read_trace(str(trace))


@pytest.mark.parametrize(
    "text",
    ["", "a,b,c\n1,2,3\n", "prompt_tokens,output_tokens,requests\n", "prompt_tokens,output_tokens,requests\n1,0,1\n",
     "prompt_tokens,output_tokens,requests\n1,2\n", "prompt_tokens,output_tokens,requests\n1,nan,2\n"],
)  # fmt: skip
def test_what_is_no_table_is_refused_by_name(text, tmp_path):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(LogError, match=r"bad\.csv"):
        lengths.read_table(tmp_path / "bad.csv")


def test_resampling_keeps_pairs_and_their_frequencies():
    table = lengths.LengthTable(np.array([1, 2]), np.array([10, 20]), np.array([3, 1]))
    drawn = lengths.resample(table, 20_000, seed=1)
    assert set(drawn.pairs()) == {(1, 10), (2, 20)}
    assert (drawn.prompt == 1).mean() == pytest.approx(0.75, abs=0.02)


@given(
    st.integers(1, 300),
    st.integers(0, 9),
    st.integers(30, 4000),
    st.floats(0.05, 1),
    st.sampled_from(["azure", "paper"]),
)
@settings(deadline=None)  # other work on the machine is no fault of the draw
def test_draws_obey_the_maxima_and_begin_alike(n, seed, most, scale, kind):
    def draw(count):
        limits = {"max_total": most, "max_output": most // 2, "max_prompt": most - 5, "scale": scale}
        if kind == "azure":
            return lengths.resample(TABLE, count, seed, **limits)
        return lengths.paper(count, seed, **limits)

    try:
        drawn = draw(n)
    except ConfigError:
        assert most < 100
        return
    assert len(drawn) == n
    assert drawn.prompt.min() >= 1
    assert drawn.output.min() >= 1
    assert (drawn.prompt + drawn.output).max() <= most
    assert drawn.output.max() <= most // 2
    assert drawn.prompt.max() <= most - 5
    assert draw(n + 7).pairs()[:n] == drawn.pairs()


def test_paper_lengths_have_the_paper_means():
    drawn = lengths.paper(200_000, seed=0, max_total=None)
    assert drawn.prompt.mean() == pytest.approx(161.31, rel=0.02)
    assert drawn.output.mean() == pytest.approx(337.99, rel=0.02)
    assert drawn.output.std() / drawn.output.mean() == pytest.approx(0.877, rel=0.02)
    assert drawn.prompt.std() / drawn.prompt.mean() == pytest.approx(1.6, rel=0.05)


def test_another_family_keeps_mean_and_spread():
    drawn = lengths.paper(200_000, seed=0, max_total=None, output_family="lognormal")
    assert drawn.output.mean() == pytest.approx(337.99, rel=0.02)
    assert drawn.output.std() / drawn.output.mean() == pytest.approx(0.877, rel=0.03)


@pytest.mark.parametrize(
    "arguments",
    [{"requests": 0}, {"scale": 0.0}, {"scale": float("nan")}, {"output_cv": 0.0}, {"prompt_mean": float("inf")},
     {"max_total": 1}, {"output_family": "best"}],
)  # fmt: skip
def test_what_can_not_be_drawn_is_refused(arguments):
    with pytest.raises(ConfigError):
        lengths.paper(**({"requests": 5, "seed": 0} | arguments))
