"""What is read back from the tensors of vLLM's workers, and the environment of several of them.

`ReadBack` runs wherever they run: vLLM mixes it into its worker class (`worker_extension_cls`, public), and
`LLM.collective_rpc` calls it.
"""

from __future__ import annotations

from typing import Any

from kvlab.measure import machine
from kvlab.measure.job import Job


class ReadBack:
    """Methods for a vLLM worker."""

    def kvlab_read_back(self) -> dict[str, Any]:
        """Bytes of weights and KV cache, torch's peaks, attention backend, and how long compilation took."""
        import torch

        runner: Any = self.model_runner  # type: ignore[attr-defined]
        model = runner.get_model()
        tensors = [*model.parameters(), *model.buffers()]
        caches = [cache for cache in runner.kv_caches if isinstance(cache, torch.Tensor)]
        backends = {group.backend.get_name() for groups in runner.attn_groups for group in groups}
        compilation = runner.vllm_config.compilation_config
        cuda = runner.device.type == "cuda"
        return {
            "weights_bytes": sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values()),
            "kv_bytes": sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in caches}.values()),
            "allocated_peak": torch.cuda.max_memory_allocated(runner.device) if cuda else None,
            "reserved_peak": torch.cuda.max_memory_reserved(runner.device) if cuda else None,
            "attention": ",".join(sorted(backends)),
            "model_runner": f"{type(runner).__module__}.{type(runner).__name__}",
            "compile_s": float(compilation.compilation_time),
            "mode": getattr(compilation.mode, "name", str(compilation.mode)),
            "cuda_graphs": getattr(compilation.cudagraph_mode, "name", str(compilation.cudagraph_mode)),
            "cuda_graph_sizes": [int(size) for size in compilation.cudagraph_capture_sizes or []],
            "threads": None if cuda else torch.get_num_threads(),
        }


def several(job: Job, workers: int) -> dict[str, str]:
    """The environment variables of several workers.

    On a CPU, which cores each has; vLLM by itself needs a NUMA node for each. On GPUs, to leave NVLink multicast
    alone: NCCL, torch and vLLM's own all-reduce would use it, and a fault there can stop the GPUs of a whole host.
    """
    if job.device == "cpu":
        return {"VLLM_CPU_OMP_THREADS_BIND": machine.shared_out(workers, job.threads)}
    return {
        "NCCL_NVLS_ENABLE": "0",
        "NVSHMEM_DISABLE_NVLS": "1",
        "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
        "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
        "VLLM_FLASHINFER_ALLREDUCE_BACKEND": "trtllm",
    }
