"""What is served, and by which arms: the part of the configuration under `workloads`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kvlab.arms import ARMS
from kvlab.config.part import Part
from kvlab.measure.engines.registry import settings_of
from kvlab.paths import DATA, lengths_file, seen

LONGEST = 50_000_000  # characters of a prompt


class Requests(Part):
    """What is asked of the engines."""

    def file(self) -> str | None:
        """Where the file is that they are made from, a path or an address; None where there is none."""
        return None

    def settings(self) -> dict[str, Any]:
        """What the stage is given."""
        return self.model_dump(mode="json")


class DrawnRequests(Requests):
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
    times: int = Field(ge=1, le=1_000_000, description="How many times it is repeated, without a separator.")


class Prompts(Requests):
    """Texts, tokenised once with the model's own tokenizer."""

    kind: Literal["prompts"]
    prompts: list[Annotated[str, Field(min_length=1)] | Repeated] = Field(
        min_length=1, description="The prompts, in order: a text, or {text, times}. Any text but an empty one."
    )
    chat_template: bool = Field(default=False, description="Wrap each prompt in the model's chat template.")
    max_new_tokens: int = Field(
        default=64, ge=1, le=10_000_000, description="Output tokens a request; all engines produce exactly these."
    )

    @field_validator("prompts")
    @classmethod
    def _fit_in_memory(cls, prompts: list[str | Repeated]) -> list[str | Repeated]:
        for number, prompt in enumerate(prompts):
            length = len(prompt) if isinstance(prompt, str) else len(prompt.text) * prompt.times
            if length > LONGEST:
                raise ValueError(f"prompt {number} has {length} characters; at most {LONGEST} are taken")
        return prompts


class AzureConv(DrawnRequests):
    """Length pairs resampled from the Azure LLM inference trace (conversation, 2023)."""

    kind: Literal["azure-conv"]
    trace: str | None = Field(
        default=None, description="Path or URL of the original CSV; else the project's joint table."
    )

    def file(self) -> str | None:
        """The trace, or the project's table."""
        return self.trace or seen(DATA / "azure-conv-lengths.csv")


class Paper(DrawnRequests):
    """ShareGPT-like lengths with the paper's means (section 6.1, Fig. 11)."""

    kind: Literal["paper"]
    prompt_mean: float = Field(default=161.31, gt=0, le=1e6, description="Mean prompt tokens.")
    prompt_cv: float = Field(
        default=1.6, gt=0, le=100, description="Coefficient of variation of the lognormal prompt lengths."
    )
    output_mean: float = Field(default=337.99, gt=0, le=1e6, description="Mean output tokens.")
    output_cv: float = Field(
        default=0.877, gt=0, le=100, description="Coefficient of variation of the gamma output lengths."
    )


class Published(Part):
    """Lengths that the paper's own artifact published (no text). No licence is stated, so the project has none."""

    kind: Literal["sharegpt", "alpaca"] = Field(description="Which of the artifact's files.")
    path: str | None = Field(
        default=None,
        description="The artifact's pickle, or its pairs as CSV: a path or URL, or download; None: what KVLAB_SHAREGPT "
        "(or KVLAB_ALPACA) names. A workload that is served is downloaded, by its digest, where neither says.",
    )
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Digest of a file of your own in the same form."
    )

    def file(self) -> str | None:
        """Where the file is, by the configuration or the environment; None where neither names one."""
        return lengths_file(self.kind, self.path)

    def settings(self) -> dict[str, Any]:
        """What the stage is given. The path of the environment variable is left out of the run's folder."""
        return self.model_dump(mode="json") | {"path": self.file()}


class PublishedRequests(Published, DrawnRequests):
    """Pairs of the artifact's, in the order in which its authors draw them, or resampled."""

    order: Literal["authors", "resampled"] = Field(
        default="authors",
        description="authors: the file's first pairs that pass their filter, shuffled by the seed as they do. "
        "resampled: drawn with replacement by the seed.",
    )
    seed: int | None = Field(default=None, ge=0, description="Seed of the order; None: data_seed.")


