"""What a run's folder holds for the page, read once: figures, pools, texts, guards, runs, costs, claims."""

from __future__ import annotations

from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from kvlab.publish.page.answers import Answered, answered
from kvlab.publish.page.asked import Asking
from kvlab.publish.page.charts import Pool, gain_rows
from kvlab.publish.page.gpu import Layer, gpu_layers
from kvlab.publish.page.headlines import Headlines, counted, pair, product
from kvlab.publish.page.inline import inline_svg
from kvlab.publish.page.pool_view import aspects, pool_view
from kvlab.publish.words.facts import Fact, Facts
from kvlab.publish.words.strings import LANGUAGES, look_up
from kvlab.quantities import COUNTS, Message, Metrics, Quantities, Quantity
from kvlab.raw import RawRun
from kvlab.records import read_json, read_run, read_text
from kvlab.roles import PAGING
from kvlab.simulate.studies import paper_values


class Content:
    """Views of the run in `root` for the templates."""

    def __init__(self, root: Path, metrics: Metrics, facts: Facts) -> None:
        self.root, self.metrics, self.facts = root, metrics, facts
        self.more: dict[str, Quantity] = {}  # quantities that are shown and are not the metrics' own
        self.workloads: list[str] = list(metrics.facts["workloads"])
        self.open_loops: list[str] = list(metrics.facts.get("open", {}))  # their requests arrive over time

    @cached_property
    def first_runs(self) -> dict[tuple[str, str], RawRun]:
        """Of each arm of each workload, the first repeat that counts."""
        found: dict[tuple[str, str], RawRun] = {}
        for entry in self.metrics.runs:
            key = (entry["workload"], entry["arm"])
            if entry["validity"] in COUNTS and key not in found:
                found[key] = RawRun.read(self.root, *key, entry["repeat"])
        return found

    def run_fact(self, workload: str, arm: str, key: str, kind: str = "text") -> Fact | None:
        """A fact of the `run.json` of an arm's first counting repeat."""
        run = self.first_runs.get((workload, arm))
        if run is None:
            return None
        return self.facts.get(f"{run.folder.relative_to(self.root)}/run.json", key, kind)

    def any_run(self, workload: str, engine: str) -> str | None:
        """An arm of `workload` that `engine` ran."""
        mine = (arm for (w, arm), run in self.first_runs.items() if w == workload and run.run.engine["name"] == engine)
        return next(mine, None)

    def workers(self, workload: str) -> Fact | None:
        """On how many GPUs an arm of `workload` ran, where it is more than one."""
        runs = [(w, arm) for (w, arm), run in self.first_runs.items() if run.run.engine.get("workers", 1) > 1]
        several = next((arm for w, arm in runs if w == workload), None)
        return self.run_fact(workload, several, "engine.workers", "number") if several else None

    @property
    def random(self) -> bool:
        """Whether the model's weights are random."""
        source = self.facts.get("config.json", "model.source")
        return source is not None and str(source.value).startswith("random:")

    def host_bound(self, workload: str) -> list[str]:
        """Arms with a run whose speed was limited by the host and not by the GPU."""
        return sorted({e["arm"] for e in self.metrics.runs if e["workload"] == workload and e.get("host_bound")})

    def asked(self, workload: str) -> Asking:
        """What kind of requests, how long, and how they arrive."""
        runs = [run for (name, _), run in self.first_runs.items() if name == workload]
        found = Asking.of(workload, self.facts, runs)
        self.more |= {q.id: q for one in found.lengths for q in (one.mean, one.most)}
        return found

    # --- figures ------------------------------------------------------------------------------------------------

    @cached_property
    def _figures(self) -> list[tuple[Path, dict[str, Any]]]:
        folders = [self.root / "figures", self.root / "simulated" / "figures"]
        files = [folder / "figures.json" for folder in folders if (folder / "figures.json").exists()]
        return [(file.parent, figure) for file in files for figure in read_json(file)["figures"]]

    def figure(self, kind: str, workload: str | None) -> dict[str, Any] | None:
        """A figure's drawing in each language, its caption and text alternative; None where it was left out."""
        for number, (folder, figure) in enumerate(self._figures):
            if figure["kind"] == kind and figure["workload"] == workload:
                files = figure.get("files") or dict.fromkeys(LANGUAGES, figure)
                name = f"f-{kind}-{workload}" if workload else f"f-{kind}"
                texts = {x: read_text(folder / files[x]["file"]) for x in LANGUAGES}
                drawn = {x: inline_svg(texts[x], f"g{number}{x[0]}", f"{name}-{x}-alt") for x in LANGUAGES}
                return {"name": name, "svg": drawn, "alt": figure["alt"], "caption": figure["caption"]}
        return None

    # --- the simulation -----------------------------------------------------------------------------------------

    @cached_property
    def simulated(self) -> list[dict[str, Any]]:
        """The simulation's claims where the run has one: the paper's value, ours as a quantity, the verdict."""
        if not (self.root / "simulated" / "claims.json").exists():
            return []
        known = Metrics.read(self.root / "simulated" / "metrics.json").quantities
        shown = []
        for claim in self.facts.document("simulated/claims.json"):
            quantity = known.get(claim["quantity"])
            spread = {by: [known[key] for key in ends] for by, ends in claim.get("spread", {}).items()}
            steps = {ms: known[key] for ms, key in claim.get("by_step", {}).items()}
            for one in (quantity, *(end for ends in spread.values() for end in ends), *steps.values()):
                if one is not None:
                    self.more.setdefault(one.id, one)
            shown.append(claim | {"quantity": quantity, "spread": spread, "by_step": steps})
        return shown

    @property
    def differences(self) -> dict[str, dict[str, Any]]:
        """What the authors' scripts do differently from their text, where their own requests were simulated.

        By the keys of the strings: what the scripts set.
        """
        traced = any(claim["spread"] for claim in self.simulated)
        return dict.fromkeys(look_up("en", "simulated.differences"), paper_values.read()["artifact"]) if traced else {}

    # --- why ----------------------------------------------------------------------------------------------------

    def products(self, workload: str) -> list[tuple[str, Quantity]]:
        """Requests together ÷ time per token of the workload's batch arms that share an engine."""
        made = []
        for arm in self.metrics.roles.with_paging(counted(self.metrics, workload)):
            if one := product(self.metrics, workload, arm):
                self.more[one.id] = one
                made.append((arm, one))
        return made

    # --- the paper, measured again ------------------------------------------------------------------------------

    @property
    def measures_paper(self) -> bool:
        """Whether the run has anything for the section on the paper's figures."""
        kinds = {figure["kind"] for _, figure in self._figures if figure["workload"]}
        return bool(kinds & {"paper-shares", "rates", "batched"})

    # --- the whole GPU ------------------------------------------------------------------------------------------

    def gpu(self, workload: str) -> list[tuple[str, list[Layer]]]:
        """Each arm whose device memory is known layer by layer, from the weights to what is free."""
        known = [(arm, gpu_layers(self.metrics, workload, arm)) for arm in counted(self.metrics, workload)]
        for _, layers in known:
            self.more |= {one.quantity.id: one.quantity for one in layers if ".gpu." in one.quantity.id}
        return [(arm, layers) for arm, layers in known if layers]

    # --- what was predicted -------------------------------------------------------------------------------------

    @cached_property
    def predictions(self) -> Quantities:
        """What step times fitted on one run predict of the others; empty where the run has none."""
        file = self.root / "predicted" / "metrics.json"
        return Metrics.read(file).quantities if file.exists() else Quantities()

    def predicted(self, key: str) -> Quantity | None:
        """A quantity of the predictions, with its trail."""
        found = self.predictions.get(key)
        if found is not None:
            self.more.setdefault(found.id, found)
        return found

    def predicted_cells(self, workload: str) -> list[str]:
        """Arms, and arms at a rate, of which the throughput was predicted and measured."""
        ids = (q.id for q in self.predictions if q.id.startswith(f"{workload}.") and q.id.endswith(".off.throughput"))
        return [key.removeprefix(f"{workload}.").removesuffix(".off.throughput") for key in ids]

    def grid(self, workload: str) -> dict[str, Any]:
        """What the simulator computed beforehand for other pools, blocks, lengths and rates; empty without it."""
        found = self.facts.document("predicted/grid.json") or {"workloads": {}}
        return dict(found["workloads"].get(workload, {}))

    def gains(self, workload: str) -> list[Pool]:
        """Paging's gain over pool sizes."""
        rows = gain_rows(workload, part) if (part := self.grid(workload)) else []
        self.more |= {q.id: q for row in rows for q in (row.contiguous, row.paged, row.gain)}
        return rows

    # --- the pool view ------------------------------------------------------------------------------------------

    @cached_property
    def pool_workloads(self) -> list[str]:
        """Workloads with recorded steps, the one that shows paging first."""
        has = [w for w in self.workloads if any(run.steps for (name, _), run in self.first_runs.items() if name == w)]
        headlines = Headlines.of(self.metrics)
        return sorted(has, key=lambda w: (w != headlines.paging, self.workloads.index(w)))

    def pool_arms(self, workload: str) -> list[str]:
        """Arms of a workload with recorded steps."""
        return [a for a in counted(self.metrics, workload) if self.first_runs[workload, a].steps]

    def pool_pair(self, workload: str) -> tuple[str, str] | None:
        """The two arms that the view opens with."""
        decided = (q := self.metrics.quantities.get(f"{workload}.paging.gain")) is not None and q.value is not None
        return pair(self.pool_arms(workload), self.metrics.roles, decided)

    def pool_grid(self, workload: str) -> tuple[str, str]:
        """Aspect ratios of the view's grids as it opens, wide and on a phone: the space is reserved before the script
        runs."""
        two = [self.first_runs[workload, arm].run for arm in self.pool_pair(workload) or ()]
        return aspects([run.pool_slots for run in two], [run.reserve_slots or run.block_size for run in two])

    def pools(self) -> dict[str, Any]:
        """The data of the pool view: workload → arms → parts → frames."""
        made: dict[str, Any] = {}
        for workload in self.pool_workloads:
            arms: dict[str, Any] = {}
            for arm in self.pool_arms(workload):
                run = self.first_runs[workload, arm]
                parts = {p: view for p in run.run.parts or [run.part] if (view := run.of(p)) or p == run.part}
                arms[arm] = {p: pool_view(view or run) for p, view in parts.items() if (view or run).steps}
            made[workload] = {"pair": self.pool_pair(workload), "arms": arms}
        return made

    def texts(self, workload: str) -> list[Answered]:
        """Prompts that are texts, with their answers; empty where the workload has only lengths."""
        runs = {arm: self.first_runs[workload, arm] for arm in counted(self.metrics, workload)}
        return answered(self.root / "workloads" / f"{workload}.jsonl", runs)

    @property
    def traced(self) -> list[tuple[str, str]]:
        """The (workload, arm) whose trace the page names: the one that shows paging."""
        shown = [(w, self.pool_arms(w)) for w in self.pool_workloads[:1]]
        return [(w, self.metrics.roles.first(PAGING, arms) or arms[-1]) for w, arms in shown if arms]

    # --- the proof ----------------------------------------------------------------------------------------------

    def guards(self, workload: str) -> list[dict[str, Any]]:
        """The guards of a workload."""
        return [guard for guard in self.metrics.guards if guard["workload"] == workload]

    def runs(self, workload: str) -> list[tuple[str, list[dict[str, Any]]]]:
        """Each planned arm with its repeats."""
        arms = self.metrics.facts["workloads"][workload]["arms"]
        by_arm = {arm: [e for e in self.metrics.runs if (e["workload"], e["arm"]) == (workload, arm)] for arm in arms}
        return [(arm, entries) for arm, entries in by_arm.items() if entries]

    @property
    def not_run(self) -> list[dict[str, Any]]:
        """Runs that were planned and have no numbers, an arm once for each reason."""
        left = [e for e in self.metrics.runs if e["validity"] not in COUNTS]
        keyed = sorted(left, key=lambda e: (e["workload"], e["arm"], str(e["reason"])))
        groups = groupby(keyed, key=lambda e: (e["workload"], e["arm"], str(e["reason"]), e["validity"]))
        return [next(group) for _, group in groups]

    def outside(self, declared: list[str]) -> list[str]:
        """Arms that this kvlab has and no workload of this run plans."""
        planned = {arm for facts in self.metrics.facts["workloads"].values() for arm in facts["arms"]}
        return [arm for arm in declared if arm not in planned]

    @property
    def claims(self) -> list[dict[str, Any]]:
        """`claims.json` where the run has one."""
        document = self.facts.document("claims.json")
        if not document:
            return []
        return [claim | {name: Message.read(claim.get(name)) for name in ("seen", "expected_text")}
                for claim in document["claims"]]  # fmt: skip

    def claims_by_id(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Each claim with its verdicts, one a workload, in the order of the claims."""
        ids = list(dict.fromkeys(claim["id"] for claim in self.claims))
        return [(one, [claim for claim in self.claims if claim["id"] == one]) for one in ids]

    def claims_with(self, verdict: str) -> Fact:
        """How many claims have this verdict."""
        count = sum(claim["verdict"] == verdict for claim in self.claims)
        return self.facts.keep("claims.json", f"verdict = {verdict}", count, "number")

    def costs(self) -> list[dict[str, Any]]:
        """Snakemake's benchmark files of the stages that the page is made from: stage, seconds, memory.

        Those that come after it, or beside it, may or may not be there when it is made.
        """
        stages = ["probe", "model", *(f"workload/{workload}" for workload in self.workloads)]
        stages += dict.fromkeys(f"measure/{e['workload']}/{self._process(e)}/{e['repeat']}" for e in self.metrics.runs)
        rows = []
        for stage in [*stages, "analyse", "notebook"]:
            file = f"costs/{stage}.tsv"
            if not (self.root / file).exists():
                continue
            seconds = self.facts.cell(file, "s", "s")
            rows.append({"stage": stage, "s": seconds, "max_rss": self.facts.cell(file, "max_rss", "bytes", 1 << 20)})
        return rows

    def _process(self, entry: dict[str, Any]) -> str:
        """The process that measured a run: in older runs one of its own."""
        run = read_run(self.root / "raw" / entry["workload"] / entry["arm"] / str(entry["repeat"]))
        return str((run.process or {}).get("name", entry["arm"]))

    def quantities(self) -> list[Quantity]:
        """Every quantity that the page may show: the metrics', and those of a simulation that were asked for."""
        return [*self.metrics.quantities, *self.more.values()]
