"""A finished cell: its rows by column, its metrics, and whether it may be ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..stats.metrics import Bootstrap, Metrics, accuracy, auroc_of, conservative, median, ranking
from .rows import Row, Table
from .schema import CheckRecord, FinishedRecord
from .spec import RunSpec
from .submission import CellLocation
from .text_table import TextTable, html, rich_table

if TYPE_CHECKING:
    from rich.console import Group


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

    @property
    def name(self) -> str:
        """Its folder, as a sentence says it."""
        return CellLocation(self.folder, self.source, self.inside).name

    @property
    def title(self) -> str:
        """What was run, in one line."""
        spec = self.spec
        sides = f", {spec.targets} images attacked" * (spec.targets != "both") + f", seed {spec.seed}" * bool(spec.seed)
        bed = f"{spec.dataset} {spec.category}, {spec.image_size} px"
        return f"{self.detector} on {bed}: {self.attack}, {spec.norm} {spec.eps}{sides}"

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
        settings = {**spec.attack_parameters, **{k: v for k, v in further.items() if v is not None}}
        return with_settings(spec.attack, settings)

    @property
    def certificate(self) -> bool:
        """`worst` is a bound that holds for every image of the ball, not a score that an attack found."""
        return self.record.kind == "certificate"

    @property
    def claim(self) -> str:
        """What metrics of `worst` are called: `robust`, as far as an attack knows, or `certified`."""
        return "certified" if self.certificate else "robust"

    @property
    def stops_at_threshold(self) -> bool:
        """The attack wanted the decision wrong, no more: its scores are no worst case, and rank nothing."""
        return self.spec.goal == "threshold" or self.radii is not None

    @property
    def ranked_by(self) -> str:
        """The metric that a leaderboard of such cells goes by."""
        return f"{self.claim}_accuracy" if self.stops_at_threshold else f"{self.claim}_auroc"

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
        """Why this cell must not be ranked: what the detector says of itself, and checks that failed."""
        own = self.record.detector.unranked
        failed = [f"{check.name} check failed: {check.sentence}" for check in self.record.failed]
        return [own, *failed] if own else failed

    def __repr__(self) -> str:
        return f"<{self.title}>"

    def _repr_html_(self) -> str:
        return html(facts(self))

    def __rich__(self) -> Group:
        return rich_table(facts(self))

    @cached_property
    def metrics(self) -> Metrics:
        """Clean, robust (or certified) and one-sided metrics; none where the threat model did not attack that side.

        `robust` is the threat model's own column. The one-sided columns keep the clean score of the other class; of a
        certificate, its bound at radius 0. Bounds that tie count against the detector. Each is computed when it is
        asked for.
        """
        labels, values = self.table.anomalous, self.table.columns
        clean, worst = values["clean"], values["worst"]
        still = self._unmoved(clean)
        targets = self.spec.targets
        columns = {"clean": clean, self.claim: worst}
        if targets != "anomalous" and still is not None:
            columns["normal_only"] = np.where(labels, still, worst)
        if targets != "normal" and still is not None:
            columns["anomalous_only"] = np.where(labels, worst, still)
        if self.certificate and self.stops_at_threshold:
            del columns["clean"]  # of as many draws as the verdict took: too few for a score
        found: dict[str, Callable[[], Bootstrap]] = {}
        salt = f"{self.spec.dataset}/{self.category}"
        threshold = self.record.threshold.value
        for column, scores in columns.items():
            if column == "clean" or not self.stops_at_threshold:
                order = conservative(scores, labels) if self.certificate and column != "clean" else scores
                found[f"{column}_auroc"] = partial(auroc_of, order, labels, salt)
                if column in ("clean", self.claim):
                    for name in ("ap", "fpr95"):
                        found[f"{column}_{name}"] = partial(_ranked, order.tobytes(), labels.tobytes(), salt, name)
            found[f"{column}_accuracy"] = partial(accuracy, scores, labels, threshold, salt)
            if column == self.claim:
                for one, name in ((~labels, "normal"), (labels, "anomalous")):
                    found[f"{column}_{name}_right"] = partial(accuracy, scores[one], labels[one], threshold, salt)
        if "robust_auroc" in found:
            for column in ("rounded", "worst_draw", "known_noise", *self.parts):
                if column in values and not np.isnan(values[column]).any():
                    found[f"{column}_auroc"] = partial(auroc_of, values[column], labels, salt)
        broken = values.get("broken", np.full(len(labels), np.nan))
        if not np.isnan(broken).all():
            wrong = (clean > threshold) != labels
            broken = np.where(np.isnan(broken), wrong, broken)
            found["autoattack_accuracy"] = partial(accuracy, broken != labels, labels, 0.5, salt)
        for name, radii in zip(("normal", "anomalous"), self.radii or (), strict=False):
            found[f"median_radius_{name}"] = partial(median, radii, salt)
        if "certified_radius" in values:
            for one, name in ((~labels, "normal"), (labels, "anomalous")):
                if not np.isnan(values["certified_radius"][one]).any():
                    found[f"certified_radius_{name}"] = partial(median, values["certified_radius"][one], salt)
        return Metrics(found)

    def _unmoved(self, clean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """Scores of images that nobody moves, as far as they are known; None where no row says."""
        if not self.certificate:
            return clean
        if self.stops_at_threshold:
            return None
        values = self.table.columns
        return np.where(self.table.anomalous, values["low_0"], values["high_0"])


@lru_cache(maxsize=512)
def _ranking(scores: bytes, labels: bytes, salt: str) -> dict[str, Bootstrap]:
    """The cells of a detector and category share their clean scores."""
    return ranking(np.frombuffer(scores), np.frombuffer(labels, dtype=bool), salt)


def _ranked(scores: bytes, labels: bytes, salt: str, name: str) -> Bootstrap:
    return _ranking(scores, labels, salt)[name]


def with_settings(name: str, settings: Mapping[str, Any]) -> str:
    """`name (k=v, ...)`"""
    shown = ", ".join(f"{k}={short(v)}" for k, v in settings.items())
    return f"{name} ({shown})" if shown else name


def short(value: Any) -> str:
    """A parameter's value as a table shows it: of a file, the start of its hash."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[: len("sha256:") + 8] if text.startswith("sha256:") else text


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
