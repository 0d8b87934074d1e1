"""The attention kernel of transformers' continuous batching: FlashAttention on a GPU, as its authors benchmark it.

transformers takes it from the packages flash-attn-3 or flash-attn, or from its hub through the package `kernels`. No
lock has one of these; vLLM's wheel carries FlashAttention 3 (Hopper) and 2, whose function takes its arguments by other
names. It is put where transformers looks for the one of flash-attn, under a name of its own. It has no
`flash_attn_with_kvcache`, so transformers' decode path stays off: all steps take the one for varying lengths, with CUDA
graphs.

On a CPU it is tested with another kernel in its place; results/reference/llama-8b-batching ran it on an H100.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvlab.errors import NotRunnable
from kvlab.measure.job import Job
from kvlab.messages import Message

VLLM = "vllm_flash_attention"  # transformers takes a kernel for FlashAttention by "flash" in its name


def attention(job: Job) -> str:
    """The implementation to set, without the prefix `paged|`. NotRunnable where a GPU has no FlashAttention for it."""
    asked = str(job.settings["continuous_attention"])
    if asked != "auto":
        if asked == VLLM and _vllm_kernel() is None:
            raise NotRunnable(Message("no-flash-in-vllm"))
        return asked
    if job.device == "cpu":
        return "sdpa"  # there is no FlashAttention for a CPU
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    if is_flash_attn_3_available(kernels_fallback_ok=True):
        return "flash_attention_3"
    if is_flash_attn_2_available(kernels_fallback_ok=True):
        return "flash_attention_2"
    if _vllm_kernel() is not None:
        return VLLM
    raise NotRunnable(Message("no-flash"))


def register(kernel: Callable[..., Any] | None = None) -> str:
    """Register vLLM's kernel with transformers, or `kernel`, a function of its arguments; returns the name to set."""
    import transformers.modeling_flash_attention_utils as flash
    from transformers import AttentionInterface
    from transformers.integrations.flash_paged import paged_attention_forward

    kernel = kernel or _vllm_kernel()
    assert kernel is not None
    name = f"paged|{VLLM}"
    AttentionInterface.register(name, paged_attention_forward)
    # What `lazy_import_paged_flash_attention` has found once it does not look for again.
    flash._loaded_implementation = name
    flash._flash_varlen_fn, flash._flash_with_kvcache_fn = _as_flash_attn(kernel), None
    return name


def _as_flash_attn(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the arguments of flash-attn's `flash_attn_varlen_func`, of one with those of vLLM's."""

    def flash_attn_varlen_func(
        q: Any,
        k: Any,
        v: Any,
        cu_seqlens_q: Any,
        cu_seqlens_k: Any,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
    ) -> Any:
        return kernel(
            q,
            k,
            v,
            max_seqlen_q=max_seqlen_q,
            cu_seqlens_q=cu_seqlens_q,
            max_seqlen_k=max_seqlen_k,
            cu_seqlens_k=cu_seqlens_k,
            softmax_scale=softmax_scale,
            causal=causal,
            window_size=list(window_size),
        )

    return flash_attn_varlen_func


def _vllm_kernel() -> Callable[..., Any] | None:
    """vLLM's function, set to the newest version that this GPU has; None where there is none."""
    from functools import partial

    try:
        from vllm.vllm_flash_attn import flash_attn_varlen_func, is_fa_version_supported
    except ImportError:
        return None
    version = next((one for one in (3, 2) if is_fa_version_supported(one)), None)
    return None if version is None else partial(flash_attn_varlen_func, fa_version=version)
