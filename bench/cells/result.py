"""A finished cell: its rows by column, its metrics, and whether it may be ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.detector import RANDOM_WEIGHTS
from ..core.norms import SEMANTIC
from ..core.protocol import STANDARD
from ..core.shifts import label
from ..stats.measured import Metrics
from .measures import Scored
from .metrics import METRICS, measured
from .rows import Row, Table
from .schema import CheckRecord, FinishedRecord
from .spec import RunSpec
from .submission import CellLocation
from .text_table import TextTable, html, rich_table

if TYPE_CHECKING:
    from rich.console import Group


CLEAN_TOO_LOW = 0.2  # AUROC: of however few images, no working detector has that
LABEL_SHOWN = 60  # characters of a name with its settings, in a repr
Standing = Literal["own", "reproduced", "submitted"]
NOT_REPRODUCED = "submitted, not reproduced"


@dataclass(frozen=True, eq=False)
class Result:
    """A finished cell."""

    folder: Path
    record: FinishedRecord
    table: Table
    source: str = ""
    """The submission that it came in, below the results folder; empty for one of our own."""
    inside: str = ""
    """Where it lies in the submission."""
    standing: Standing = "own"
    """`submitted` until `bench verify --rerun` has reproduced it here; only then it is ranked."""

    @property
    def name(self) -> str:
        """Its folder, as a sentence says it."""
        return CellLocation(self.folder, self.source, self.inside).name

    @property
    def title(self) -> str:
        """What was run, in one line."""
        spec = self.spec
        sides = f", {spec.targets} images attacked" * (spec.targets != "both") + f", seed {spec.seed}" * bool(spec.seed)
        bed = f"{spec.bed} {spec.category}, {spec.image_size} px"
        ball = f", {spec.norm} {spec.eps}" * (not self.of_shifts)
        return f"{self.detector} on {bed}: {self.attack}{ball}{sides}"

    @property
    def spec(self) -> RunSpec:
        return self.record.spec

    @property
    def category(self) -> str:
        return self.spec.category

    @cached_property
    def eps(self) -> Fraction:
        """The budget, exact."""
        return self.spec.threat.eps

    @cached_property
    def detector(self) -> str:
        """The name with the parameters that are not the defaults; a file shows the start of its hash."""
        return with_settings(self.spec.detector, self.spec.detector_parameters)

    @cached_property
    def attack(self) -> str:
        spec = self.spec
        further = {"limit": spec.limit, "draws": spec.draws, "goal": None if spec.goal == "rank" else spec.goal}
        further |= {"threshold_folds": spec.threshold_folds}
        if self.of_box:
            name = f"worst of {'the whole' if self.eps == 1 else spec.eps + ' of the'} box of light and pose"
            return with_settings(name, spec.attack_parameters | {k: v for k, v in further.items() if v is not None})
        if self.of_shifts:
            own = self.record.attack.parameters
            name = f"{spec.attack} {label(own['kinds'], own['severities'])}"
            return with_settings(name, {k: v for k, v in further.items() if v is not None})
        settings = {**spec.attack_parameters, **{k: v for k, v in further.items() if v is not None}}
        return with_settings(self.evaluation or spec.attack, settings)

    @property
    def evaluation(self) -> str:
        """Of the attack `standard`, its version, if that is an earlier one, whose cells are compared with no other."""
        version = self.record.attack.parameters.get("version", STANDARD)
        return str(version) if self.spec.attack == "standard" and version != STANDARD else ""

    @property
    def certificate(self) -> bool:
        """`worst` is a bound that holds for every image of the ball, not a score that an attack found."""
        return self.record.kind == "certificate"

    @property
    def of_maps(self) -> bool:
        """It is about anomaly maps: its rows are no image scores."""
        return self.record.kind == "localisation"

    @property
    def of_shifts(self) -> bool:
        """Nobody attacks: light and lens are others."""
        return self.record.kind == "shift"

    @property
    def of_scores(self) -> bool:
        """It is about image scores: an attack, or a certificate."""
        return self.record.kind in ("attack", "certificate")

    @property
    def of_both_classes(self) -> bool:
        """It is about image scores, of normal and anomalous images: what an AUROC compares."""
        return self.of_scores and not self.normal_only

    @property
    def claim(self) -> str:
        """What metrics of `worst` are called: `robust`, as far as an attack knows, or `certified`; `shifted` where
        nobody attacks, `worst_shift` where an image meets the worst of a box."""
        if self.of_box:
            return "worst_shift"
        return "certified" if self.certificate else "shifted" if self.of_shifts else "robust"

    @property
    def stops_at_threshold(self) -> bool:
        """The attack wanted the decision wrong, no more: its scores are no worst case, and rank nothing."""
        return self.spec.goal == "threshold" or self.radii is not None

    @property
    def ranked_by(self) -> str:
        """The metric that a leaderboard of such cells goes by."""
        return f"{self.claim}_{self.score_name}"

    @property
    def of_box(self) -> bool:
        """Of shifts: each image meets the worst of a box of light and pose."""
        return self.of_shifts and self.spec.norm == SEMANTIC

    @property
    def normal_only(self) -> bool:
        """No test image is anomalous: there are false alarms to count, and nothing to rank."""
        return self.table.normal_only

    @property
    def score_name(self) -> str:
        """What that metric is made of: `auroc`, `accuracy`, `pixel_auroc` of maps, or `false_alarms` where all images
        are normal."""
        if self.of_maps:
            return "pixel_auroc"
        if self.normal_only:
            return "false_alarms"
        return "accuracy" if self.stops_at_threshold else "auroc"

    @cached_property
    def radii(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Of a minimum-norm attack, the radii of the normal and of the anomalous images that it was let at."""
        found = self.table.columns.get("radius")
        if found is None:
            return None
        known = ~np.isnan(found)
        return found[known & ~self.table.anomalous], found[known & self.table.anomalous]

    @property
    def parts(self) -> list[str]:
        """Of an attack that is made of several: their columns."""
        return self.record.attack.parts

    @property
    def checks(self) -> list[CheckRecord]:
        """What was checked before and after the attack."""
        return self.record.checks

    @property
    def unranked(self) -> list[str]:
        """Why this cell must not be ranked: that nobody has reproduced it, what the detector says of itself, and checks
        that failed."""
        own = [NOT_REPRODUCED] * (self.standing == "submitted") + [self.record.detector.unranked or ""]
        failed = [f"{check.name} check failed: {check.sentence}" for check in self.record.failed]
        return [why for why in (*own, *failed) if why]

    @cached_property
    def wrong_way(self) -> str:
        """A sentence if the clean scores rank the images worse than chance; else empty.

        Of random weights nothing can be said. That many images score the wrong way by bad luck alone is for the
        interval to say, but below CLEAN_TOO_LOW nobody waits for it.
        """
        if self.record.detector.unranked == RANDOM_WEIGHTS or "clean_auroc" not in self.metrics:
            return ""
        clean = self.metrics["clean_auroc"].value
        if clean >= 0.5 or (clean > CLEAN_TOO_LOW and self.metrics.estimate("clean_auroc").high >= 0.5):
            return ""
        return f"clean AUROC {clean:.2f}: higher must mean more anomalous; is the sign of the score turned round?"

    @property
    def warnings(self) -> list[str]:
        """What a reader of its numbers must know; of cells from before `wrong_way` was written down as well."""
        own = self.record.warnings
        return [*own, self.wrong_way] if self.wrong_way and self.wrong_way not in own else own

    def __repr__(self) -> str:
        """Metrics as far as they are recorded: to compute them takes a moment."""
        spec, metrics = self.spec, self.record.metrics or {}
        headlines = [m for m in METRICS.values() if m.headline and m.name in metrics]
        said = [f"{len(self.table.ids)} images", *(f"{m.title} {metrics[m.name]:.3f}" for m in headlines)]
        said += ["not ranked"] * bool(self.unranked)
        what = f"{_cut(self.detector)}, {_cut(self.attack)} {spec.norm} {spec.eps} on {spec.dataset}/{spec.category}"
        return f"Result({what}: {', '.join(said)})"

    def _repr_html_(self) -> str:
        return html(facts(self))

    def __rich__(self) -> Group:
        return rich_table(facts(self))

    @cached_property
    def metrics(self) -> Metrics:
        """Those of METRICS that such a cell has: none of a side that the threat model did not attack."""
        return measured(
            Scored(
                kind=self.record.kind,
                table=self.table,
                threshold=self.record.threshold.value,
                targets=self.spec.targets,
                stops_at_threshold=self.stops_at_threshold,
                parts=self.parts,
                salt=f"{self.spec.dataset}/{self.category}",
                box=self.of_box,
            )
        )