class UserFile(Requests):
    """A file of your own: JSON Lines with {"text": …} or {"prompt_tokens": …}, and optional "output_tokens"."""

    kind: Literal["file"]
    path: str = Field(min_length=1, description="The JSON Lines file.")
    requests: int | None = Field(
        default=None, ge=1, le=100_000, description="Take this many, the first ones; None: all of the file."
    )
    max_prompt_tokens: int | None = Field(default=None, ge=1, description="Drop requests with a longer prompt.")
    max_output_tokens: int | None = Field(default=None, ge=1, description="Drop requests with a longer output.")
    max_new_tokens: int = Field(default=64, ge=1, le=10_000_000, description="Output tokens where a line names none.")
    sequential_requests: int | None = Field(default=None, ge=1, description="Sequential arms serve the first so many.")

    def file(self) -> str | None:
        """The user's file."""
        return self.path


Rate = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
Rates = (
    Annotated[list[Rate], Field(min_length=1)]
    | Annotated[list[Annotated[list[Rate], Field(min_length=1)]], Field(min_length=1)]
)


class Closed(Part):
    """All requests are there from the start."""

    kind: Literal["closed"] = "closed"


class OpenLoop(Part):
    """Requests arrive at their planned times, whatever the engine does; each arm has a cell for each of its rates."""

    rates: dict[str, Rates] = Field(
        min_length=1,
        description="Arm → requests a second, one cell each: a list for all blocks, or a list of lists, one a block.",
    )
    duration_s: float = Field(default=35.0, gt=0, le=3600, description="Requests arrive for so long, seconds.")
    drain_s: float = Field(
        default=15.0, ge=0, le=3600, description="A cell ends so long after; what is unfinished is a lower bound."
    )
    leave_out_s: float = Field(
        default=10.0, ge=0, description="Requests that arrive in the first seconds are left out of latencies."
    )
    bound_s_per_token: float = Field(
        default=0.05, gt=0, le=100, description="Normalized latency at which a rate counts as sustained no more."
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> OpenLoop:
        if self.duration_s <= self.leave_out_s:
            raise ValueError(
                f"duration_s {self.duration_s:g} is not longer than leave_out_s {self.leave_out_s:g}: nothing would be "
                "left to measure; raise the one or lower the other"
            )
        return self

    def of(self, arm: str, block: int) -> list[float]:
        """The arm's rates in a block, none where it has no cell in it."""
        given: list[Any] = list(self.rates.get(arm, []))
        if given and isinstance(given[0], list):
            given = given[block] if block < len(given) else []
        return [float(rate) for rate in given]


class Poisson(OpenLoop):
    """Arrivals at random: gaps drawn once, exponential, the same for every arm of a block at its own rate."""

    kind: Literal["poisson"]


class Traced(OpenLoop):
    """The trace's own time stamps, scaled to each rate; for `azure-conv` with the original `trace`."""

    kind: Literal["trace"]


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

    arrivals: Annotated[Closed | Poisson | Traced, Field(discriminator="kind")] = Field(
        default=Closed(), description="When requests come: closed (all from the start), poisson or trace."
    )
    shuffle: bool = Field(
        default=False, description="Each block serves the requests in an order of its own, the same for every arm."
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
    def _arrivals_can_be(self) -> Comparison:
        if not isinstance(self.arrivals, OpenLoop):
            return self
        able = [arm for arm in ARMS if ARMS[arm].feed == "batch" and settings_of(ARMS[arm].engine).open_loop]
        for arm in self.arms:
            if arm not in able:
                raise ValueError(f"arrivals: {arm} can't take requests that arrive over time; can: {', '.join(able)}")
            given: list[Any] = list(self.arrivals.rates.get(arm, []))
            if not given:
                raise ValueError(f"arrivals.rates: none for {arm}; every arm of the workload needs its rates")
            if isinstance(given[0], list) and len(given) != self.repeats:
                raise ValueError(
                    f"arrivals.rates.{arm}: {len(given)} lists, one a block is needed: repeats is {self.repeats}"
                )
        for arm in self.arrivals.rates:
            if arm not in self.arms:
                raise ValueError(f"arrivals.rates: {arm!r} is not among the arms of this workload")
        if getattr(self.requests, "sequential_requests", None) is not None:
            raise ValueError("arrivals: requests.sequential_requests is for closed queues; leave it out")
        if isinstance(self.arrivals, Traced) and not getattr(self.requests, "trace", None):
            raise ValueError(
                "arrivals: kind trace needs time stamps, which only the original trace has; set requests.kind to "
                "azure-conv and requests.trace to its file"
            )
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
