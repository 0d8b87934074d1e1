"""Our arms against the tools that others would use, on the same requests. No two engines run at the same time.

    python benchmarks/peers.py                                              a tiny model, minutes
    python benchmarks/peers.py --model results/smoke/model --requests 16
    python benchmarks/peers.py --model results/full/model --dtype bfloat16 --scale 1 --max-model-len 2048 \
        --kv-slots 16384 --requests 256                                     on a GPU
    python benchmarks/peers.py --only batch                                 one of: paged, generate, sequential, batch

Four ratios, ours / theirs, in output tokens a second:

paged       vllm-paged, with the recorder, against what `vllm bench throughput` runs (vllm.benchmarks.throughput): our
            harness must cost nothing. Upstream samples at temperature 1, we are greedy.
generate    vllm-paged against `LLM.generate`, greedy too: the harness alone.
sequential  hf-sequential-dynamic against a bare loop of `model.generate`.
batch       hf-batch-static against what `vllm bench throughput --backend hf` runs: our baseline must not be slower.
            Upstream passes no attention mask, samples, and credits in full what an end token has cut short.
            On a CPU, where nothing is compiled, expect about 0.9: a cache of the maximum length attends to all of it,
            and padding is masked; upstream's grows, and attends to its padding as if it were text.

Upstream's command can't take token ids (and its hf backend can't take a data type), so its own functions are called.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import sides

from kvlab.records import Request

COMPARISONS = {  # name -> ours, theirs, target, whether one process plays both
    "paged": ("vllm-paged", "vllm bench throughput", 0.99, False),
    "generate": ("vllm-paged", "LLM.generate", 0.98, True),
    "sequential": ("hf-sequential-dynamic", "bare generate loop", 0.98, True),
    "batch": ("hf-batch-static", "vllm bench throughput --backend hf", 1.0, True),
}


def upstream_engine(args: argparse.Namespace) -> Any:
    """An `LLM` with the same pool and settings as our vllm-paged, vLLM's own scheduler, no statistics."""
    from kvlab.measure.engines.environment import prepare

    ours = sides.job(args, "vllm-paged", record_steps=False)
    prepare(ours)
    from vllm import LLM, EngineArgs

    from kvlab.measure.engines.vllm.driver import VllmEngine

    arguments = VllmEngine(ours)._arguments(eager=False) | {"skip_tokenizer_init": False}
    arguments.pop("worker_extension_cls")
    return LLM.from_engine_args(EngineArgs(**arguments))


def sample_requests(served: list[Request], as_text: bool) -> list[Any]:
    """Our requests as upstream's benchmark takes them."""
    from vllm.benchmarks.datasets import SampleRequest

    return [
        SampleRequest(
            prompt=request.text if as_text else {"prompt_token_ids": request.prompt_token_ids},
            prompt_len=len(request.prompt_token_ids),
            expected_output_len=request.max_new_tokens,
        )
        for request in served
    ]


def bench_throughput(args: argparse.Namespace, served: list[Request]) -> sides.Play:
    """`vllm bench throughput`: vllm.benchmarks.throughput.run_vllm, after its engine is made."""
    llm = upstream_engine(args)
    from vllm.benchmarks import throughput

    theirs = sample_requests(served, as_text=False)

    def serve() -> int:
        _, outputs = throughput._run_vllm_requests(
            llm, theirs, 1, disable_detokenize=True, do_profile=False, prequeue_requests=False, enable_lora=False
        )
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return lambda: sides.timed(serve)


def llm_generate(engine: Any, served: list[Request]) -> sides.Play:
    """`LLM.generate` on the whole batch, greedy, with the arm's own engine: what differs is how it is driven."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": request.prompt_token_ids} for request in served]
    parameters = [
        SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=request.max_new_tokens, detokenize=False)
        for request in served
    ]

    def serve() -> int:
        outputs = engine.llm.generate(prompts, parameters, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return lambda: sides.timed(serve)


def bare_loop(engine: Any, served: list[Request]) -> sides.Play:
    """`model.generate` for one request after another, with the arm's own model, nothing noted."""
    import torch

    model = engine.model

    def serve() -> int:
        tokens = 0
        for request in served:
            ids = torch.tensor([request.prompt_token_ids], device=model.device)
            mask = torch.ones_like(ids)
            made = model.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=request.max_new_tokens, pad_token_id=0
            )
            tokens += made.shape[1] - ids.shape[1]
        return tokens

    return lambda: sides.timed(serve)


def bench_hf(args: argparse.Namespace, served: list[Request]) -> sides.Play:
    """`vllm bench throughput --backend hf`: vllm.benchmarks.throughput.run_hf, after its model is loaded."""
    from kvlab.measure.engines.environment import prepare

    ours = sides.job(args, "hf-batch-static")
    prepare(ours)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from vllm.benchmarks import throughput
    from vllm.platforms import current_platform

    folder = ours.model
    if current_platform.device_type != ours.device:
        raise SystemExit(
            f"NOT COMPARED: this vLLM is built for {current_platform.device_type}, "
            f"so its hf backend can't run on {ours.device}"
        )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype)).to(ours.device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    theirs = sample_requests(served, as_text=True)

    def serve() -> int:
        throughput._run_hf_requests(model, tokenizer, theirs, 1, ours.contiguous_rows, disable_detokenize=True)
        return sum(request.max_new_tokens for request in served)  # as upstream credits them

    return lambda: sides.timed(serve)


def plays(args: argparse.Namespace) -> dict[str, sides.Play]:
    """What this worker plays."""
    served, made, engine = sides.requests(args), {}, None
    for name in args.side.split("|"):
        if name == "vllm bench throughput":
            made[name] = bench_throughput(args, served)
        elif name == "LLM.generate":
            made[name] = llm_generate(engine, served)
        elif name == "bare generate loop":
            made[name] = bare_loop(engine, served)
        elif name == "vllm bench throughput --backend hf":
            made[name] = bench_hf(args, served)
        else:
            engine = sides.engine(args, name)
            made[name] = sides.arm(engine, served, name)
    return made


def main() -> int:
    parser = sides.parser(__doc__)
    parser.add_argument("--only", choices=list(COMPARISONS), action="append", help="this comparison; may be repeated")
    args = parser.parse_args()
    if args.side:
        sides.serve_rounds(plays(args))
        return 0
    met = True
    for name in args.only or COMPARISONS:
        ours, theirs, target, together = COMPARISONS[name]
        print(f"{name}: {ours} / {theirs}; {args.requests} requests of {args.model}, {args.dtype}")
        met &= sides.compare(ours, theirs, args.rounds, target, together=together, on_cpu=sides.on_cpu(args))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
