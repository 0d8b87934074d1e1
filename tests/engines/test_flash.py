"""transformers' continuous batching as its authors benchmark it: which kernel, which sizes, and vLLM's kernel in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvlab.analyse.guards import _upstream
from kvlab.errors import NotRunnable
from kvlab.measure.engines.transformers import continuous, flash
from kvlab.raw import RawRun
from kvlab.records import Output, read_lines

from .conftest import section

pytestmark = pytest.mark.engine


def job(device, **own):
    settings = section("hf-continuous", transformers=own)["settings"]["engine"]
    return SimpleNamespace(device=device, settings=settings, kv_slots=512)


def test_a_gpu_gets_upstreams_configuration_and_a_cpu_what_it_can(monkeypatch):
    import transformers.utils as found

    for name in ("is_flash_attn_2_available", "is_flash_attn_3_available"):
        monkeypatch.setattr(found, name, lambda kernels_fallback_ok: False)
    assert flash.attention(job("cpu")) == "sdpa"
    assert continuous.sizes(job("cpu")) == (16, 512)
    assert continuous.sizes(job("cuda")) == (256, None)
    with pytest.raises(NotRunnable, match="512 slots are fewer than one page of 1024"):
        continuous.sizes(job("cuda", block_size=1024))
    assert continuous.sizes(job("cuda", block_size=32, batch_tokens=8)) == (32, 8)
    with pytest.raises(NotRunnable, match="FlashAttention, and none is installed"):
        flash.attention(job("cuda"))
    with pytest.raises(NotRunnable, match="has no FlashAttention kernel"):
        flash.attention(job("cuda", continuous_attention=flash.VLLM))
    assert flash.attention(job("cuda", continuous_attention="sdpa")) == "sdpa"
    monkeypatch.setattr(flash, "_vllm_kernel", lambda: dense)
    assert flash.attention(job("cuda")) == flash.VLLM
    monkeypatch.setattr(found, "is_flash_attn_2_available", lambda kernels_fallback_ok: True)
    assert flash.attention(job("cuda")) == "flash_attention_2"
    monkeypatch.setattr(found, "is_flash_attn_3_available", lambda kernels_fallback_ok: True)
    assert flash.attention(job("cuda")) == "flash_attention_3"


def dense(q, k, v, *, max_seqlen_q, cu_seqlens_q, max_seqlen_k, cu_seqlens_k, softmax_scale, causal, window_size):
    """A kernel with the arguments of vLLM's, written down with torch: request by request, the last query at the end."""
    import torch

    assert causal
    assert window_size == [-1, -1]
    out = torch.zeros_like(q)
    for one in range(len(cu_seqlens_q) - 1):
        (a, b), (c, d) = cu_seqlens_q[one : one + 2].tolist(), cu_seqlens_k[one : one + 2].tolist()
        assert b - a <= max_seqlen_q
        assert d - c <= max_seqlen_k
        queries, keys, values = (t.transpose(0, 1) for t in (q[a:b], k[c:d], v[c:d]))
        shared = queries.shape[0] // keys.shape[0]
        keys, values = keys.repeat_interleave(shared, 0), values.repeat_interleave(shared, 0)
        mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        out[a:b] = torch.nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=softmax_scale
        ).transpose(0, 1)
    return out


def test_vllms_kernel_gives_continuous_batching_the_same_tokens(measured, monkeypatch):
    """What transformers hands to the kernel, and what it takes back: with another kernel in the place of vLLM's."""
    expected, before = measured("hf-continuous")
    monkeypatch.setattr(flash, "_vllm_kernel", lambda: dense)
    own = {"continuous_attention": flash.VLLM, "block_size": 256, "batch_tokens": 64}
    run, folder = measured("hf-continuous", kv_slots=2560, transformers=own)
    assert run.status == "completed", run.reason
    assert expected.engine["attention"] == "paged|sdpa"
    assert (run.engine["attention"], run.block_size) == (f"paged|{flash.VLLM}", 256)
    tokens = [[one.token_ids for one in read_lines(f / "outputs.jsonl", Output)] for f in (before, folder)]
    assert tokens[0] == tokens[1]
    for where, outcome in ((folder, "pass"), (before, "fail")):
        (guard,) = _upstream([RawRun.at(where, where.parent)])
        assert guard["outcome"] == outcome
