"""What is served, and by which arms: the part of the configuration under `workloads`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from kvlab.arms import ARMS
from kvlab.config.part import Part
from kvlab.paths import lengths_file


class DrawnRequests(Part):
    """What the workloads made from lengths share: token ids are random, only the lengths matter."""

    requests: int = Field(default=64, ge=1, le=100_000, description="How many requests.")
    max_prompt_tokens: int | None = Field(default=None, ge=1, description="Drop pairs with a longer prompt.")
    max_output_tokens: int | None = Field(default=None, ge=1, description="Drop pairs with a longer output.")
    scale: float = Field(
        default=1.0, gt=0, le=1, description="Multiply lengths by this (at least 1 token each): small runs."
    )
    sequential_requests: int | None = Field(
        default=None,
        ge=1,
        description="Sequential arms serve this many (the first ones); ratios use the same on both sides.",
    )


class Repeated(Part):
    """A long prompt made of a short text."""

    text: str = Field(min_length=1, description="The text.")
    times: int = Field(ge=1, description="How many times it stands in the prompt, without a separator.")


class Prompts(Part):
    """Texts, tokenised once with the model's own tokenizer."""

    kind: Literal["prompts"]
    prompts: list[Annotated[str, Field(min_length=1)] | Repeated] = Field(
        min_length=1, description="The prompts, in order: a text, or {text, times}. Any text but an empty one."
    )
    chat_template: bool = Field(default=False, description="Wrap each prompt in the model's chat template.")
    max_new_tokens: int = Field(
        default=64, ge=1, description="Output tokens a request; all engines produce exactly these."
    )


class AzureConv(DrawnRequests):
    """Length pairs resampled from the Azure LLM inference trace (conversation, 2023)."""

    kind: Literal["azure-conv"]
    trace: str | None = Field(
        default=None, description="Path or URL of the original CSV; else the project's joint table."
    )


class Paper(DrawnRequests):
    """ShareGPT-like lengths with the paper's means (section 6.1, Fig. 11)."""

    kind: Literal["paper"]
    prompt_mean: float = Field(default=161.31, gt=0, description="Mean prompt tokens.")
    prompt_cv: float = Field(default=1.6, gt=0, description="Coefficient of variation of the lognormal prompt lengths.")
    output_mean: float = Field(default=337.99, gt=0, description="Mean output tokens.")
    output_cv: float = Field(default=0.877, gt=0, description="Coefficient of variation of the gamma output lengths.")


class Published(Part):
    """Lengths that the paper's own artifact published (no text). No licence is stated, so the project has none."""

    kind: Literal["sharegpt", "alpaca"] = Field(description="Which of the artifact's files.")
    path: str | None = Field(
        default=None,
        description="The artifact's pickle, or its pairs as CSV: a path or URL; None: what KVLAB_SHAREGPT (or "
        "KVLAB_ALPACA) names. A workload of sharegpt without either is downloaded by its digest.",
    )
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Digest of a file of your own in the same form."
    )

    def file(self) -> str | None:
        """Where the file is, by the configuration or the environment; None where neither names one."""
        return lengths_file(self.kind, self.path)


class PublishedRequests(Published, DrawnRequests):
    """Pairs of the artifact's, in the order in which its authors draw them, or resampled."""

    order: Literal["authors", "resampled"] = Field(
        default="authors",
        description="authors: the file's first pairs that pass their filter, shuffled by the seed as they do. "
        "resampled: drawn with replacement by the seed.",
    )
    seed: int | None = Field(default=None, ge=0, description="Seed of the order; None: data_seed.")


class UserFile(DrawnRequests):
    """A file of your own: JSON Lines with {"text": …} or {"prompt_tokens": …}, and optional "output_tokens"."""

    kind: Literal["file"]
    path: str = Field(min_length=1, description="The JSON Lines file.")
    max_new_tokens: int = Field(default=64, ge=1, description="Output tokens where a line names none.")


class Comparison(Part):
    """One workload, and the arms that are compared on it at one KV budget."""

    requests: Annotated[
        Prompts | AzureConv | Paper | PublishedRequests | UserFile,
        Field(discriminator="kind", description="What is asked of the engines."),
    ]
    arms: list[str] = Field(min_length=1, description="Arms to run; workflow/kvlab/arms.py lists them.")
    kv_slots: int = Field(default=4096, ge=1, le=100_000_000, description="KV budget of every arm, in slots (tokens).")
    max_model_len: int = Field(
        default=1024, ge=2, description="Longest prompt + output, tokens: a contiguous cache's length."
    )
    repeats: int = Field(default=3, ge=1, le=100, description="Process-level repeats of each arm.")
    cut_arms: list[str] = Field(
        default=[],
        description="Arms beside the sequential ones that serve the first sequential_requests only: too slow for all.",
    )

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: list[str]) -> list[str]:
        for arm in arms:
            if arm not in ARMS:
                raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is listed twice")
        return arms

    @model_validator(mode="after")
    def _cut_arms_are_its_own(self) -> Comparison:
        for arm in self.cut_arms:
            if arm not in self.arms:
                raise ValueError(f"cut_arms: {arm!r} is not among the arms of this workload")
        if self.cut_arms and getattr(self.requests, "sequential_requests", None) is None:
            raise ValueError("cut_arms: requests.sequential_requests says how many they serve; set it")
        return self

    @model_validator(mode="after")
    def _pool_holds_a_request(self) -> Comparison:
        if self.kv_slots < self.max_model_len:
            raise ValueError(
                f"kv_slots {self.kv_slots} is smaller than one request of max_model_len {self.max_model_len}; "
                "raise kv_slots or lower max_model_len"
            )
        return self


KINDS: dict[str | None, type[Part]] = {
    "prompts": Prompts,
    "azure-conv": AzureConv,
    "paper": Paper,
    "sharegpt": PublishedRequests,
    "alpaca": PublishedRequests,
    "file": UserFile,
}
