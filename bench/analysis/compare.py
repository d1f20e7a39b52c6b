"""Is one detector better than another, or were its images luckier? Paired differences, within and across data sets.

Cells of the same images are compared image by image, so the difference of two metrics has an interval of its own, which
is narrower than theirs suggest. Of many detectors, those that may be the best are found together, with one chance of
error for all. Across data sets: Wilcoxon's signed ranks for two detectors; Friedman's test
and the critical difference of Nemenyi for more (Demsar 2006, https://www.jmlr.org/papers/v7/demsar06a.html). Those
take data sets to be independent, so a category is one, with all its attacks and budgets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..cells.metrics import better
from ..cells.result import Result
from ..errors import UserError, unknown
from ..stats.intervals import Estimate
from ..stats.measured import Measured, mean
from ..stats.paired import difference, may_be_best, minus
from .boards import Board, boards

LEVEL = 0.05
FEWEST_BLOCKS = 6
"""Below, no signed-rank test of two detectors can reach 0.05: the least p of N pairs is 2 / 2^N."""


class Difference(NamedTuple):
    """Of one metric on the images that both have: a - b."""

    title: str
    categories: tuple[str, ...]
    a: Estimate
    b: Estimate
    difference: Estimate
    errors: float
    """The difference in standard errors: its effect size; nan where that is not defined."""
    p: float
    """Two-sided, of no difference; nan where a metric is undefined."""


def paired(a: Sequence[Result], b: Sequence[Result], metric: str, title: str = "") -> Difference:
    """Mean over the categories that both have; UserError if the images differ or a cell lacks the metric.

    The images are the same where their ids and their fingerprints are.
    """
    cells_a, cells_b = ({r.category: r for r in cells} for cells in (a, b))
    shared = sorted(set(cells_a) & set(cells_b))
    if not shared:
        raise UserError(f"{a[0].detector} and {b[0].detector} have no category in common")
    for category in shared:
        _refuse_other_images(cells_a[category], cells_b[category])
    first, second = (mean([_metric(cells[c], metric) for c in shared]) for cells in (cells_a, cells_b))
    apart = difference(first, second)
    return Difference(title, tuple(shared), first.estimate(), second.estimate(), *apart)


def _refuse_other_images(one: Result, other: Result) -> None:
    if one.table.ids != other.table.ids or one.record.data.test != other.record.data.test:
        raise UserError(f"{one.folder} and {other.folder} hold different images: a paired comparison needs the same")


def _metric(r: Result, metric: str) -> Measured:
    if metric not in r.metrics:
        raise unknown(f"metric of {r.folder}", metric, r.metrics)
    return r.metrics[metric]


def not_worse(entries: Mapping[str, Sequence[Result]], metric: str) -> set[str]:
    """Of detectors and their cells, those that may be the best; that with the best mean is always among them.

    Of those that have the metric, and not as nan, in every category that any of them has, on the images of the best. Of
    detectors that are all equal none is left out, with a chance of 95 % for all of them together.
    """
    categories = {r.category for cells in entries.values() for r in cells}
    whole = {
        name: cells
        for name, cells in entries.items()
        if len(cells) == len(categories)
        and all(metric in r.metrics and not math.isnan(r.metrics[metric].value) for r in cells)
    }
    if not whole:
        return set()
    sign = better(metric)
    means = {name: _mean_by_category(cells, metric) for name, cells in whole.items()}
    best = max(means, key=lambda name: sign * means[name].value)
    alike = [name for name in whole if _same_images(whole[name], whole[best])]
    return {alike[i] for i in may_be_best([means[name] for name in alike], sign)}


def _mean_by_category(cells: Sequence[Result], metric: str) -> Measured:
    return mean([r.metrics[metric] for r in sorted(cells, key=lambda r: r.category)])


def _same_images(a: Sequence[Result], b: Sequence[Result]) -> bool:
    cells_a, cells_b = ({r.category: (r.table.ids, r.record.data.test) for r in cells} for cells in (a, b))
    return cells_a == cells_b


def chosen(names: Sequence[str], results: Sequence[Result]) -> dict[str, list[Result]]:
    """Cells by name: a detector as the board writes it, one that only one name begins with, or a cell's folder."""
    labels = {r.detector for r in results}
    found: dict[str, list[Result]] = {}
    for name in names:
        if (Path(name) / "run.json").is_file():
            here = Path(name).resolve()
            found[name] = [r for r in results if r.folder.resolve() == here]
            if not found[name]:
                raise UserError(f"{name} is a cell of another results folder, or not finished: name it with --results")
            continue
        fits = [label for label in labels if label == name] or [label for label in labels if _short_name(label) == name]
        if not fits:
            raise unknown("detector in these results", name, labels)
        if len(fits) > 1:
            raise UserError(f"{name!r} may be any of {'; '.join(sorted(fits))}: give it as it stands there")
        found[name] = [r for r in results if r.detector == fits[0]]
    return found


