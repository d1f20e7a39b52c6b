"""METRICS: every number that is made of a cell's rows. A metric is one entry of that table: results, `verify`, the CSV,
boards, published figures and the documentation read it from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ..stats.measured import Metrics
from .measures import (
    ACCURACY,
    ANOMALOUS_RIGHT,
    AP,
    AUPRO,
    AUPRO_05,
    AUROC,
    AUROC_NOISE,
    BACKGROUND_FPR,
    BOUND_ANOMALOUS,
    BOUND_NORMAL,
    CONDITIONS,
    FALSE_ALARMS,
    FPR95,
    MEAN_AUROC,
    MEAN_FALSE_ALARMS,
    MEAN_MISSES,
    MISSES,
    NORMAL_RIGHT,
    PIXEL_AP,
    PIXEL_AUROC,
    RADIUS_ANOMALOUS,
    RADIUS_NORMAL,
    SEG_F1,
    UNBROKEN,
    Kind,
    Measure,
    Scored,
)

PART = "PART"
"""In the name of a metric: each attack that the cell's attack is made of."""
Boards = Literal["all", "of attacks", "of decisions", "none"]


@dataclass(frozen=True)
class Metric:
    """One entry of METRICS: `measure` of `column`."""

    name: str
    """In run.json, in the CSV and on the command line; PART in it stands for each part of an attack."""
    title: str
    """Of its column on a board."""
    measure: Measure
    column: str
    """See `Scored.scores`."""
    meaning: str
    """For docs/results.md."""
    kind: Kind | None = None
    """Cells that have it; None: those of image scores, attacks and certificates."""
    boards: Boards = "all"
    """Those that show it, if any of their cells has it."""
    headline: bool = False
    """Its best values are in bold, and a line about one cell names it."""
    interval: bool = False
    """Boards show its interval."""
    shifts: bool = False
    """Cells of shifts have it as well."""
    normal_only: bool = False
    """Of attacks and certificates, only cells without an anomalous image have it."""

    def of_cell(self, cell: Scored) -> bool:
        """Whether the cell has it."""
        if not self._is_of(cell.kind) or (self.normal_only and cell.kind != "shift" and not cell.normal_only):
            return False
        if self.measure.ranks and self.column != "clean" and cell.stops_at_threshold:
            return False
        scores = cell.scores(self.column)
        return scores is not None and self.measure.of_cell(cell, scores)

    def _is_of(self, kind: Kind) -> bool:
        if self.kind is None:
            return kind in ("attack", "certificate") or (kind == "shift" and self.shifts)
        return self.kind == kind or (kind == "shift" and self.shifts)

    def named(self, part: str) -> Metric:
        """That of a part of the attack."""
        name, title, column = (text.replace(PART, part) for text in (self.name, self.title, self.column))
        return replace(self, name=name, title=title, column=column)

    def on_board(self, kind: Kind, stops_at_threshold: bool) -> bool:
        """Whether boards of such cells show it."""
        return {
            "all": True,
            "of attacks": kind == "attack",
            "of decisions": stops_at_threshold,
            "none": False,
        }[self.boards]


