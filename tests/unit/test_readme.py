"""The two READMEs are in step: the same sections, commands, arms, files and faults; and what they name is there."""

import re
from pathlib import Path

import pytest

from kvlab.arms import ARMS
from kvlab.publish import summary
from kvlab.publish.words.numbers import text_of
from kvlab.quantities import Metrics

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
DOCUMENTS = [
    ROOT / name for name in ("README.md", "README.zh-CN.md", "ARTIFACT.md", "config/README.md", "docker/README.md")
]


def commands(text):
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [re.sub(r"\s+#.*|<.*?>", "", line).strip() for line in lines if line and not line.startswith("#")]


def test_both_have_the_same_sections_and_commands():
    assert len(re.findall(r"^## ", ENGLISH, re.M)) == len(re.findall(r"^## ", CHINESE, re.M))
    assert commands(ENGLISH) == commands(CHINESE)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_every_arm_is_in_the_table(text):
    assert [arm for arm in ARMS if f"| `{arm}` |" not in text] == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(file):
    text = file.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", text)
    assert [t for t in targets if t and not (file.parent / t).exists()] == []


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = {
        t for file in DOCUMENTS for t in re.findall(r"(?m)(?:^|`|&& )make ([a-z]+)", file.read_text(encoding="utf-8"))
    }
    assert named - known - {"that", "image"} == set()


def test_every_command_of_the_package_that_is_named_exists():
    from kvlab.cli import _parser

    known = set(re.findall(r"^    ([a-z-]+)\b", _parser().format_help(), re.M))
    assert {"measure", "agree", "plan"} <= known
    named = {c for file in DOCUMENTS for c in re.findall(r"kvlab ([a-z]+)[ `]", file.read_text(encoding="utf-8"))}
    assert named - known == set()


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_what_is_said_of_the_committed_runs_is_what_their_logs_say(text, capsys):
    def table(run):
        summary.show(ROOT / "results/reference" / run)
        printed = capsys.readouterr()
        return (printed.out + printed.err).replace("\xa0", " ").strip()

    assert f"```text\n{table('smoke-cpu')}\n```" in text
    assert f"```text\n{table('h100').split(chr(10) * 2)[0]}\n```" in text  # its first workload

    assert f"```text\n{table('llama-8b')}\n```" in text

    large = Metrics.read(ROOT / "results/reference/llama-8b/metrics.json").quantities
    policies = Metrics.read(ROOT / "results/reference/opt-13b-policies/metrics.json").quantities
    for found, key in (
        (large, "azure-conv.queued.paging.running.mean"),
        (large, "azure-conv.queued.speedup"),
        (large, "azure-conv.queued.factor.engine"),
        (large, "azure-conv.queued.factor.batching"),
        (large, "azure-conv.queued.factor.paging"),
        (large, "azure-conv.factor.paging"),
        (large, "azure-conv.vllm-contiguous.tpot.median"),
        (large, "azure-conv.vllm-paged.tpot.median"),
        (large, "azure-conv.vllm-paged.recomputed.share"),
        (policies, "open.vllm-contiguous@2.2.queued.share.tokens"),
        (policies, "open.vllm-pow2@3.queued.share.tokens"),
        (policies, "open.vllm-oracle@4.queued.share.tokens"),
        (policies, "open.vllm-paged@8.4.queued.share.tokens"),
    ):
        assert text_of(found[key], "en").replace("\xa0", " ") in text

    measured = Metrics.read(ROOT / "results/reference/h100/metrics.json").quantities
    for found, name in (
        (measured, "factor.engine"),
        (measured, "factor.batching"),
        (measured, "factor.paging"),
        (measured, "factor.cuda-graphs"),
        (measured, "paging.gain"),
    ):
        assert text_of(found[f"azure-conv.{name}"], "en") in text
    agreement = measured["azure-conv.vllm-paged.replay.agreement"]
    assert agreement.value == 1
    assert f"{agreement.n:,}" in text


def test_the_table_of_a_run_is_not_left_out():
    assert "<!-- smoke-table -->" not in ENGLISH + CHINESE