def _cut(label: str) -> str:
    return label if len(label) <= LABEL_SHOWN else f"{label[:LABEL_SHOWN]}..."


def with_settings(name: str, settings: Mapping[str, Any]) -> str:
    """`name (k=v, ...)`"""
    shown = ", ".join(f"{k}={short(v)}" for k, v in settings.items())
    return f"{name} ({shown})" if shown else name


def short(value: Any) -> str:
    """A parameter's value as a table shows it: of a file, the start of its hash."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[: len("sha256:") + 8] if text.startswith("sha256:") else text


def wrong_way_of(folder: Path, record: FinishedRecord, rows: Sequence[Row]) -> str:
    """As `Result.wrong_way`."""
    return Result(folder, record, Table.of(rows)).wrong_way


def metrics_of(folder: Path, record: FinishedRecord, rows: Sequence[Row]) -> dict[str, float]:
    """The point value of every metric that a report makes of these rows."""
    return {name: metric.value for name, metric in Result(folder, record, Table.of(rows)).metrics.items()}


def facts(result: Result) -> TextTable:
    """Of a cell: every metric with its 95 % interval, and how its checks went."""
    rows = [(name, str(result.metrics.estimate(name))) for name in result.metrics]
    failed, count = len(result.record.failed), len(result.checks)
    checks = f"{failed} of {count} checks failed" if failed else f"all {count} checks passed"
    below = [f"{len(result.table.ids)} images; {checks}", *(f"not ranked: {why}" for why in result.unranked)]
    return TextTable(result.title, pd.DataFrame(rows, columns=["metric", "value"]), below)
