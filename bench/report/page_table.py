"""The table of the page: a line for each detector's mean over its categories, and for each cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..analysis.boards import Board
from ..analysis.table import Cost, value_of
from ..cells.metrics import METRICS
from ..cells.result import Result


class Column(NamedTuple):
    """kind: text, link, estimate (value, low, high), number or checks."""

    title: str
    kind: str
    help: str
    priority: int
    """On a narrow screen the highest numbers go below the row first."""


def _title(metric: str) -> str:
    return METRICS[metric].title


COLUMNS = (
    Column("detector", "link", "Its name, with the parameters that are not the defaults.", 1),
    Column("category", "text", "Of the data set; mean: over all categories that the detector was run on.", 4),
    Column("threat model", "text", "Norm and budget, pixels in [0, 1]; whose images are moved, if not both.", 3),
    Column("attack", "text", "Or certificate, with the parameters that are not the defaults.", 6),
    Column(
        _title("clean_auroc"), "estimate", "Chance that an anomalous image is above a normal one; 95 % interval.", 2
    ),
    Column("worst AUROC", "estimate", "After the attack (an upper bound), or as certified (a lower bound).", 1),
    Column(_title("normal_only_auroc"), "estimate", "AUROC when only normal images are moved: false alarms.", 9),
    Column(_title("anomalous_only_auroc"), "estimate", "AUROC when only anomalous ones are moved: missed defects.", 9),
    Column(_title("clean_accuracy"), "estimate", "At the threshold that 5 % of held-out normal images exceed.", 10),
    Column("worst acc.", "estimate", "The same accuracy after the attack, or as certified.", 8),
    Column("passes", "number", "Forward and backward passes of the attack per image.", 11),
    Column("seconds", "number", "Of the attack, on the machine that the cell names.", 12),
    Column("M weights", "number", "Millions of numbers that the detector holds.", 12),
    Column("checks", "checks", "How many of the checks failed; a cell that fails one is not ranked.", 5),
    Column("data set", "text", "Name and size of the images.", 13),
    Column("method", "text", "The detector without its parameters and without what is around it.", 14),
    Column("defence", "text", "What is around the detector: a purifier, a denoiser, smoothing; none.", 14),
    Column("level", "text", "Whether the line is a detector's mean over its categories, one category, or both.", 14),
)
FILTERED = ("data set", "category", "threat model", "attack", "method", "defence")
HIDDEN = ("data set", "method", "defence", "level")

MEANS, CATEGORIES = "means", "categories"
MEAN_OF = "mean of "


def rows(board: Board, cells: Mapping[Path, int], detectors: Mapping[str, int]) -> Iterator[list[Any]]:
    """Each detector's mean over its categories, if there are several on the board, and each cell.

    cells, detectors: their numbers, by folder and by name, as links have them.
    """
    several = len(board.categories) > 1
    for name, results in board.entries:
        if several:
            part = f" of {len(board.categories)}" if len(results) < len(board.categories) else ""
            scope = f"{MEAN_OF}{len(results)}{part}"
            yield [*_row(name, f"detector/{detectors[name]}", scope, results, name in board.unranked), MEANS]
        for r in results:
            level = CATEGORIES if several else f"{MEANS}, {CATEGORIES}"
            yield [*_row(name, f"cell/{cells[r.folder]}", r.category, [r], bool(r.unranked)), level]


def _row(name: str, link: str, category: str, results: Sequence[Result], unranked: bool) -> list[Any]:
    """In the order of COLUMNS, without the level."""
    r, cost = results[0], Cost.of(results)
    metrics = (
        "clean_auroc", f"{r.claim}_auroc", "normal_only_auroc", "anomalous_only_auroc", "clean_accuracy",
        f"{r.claim}_accuracy",
    )  # fmt: skip
    checks = [check for one in results for check in one.checks]
    unranked = unranked or any(one.unranked for one in results)
    side = f", {r.spec.targets} images" * (r.spec.targets != "both")
    outer, _, inner = r.spec.detector.rpartition("+")
    return [
        [name, link],
        category,
        f"{r.spec.norm} {r.spec.eps}{side}",
        r.attack,
        *(_numbers(results, metric) for metric in metrics),
        round(cost.passes, 1),
        round(cost.seconds, 1),
        None if cost.weights is None else round(cost.weights / 1e6, 3),
        [sum(not check.passed for check in checks), len(checks), int(unranked)],
        f"{r.spec.bed}, {r.spec.image_size} px" + f", seed {r.spec.seed}" * bool(r.spec.seed),
        inner,
        outer or "none",
    ]


def _numbers(results: Sequence[Result], metric: str) -> list[float] | None:
    """Value, low and high."""
    estimate = value_of(results, metric).estimate
    return None if estimate is None or math.isnan(estimate.value) else [round(number, 4) for number in estimate]


def choices(lines: Sequence[list[Any]], title: str) -> list[str]:
    """What a filter offers."""
    at = [column.title for column in COLUMNS].index(title)
    return sorted({line[at] for line in lines if not line[at].startswith(MEAN_OF)})