_TABLE = (
    Metric(
        "clean_auroc", "clean AUROC", AUROC, "clean",
        "chance that an anomalous image scores above a normal one, before the attack; a tie counts half",
        headline=True, interval=True, shifts=True,
    ),
    Metric(
        "robust_auroc", "robust AUROC", AUROC, "worst", "AUROC of the scores after the attack",
        kind="attack", headline=True, interval=True,
    ),
    Metric(
        "certified_auroc", "certified AUROC", AUROC, "worst",
        "AUROC that no perturbation of the ball can go below; a tie counts against the detector",
        kind="certificate", headline=True, interval=True,
    ),
    Metric(
        "normal_only_auroc", "normal only", AUROC, "normal_only",
        "AUROC where only normal images are moved; of a certificate, its bound", interval=True,
    ),
    Metric(
        "anomalous_only_auroc", "anomalous only", AUROC, "anomalous_only",
        "AUROC where only anomalous images are moved; of a certificate, its bound", interval=True,
    ),
    Metric(
        "rounded_auroc", "rounded", AUROC, "rounded", "AUROC of the attacked images after rounding to 8 bits",
        kind="attack",
    ),
    Metric(
        "clean_ap", "clean AP", AP, "clean", "average precision, anomalous images being the positive ones",
        boards="of attacks",
    ),
    Metric("robust_ap", "robust AP", AP, "worst", "average precision after the attack", kind="attack"),
    Metric(
        "certified_ap", "certified AP", AP, "worst", "average precision of the bounds", kind="certificate",
        boards="none",
    ),
    Metric(
        "clean_fpr95", "clean FPR95", FPR95, "clean",
        "share of normal images flagged when 95 % of the anomalous ones are", boards="of attacks",
    ),
    Metric("robust_fpr95", "robust FPR95", FPR95, "worst", "FPR95 after the attack", kind="attack"),
    Metric(
        "certified_fpr95", "certified FPR95", FPR95, "worst", "FPR95 of the bounds", kind="certificate", boards="none"
    ),
    Metric("clean_accuracy", "clean acc.", ACCURACY, "clean", "share of images on the right side of the threshold"),
    Metric(
        "robust_accuracy", "robust acc.", ACCURACY, "worst", "accuracy after the attack", kind="attack", headline=True
    ),
    Metric(
        "certified_accuracy", "certified acc.", ACCURACY, "worst",
        "share of images whose right decision stands in the whole ball", kind="certificate", headline=True,
    ),
    Metric(
        "normal_only_accuracy", "normal only acc.", ACCURACY, "normal_only",
        "accuracy where only normal images are moved", boards="none",
    ),
    Metric(
        "anomalous_only_accuracy", "anomalous only acc.", ACCURACY, "anomalous_only",
        "accuracy where only anomalous images are moved", boards="none",
    ),
    Metric(
        "robust_normal_right", "normal right", NORMAL_RIGHT, "worst",
        "share of normal images still on the right side of the threshold", kind="attack", boards="of decisions",
    ),
    Metric(
        "robust_anomalous_right", "anomalous right", ANOMALOUS_RIGHT, "worst",
        "share of anomalous images still on the right side", kind="attack", boards="of decisions",
    ),
    Metric(
        "certified_normal_right", "normal right", NORMAL_RIGHT, "worst",
        "share of normal images whose right decision stands in the whole ball", kind="certificate",
    ),
    Metric(
        "certified_anomalous_right", "anomalous right", ANOMALOUS_RIGHT, "worst", "the same of anomalous images",
        kind="certificate",
    ),
    Metric(
        "worst_draw_auroc", "worst draw", AUROC, "worst_draw",
        "of a randomized detector: each image at the worst of its noise draws", kind="attack",
    ),
    Metric(
        "known_noise_auroc", "known noise", AUROC, "known_noise",
        "of a randomized detector: against an adversary who knows the draw", kind="attack",
    ),
    Metric(
        "clean_auroc_noise", "noise, clean", AUROC_NOISE, "clean_se",
        "of a randomized detector: standard error of the clean AUROC by the noise draws alone, on these images; its "
        "interval has it in it", boards="of attacks",
    ),
    Metric(
        "robust_auroc_noise", "noise, robust", AUROC_NOISE, "worst_se", "the same of the robust AUROC", kind="attack",
    ),
    Metric(
        f"{PART}_auroc", PART, AUROC, PART,
        "AUROC that this part of the attack reaches alone; of a shift, under this condition", kind="attack",
        boards="none", shifts=True,
    ),
    Metric(
        "autoattack_accuracy", "AutoAttack acc.", UNBROKEN, "unbroken",
        "share of images that AutoAttack did not break: its own figure", kind="attack",
    ),
    Metric(
        "median_radius_normal", "median radius, normal", RADIUS_NORMAL, "radius",
        "how far the median normal image must move to be judged wrongly, as far as a minimum-norm attack found; inf "
        "where it found nothing", kind="attack", interval=True,
    ),
    Metric(
        "median_radius_anomalous", "median radius, anomalous", RADIUS_ANOMALOUS, "radius",
        "the same of anomalous images", kind="attack", interval=True,
    ),
    Metric(
        "certified_radius_normal", "certified radius, normal", BOUND_NORMAL, "certified_radius",
        "how far the median normal image may move before its right decision is no longer certain", kind="certificate",
    ),
    Metric(
        "certified_radius_anomalous", "certified radius, anomalous", BOUND_ANOMALOUS, "certified_radius",
        "the same of anomalous images", kind="certificate",
    ),
    Metric(
        "clean_pixel_auroc", "clean pixel AUROC", PIXEL_AUROC, "clean_pixels",
        "chance that a pixel of an anomaly lies above one of the background in the anomaly maps, all images together",
        kind="localisation", headline=True, interval=True,
    ),
    Metric(
        "robust_pixel_auroc", "robust pixel AUROC", PIXEL_AUROC, "worst_pixels", "the same after the attack on the map",
        kind="localisation", headline=True, interval=True,
    ),
    Metric(
        "normal_only_pixel_auroc", "normal only", PIXEL_AUROC, "normal_only_pixels",
        "where only normal images are moved", kind="localisation", interval=True,
    ),
    Metric(
        "anomalous_only_pixel_auroc", "anomalous only", PIXEL_AUROC, "anomalous_only_pixels",
        "where only anomalous images are moved", kind="localisation", interval=True,
    ),
    Metric(
        "transfer_pixel_auroc", "score attack", PIXEL_AUROC, "transfer_pixels",
        "of the images that the same attack makes when it is after the image score", kind="localisation", interval=True,
    ),
    Metric(
        "clean_pixel_ap", "clean pixel AP", PIXEL_AP, "clean_pixels",
        "average precision of the pixels, those of anomalies being the positive ones", kind="localisation",
    ),
    Metric(
        "robust_pixel_ap", "robust pixel AP", PIXEL_AP, "worst_pixels", "the same after the attack",
        kind="localisation",
    ),
    Metric(
        "clean_aupro", "clean AUPRO", AUPRO, "clean_pixels",
        "mean share of an anomalous region that is found, over false positive rates up to 0.30, divided by 0.30",
        kind="localisation", interval=True,
    ),
    Metric("robust_aupro", "robust AUPRO", AUPRO, "worst_pixels", "after the attack", kind="localisation",
           interval=True),
    Metric(
        "transfer_aupro", "score attack AUPRO", AUPRO, "transfer_pixels", "under the attack on the image score",
        kind="localisation", boards="none",
    ),
    Metric(
        "clean_aupro_05", "clean AUPRO 0.05", AUPRO_05, "clean_pixels", "AUPRO up to 0.05, divided by 0.05",
        kind="localisation",
    ),
    Metric(
        "robust_aupro_05", "robust AUPRO 0.05", AUPRO_05, "worst_pixels", "after the attack", kind="localisation",
    ),
    Metric(
        "clean_seg_f1", "clean F1", SEG_F1, "clean_pixels",
        "F1 of the pixels above the alarm level, which 0.1 % of held-out normal pixels exceed", kind="localisation",
    ),
    Metric("robust_seg_f1", "robust F1", SEG_F1, "worst_pixels", "after the attack", kind="localisation"),
    Metric(
        "clean_background_fpr", "clean background FPR", BACKGROUND_FPR, "clean_pixels",
        "share of background pixels above the alarm level", kind="localisation",
    ),
    Metric(
        "robust_background_fpr", "robust background FPR", BACKGROUND_FPR, "worst_pixels", "after the attack",
        kind="localisation",
    ),
    Metric(
        "shifted_auroc", "shifted AUROC", MEAN_AUROC, CONDITIONS,
        "AUROC under shifts of light and lens, the mean over the conditions", kind="shift", headline=True,
        interval=True,
    ),
    Metric(
        "worst_shift_auroc", "worst per image", AUROC, "worst",
        "AUROC where every image meets the condition that is worst for it, or none", kind="shift", interval=True,
    ),
    Metric(
        "clean_false_alarms", "clean false alarms", FALSE_ALARMS, "clean",
        "share of normal images above the threshold", interval=True, shifts=True, normal_only=True,
    ),
    Metric(
        "robust_false_alarms", "robust false alarms", FALSE_ALARMS, "worst",
        "share of normal images above the threshold after the attack, where no test image is anomalous",
        kind="attack", headline=True, interval=True, normal_only=True,
    ),
    Metric(
        "certified_false_alarms", "certified false alarms", FALSE_ALARMS, "worst",
        "share of normal images that some perturbation of the ball may put above the threshold; where no test image is "
        "anomalous", kind="certificate", headline=True, interval=True, normal_only=True,
    ),
    Metric(
        "shifted_false_alarms", "shifted false alarms", MEAN_FALSE_ALARMS, CONDITIONS,
        "the same under shifts, the mean over the conditions", kind="shift", interval=True,
    ),
    Metric(
        "worst_shift_false_alarms", "worst false alarms", FALSE_ALARMS, "worst",
        "share of normal images that some condition puts above the threshold", kind="shift",
    ),
    Metric(
        "clean_misses", "clean misses", MISSES, "clean", "share of anomalous images not above the threshold",
        kind="shift", interval=True,
    ),
    Metric(
        "shifted_misses", "shifted misses", MEAN_MISSES, CONDITIONS,
        "the same under shifts, the mean over the conditions", kind="shift", interval=True,
    ),
    Metric(
        "worst_shift_misses", "worst misses", MISSES, "worst",
        "share of anomalous images that some condition hides", kind="shift",
    ),
    Metric(
        f"{PART}_false_alarms", f"{PART} false alarms", FALSE_ALARMS, PART,
        "share of normal images above the threshold under this condition", kind="shift", boards="none",
    ),
    Metric(
        f"{PART}_misses", f"{PART} misses", MISSES, PART,
        "share of anomalous images not above the threshold under this condition", kind="shift", boards="none",
    ),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _TABLE}
"""By name, in the order in which a board shows them."""


def by_column() -> list[Metric]:
    """In the order of run.json and of tables of cells: all of one column together."""
    columns = list(dict.fromkeys(metric.column for metric in METRICS.values()))
    return sorted(METRICS.values(), key=lambda metric: columns.index(metric.column))


def measured(cell: Scored) -> Metrics:
    """Every metric that the cell has, each computed when it is asked for."""
    return Metrics(
        {
            metric.name: partial(metric.measure.of, cell, metric.column)
            for metric in _of_parts(cell.parts)
            if metric.of_cell(cell)
        }
    )


def _of_parts(parts: Sequence[str]) -> Iterator[Metric]:
    for metric in by_column():
        yield from map(metric.named, parts) if PART in metric.name else (metric,)


def better(name: str) -> int:
    """1 where more of a metric with such a name is better, as of the parts of an attack; -1 where less is."""
    if name not in METRICS:
        parts = (metric for metric in METRICS.values() if PART in metric.name)
        found = [metric for metric in parts if name.endswith(metric.name.removeprefix(PART))]
        return found[0].measure.better if found else 1
    return METRICS[name].measure.better