def _short_name(label: str) -> str:
    return label.partition(" (")[0]


def compare(a: str, b: str, results: Sequence[Result], metric: str | None = None) -> list[Difference]:
    """Two detectors on every board that has both, or two cells of the same images."""
    cells = chosen([a, b], results)
    if all((Path(name) / "run.json").is_file() for name in (a, b)):
        one, other = cells[a][0], cells[b][0]
        title = f"{one.spec.dataset}: {one.folder.name} and {other.folder.name}"
        return [paired([one], [other], metric or one.ranked_by, title)]
    found: list[Difference] = []
    lacking: Result | None = None
    for board in boards([*cells[a], *cells[b]]):
        sides = [_of_board(board, cells[name]) for name in (a, b)]
        if not all(sides):
            continue
        wanted = metric or sides[0][0].ranked_by
        if all(wanted in r.metrics for side in sides for r in side):
            found.append(paired(sides[0], sides[1], wanted, board.title))
        lacking = lacking or sides[0][0]
    if not found and lacking is not None and metric is not None:
        raise unknown(f"metric of {lacking.folder}", metric, lacking.metrics)
    if not found:
        raise UserError(f"{a} and {b} were never run on the same data with the same attack and budget")
    return found


def _of_board(board: Board, cells: Sequence[Result]) -> list[Result]:
    folders = {r.folder for r in cells}
    return [r for _, entry in board.entries for r in entry if r.folder in folders]


class Ranks(NamedTuple):
    """Detectors over many data sets."""

    blocks: int
    """Data sets, a category at an image size each, that all of them have under one attack and budget at least."""
    ranks: Mapping[str, float]
    """Mean rank, 1 is best; ties share."""
    p: float
    """Wilcoxon's of two, Friedman's of more."""
    critical: float | None
    """Mean ranks that differ by more are told apart at 0.05 (Nemenyi); None for two detectors."""


def over_data_sets(names: Sequence[str], results: Sequence[Result], metric: str | None = None) -> Ranks | None:
    """None with too few data sets in common for any verdict.

    The tests want independent data sets, so a category is one, however many attacks, budgets and seeds it has: of them
    those that every detector was run with, by their mean.
    """
    from scipy import stats

    table: dict[tuple[object, ...], list[list[float]]] = {}
    for place, values in _shared(names, results, metric):
        table.setdefault(place, []).append(values)
    blocks = np.array([np.mean(rows, axis=0) for rows in table.values()])
    if len(blocks) < FEWEST_BLOCKS:
        return None
    ranks = dict(zip(names, stats.rankdata(-blocks, axis=1).mean(0).tolist(), strict=True))
    k, n = len(names), len(blocks)
    if k == 2:
        apart = minus(blocks[:, 0], blocks[:, 1])
        p = float(stats.wilcoxon(apart, zero_method="zsplit").pvalue) if apart.any() else 1.0
        return Ranks(n, ranks, p, None)
    p = float(stats.friedmanchisquare(*blocks.T).pvalue)
    q = float(stats.studentized_range.ppf(1 - LEVEL, k, np.inf)) / math.sqrt(2)
    return Ranks(n, ranks, 1.0 if math.isnan(p) else p, q * math.sqrt(k * (k + 1) / (6 * n)))


def _shared(
    names: Sequence[str], results: Sequence[Result], metric: str | None
) -> Iterator[tuple[tuple[object, ...], list[float]]]:
    """(data set, size, category) and the metric of every detector, turned round where less is better, once for each
    board where all of them have it."""
    cells = chosen(names, results)
    for board in boards([r for own in cells.values() for r in own]):
        found: dict[str, dict[str, float]] = {}
        for name in names:
            for r in _of_board(board, cells[name]):
                by = metric or r.ranked_by
                value = r.metrics.get(by)
                if value is not None and not math.isnan(value.value):
                    found.setdefault(r.category, {})[name] = better(by) * value.value
        for category, values in found.items():
            if len(values) == len(names):
                dataset, size, *_ = board.key
                yield (dataset, size, category), [values[name] for name in names]


def cliques(ranks: Ranks) -> list[tuple[str, ...]]:
    """Groups of detectors that the data cannot tell apart, best first; none inside another."""
    if ranks.critical is None:
        return []
    ordered = sorted(ranks.ranks, key=lambda name: ranks.ranks[name])
    found: list[tuple[str, ...]] = []
    for i, first in enumerate(ordered):
        group = tuple(n for n in ordered[i:] if ranks.ranks[n] - ranks.ranks[first] <= ranks.critical)
        if len(group) > 1 and not any(set(group) <= set(other) for other in found):
            found.append(group)
    return found
