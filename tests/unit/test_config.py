"""The configuration: what is accepted, what is refused and how it says so, and what each stage depends on."""

from pathlib import Path

import pytest
import yaml

from kvlab import config
from kvlab.arms import ARMS
from kvlab.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def smoke(**changes):
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text(encoding="utf-8"))
    return data | changes


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_that_ships_is_valid(file):
    assert config.load(file).run == file.resolve().stem  # config.yaml is a link to the default


def test_schema_is_current():
    assert (ROOT / "config/schema.json").read_text(encoding="utf-8") == config.schema()


def test_every_field_says_what_it_is():
    schema = config.Config.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    silent = [
        f"{part['title']}.{name}"
        for part in parts
        for name, field in part["properties"].items()
        if not field.get("description") and "$ref" not in field and field.get("const") is None
    ]
    assert silent == []


def test_every_field_is_in_the_readme():
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    schema = config.Config.model_json_schema()
    names = {name for part in [schema, *schema["$defs"].values()] for name in part["properties"]}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modle": "x"}, "modle: no such key (did you mean 'model'?)"),
        ({"workloads": {}}, "workloads: "),
        ({"run": "../up"}, "run: "),
        ({"measure": {"dtype": "int3"}}, "measure.dtype: "),
        ({"measure": {"sampling": {"interval_ms": -1}}}, "measure.sampling.interval_ms: "),
        ({"report": {"language": "fr"}}, "report.language: "),
    ],
)
def test_faults_are_one_line_that_names_the_key(change, said):
    with pytest.raises(ConfigError) as caught:
        config.parse(smoke(**change), "here.yaml")
    assert str(caught.value).startswith("here.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ["vllm-pagged"]}, "unknown arm 'vllm-pagged'"),
        ({"arms": ["vllm-paged", "vllm-paged"]}, "an arm is listed twice"),
        ({"kv_slots": -5}, "kv_slots: "),
        ({"kv_slots": 100, "max_model_len": 200}, "kv_slots 100 is smaller than one request of max_model_len 200"),
        ({"requests": {"kind": "prompts", "prompts": []}}, "prompts: "),
        ({"requests": {"kind": "prompts", "prompts": [""]}}, "prompts.0"),
        ({"requests": {"kind": "novels"}}, "requests: "),
    ],
)
def test_faults_of_a_workload(change, said):
    data = smoke()
    data["workloads"]["seed"] |= change
    with pytest.raises(ConfigError, match=r"workloads\.seed") as caught:
        config.parse(data, "here.yaml")
    assert said in str(caught.value)


def test_not_yaml(tmp_path):
    (tmp_path / "bad.yaml").write_text("run: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="neither YAML nor JSON"):
        config.load(tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.yaml")


def test_a_setting_named_without_its_part_is_set_in_its_part():
    data = config.spread(
        smoke(dtype="bfloat16", interval_ms="5", repeats="2", prompts=["Hi"], model="a/b", block_size=32)
    )
    found = config.parse(data, "t")
    assert found.measure.dtype == "bfloat16"
    assert found.measure.sampling.interval_ms == 5
    assert found.measure.vllm.block_size == 32
    assert [part.repeats for part in found.workloads.values()] == [2, 2]
    assert found.workloads["seed"].requests.prompts == ["Hi"]
    assert found.model.source == "a/b"


def test_a_setting_that_no_part_has_is_refused():
    with pytest.raises(ConfigError, match="interval_m: no such key"):
        config.parse(config.spread(smoke(interval_m=5)), "t")


def test_a_stage_sees_only_its_own_settings():
    before = config.parse(smoke(), "t")
    data = smoke(report={"palette": "tol-bright"}, analysis={"confidence": 0.9})
    data["measure"]["vllm"] = {"block_size": 32}
    after = config.parse(data, "t")

    def changed(stage, *which):
        return before.section(stage, *which) != after.section(stage, *which)

    assert not changed("model")
    assert not changed("workload", "seed")
    assert not changed("measure", "seed", "hf-sequential-static")
    assert changed("measure", "seed", "vllm-paged")
    assert changed("analyse")
    assert changed("report")


def test_runs_are_interleaved_repeat_by_repeat():
    order = config.parse(smoke(), "t").raw()
    repeats = [repeat for _, _, repeat in order]
    assert repeats == sorted(repeats)
    assert len({tuple(which) for which in order}) == len(order)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cut_arms": ["hf-continuous"]}, "cut_arms: 'hf-continuous' is not among the arms"),
        ({"cut_arms": ["vllm-paged"]}, r"cut_arms: requests.sequential_requests says how many"),
    ],
)
def test_cut_arms_must_fit_the_workload(changed, said):
    data = smoke()
    data["workloads"] = {"seed": data["workloads"]["seed"] | changed}
    with pytest.raises(ConfigError, match=said):
        config.parse(data, "t")


def test_arms_are_named_by_their_keys():
    assert all(name == arm.name for name, arm in ARMS.items())
    assert {arm.feed for arm in ARMS.values()} == {"sequential", "batch"}


def test_an_arm_is_one_entry(monkeypatch):
    """What the README's contributor part shows: an arm that fixes a setting of its engine."""
    from kvlab.arms import Arm

    arm = Arm("vllm-paged-64", engine="vllm", feed="batch", changes="blocks of 64 tokens", options={"block_size": 64})
    monkeypatch.setitem(ARMS, arm.name, arm)
    found = config.parse(config.spread(smoke(arms=["vllm-paged", "vllm-paged-64"])), "t")
    ours, other = (found.section("measure", "seed", name) for name in ("vllm-paged-64", "vllm-paged"))
    assert ours["settings"]["engine"]["block_size"] == 64
    assert other["settings"]["engine"]["block_size"] == 16
