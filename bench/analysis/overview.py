"""One table per data set: every detector, every threat model, the attack that counts, and what is certified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd

from ..cells.metrics import METRICS
from ..cells.result import Result
from ..core.threat import eps_text
from . import reported
from .boards import ANOTHER_MEAN, lacking, mean_of, order
from .compare import not_worse
from .table import NO_COSTS, Cost, Line, Value, value_of

STANDARD = "standard"
Threat = tuple[str, Fraction]


Cells = Mapping[str, Sequence[Result]]
"""Detector -> its cells, one per category."""
OF_THE_FIRST = ("normal_only_auroc", "anomalous_only_auroc", "clean_accuracy", "robust_accuracy")
"""Metrics that are shown of the first threat model alone."""
OF_CERTIFICATES = ("certified_auroc", "certified_accuracy")


class Column(NamedTuple):
    """What a column is the mean of."""

    metric: str
    cells: Cells
    """Of every detector that has it."""


class Overview(NamedTuple):
    """One data set, at one size, seed and choice of images."""

    title: str
    columns: Mapping[str, Column]
    """By title."""
    main: str
    """The column that decides the order; one-sided columns, accuracy and costs are of its attack."""
    detectors: Sequence[str]
    """In order."""
    unranked: Mapping[str, Sequence[str]]
    """Detector -> why it has no rank."""
    footnotes: Mapping[str, str]
    """By letter."""
    marks: Mapping[tuple[str, str], str]
    """(title, detector) -> its footnote."""
    warnings: Sequence[str]
    threats: tuple[Threat, ...]
    categories: tuple[str, ...]
    """Of all its columns, as the threat models."""
    dataset: str

    @property
    def reported(self) -> pd.DataFrame:
        """Published figures on the same data: clean, and at the threat models of the columns."""
        return _reported(self.dataset, self.categories, self.threats)

    @property
    def lines(self) -> Iterator[Line]:
        """The table."""
        metric, cells = self.columns[self.main]
        ranked = [name for name in self.detectors if name not in self.unranked]
        ranked.sort(key=lambda name: -mean_of(cells[name], metric).value)
        best = {
            title: not_worse({name: own for name, own in column.cells.items() if name in ranked}, column.metric)
            for title, column in self.columns.items()
            if len(self.detectors) > 1
        }
        for name in self.detectors:
            values = {title: self._value(title, name, best.get(title, set())) for title in self.columns}
            rank = ranked.index(name) + 1 if name in ranked else None
            yield Line(rank, name, values, Cost.of(cells[name]).texts if name in cells else NO_COSTS)

    def _value(self, title: str, name: str, best: set[str]) -> Value:
        metric, cells = self.columns[title]
        own = cells.get(name, ())
        found = value_of(own, metric) if own else Value()
        if found.estimate is None:
            return found
        mark, scope = self.marks.get((title, name), ""), lacking(own, self.categories)
        return Value(found.estimate, with_interval=True, best=name in best, mark=mark, scope=scope)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of single rows, without the footnotes: every reason once."""
        names: dict[str, list[str]] = {}
        for name, why in self.unranked.items():
            names.setdefault("; ".join(why), []).append(name)
        return [*(f"not ranked: {', '.join(own)}: {why}" for why, own in names.items()), *self.warnings]


def overviews(results: Sequence[Result], sort: str = "") -> list[Overview]:
    """Of attacks on both classes that go as far as they can, and of certificates of scores; decisions at the threshold
    and one-sided threat models have boards of their own."""
    groups: dict[tuple[Any, ...], dict[int, list[Result]]] = {}
    for r in results:
        if not r.stops_at_threshold and r.spec.targets == "both":
            s = r.spec
            groups.setdefault((s.dataset, s.image_size, s.seed), {}).setdefault(s.limit or 0, []).append(r)
    return [
        _overview((*key, limit), cells, sort)
        for key, by_limit in sorted(groups.items())
        for limit, cells in sorted(_with_small_categories(by_limit).items())
    ]


def _with_small_categories(by_limit: Mapping[int, list[Result]]) -> dict[int, list[Result]]:
    """A category that has fewer images than the limit is recorded without one, and belongs to both."""
    whole, found = by_limit.get(0, []), dict[int, list[Result]]()
    taken: set[int] = set()
    for limit, cells in by_limit.items():
        there = {r.category for r in cells}
        small = [r for r in whole if limit and r.category not in there and len(r.table.ids) <= limit]
        taken |= {id(r) for r in small}
        found[limit] = cells + small
    if all(id(r) in taken for r in whole):
        found.pop(0, None)
    return found


class Counting(NamedTuple):
    """By threat model, the cells that count."""

    worst: Mapping[Threat, Cells]
    """Under attack; first the threat model that most detectors met."""
    certified: Mapping[Threat, Cells]

    @classmethod
    def of(cls, results: Sequence[Result]) -> Counting:
        attacks, certificates = ([r for r in results if r.certificate == which] for which in (False, True))
        return cls(
            {threat: _chosen(attacks, threat) for threat in _threats(attacks)},
            {threat: _chosen(certificates, threat) for threat in sorted(_threats(certificates))},
        )

    @property
    def threats(self) -> tuple[Threat, ...]:
        return tuple(dict.fromkeys([*self.worst, *self.certified]))

    @property
    def groups(self) -> list[Cells]:
        return [*self.worst.values(), *self.certified.values()]

    @property
    def clean(self) -> Cells:
        """Whose clean scores are shown: those under the first threat model that a detector met."""
        return {name: cells for group in reversed(self.groups) for name, cells in group.items()}

    @property
    def main(self) -> str:
        """The title of the column that decides the order."""
        worst = next(iter(self.worst), None)
        return _title("certified_auroc", min(self.certified)) if worst is None else _title("robust_auroc", worst)

    @property
    def columns(self) -> dict[str, Column]:
        """By title; one-sided columns and accuracy are of the first attack."""
        found = {_title("clean_auroc"): Column("clean_auroc", self.clean)}
        found |= {_title("robust_auroc", threat): Column("robust_auroc", cells) for threat, cells in self.worst.items()}
        for cells in list(self.worst.values())[:1]:
            found |= {_title(metric): Column(metric, cells) for metric in OF_THE_FIRST}
        for threat, cells in self.certified.items():
            found |= {_title(metric, threat): Column(metric, cells) for metric in OF_CERTIFICATES}
        return found


def _overview(key: tuple[Any, ...], results: Sequence[Result], sort: str) -> Overview:
    dataset, size, seed, limit = key
    categories = tuple(sorted({r.category for r in results}))
    title = f"{dataset}, {size} px" + f", {limit} images" * bool(limit) + f", seed {seed}" * bool(seed)
    title += f": mean of {len(categories)} categories" if len(categories) > 1 else f": {categories[0]}"
    counting = Counting.of(results)
    columns, main, clean = counting.columns, counting.main, counting.clean
    found = {name: _why_unranked(name, main, columns, counting.groups, categories) for name in clean}
    unranked = {name: why for name, why in found.items() if why}
    metric, own = columns[main]
    detectors = order(own, sort or metric, metric)
    if not sort:
        detectors.sort(key=lambda name: name in unranked)
    detectors += sorted(name for name in clean if name not in own)
    footnotes, marks = _footnotes(counting.worst, [r for r in results if not r.certificate])
    threats = counting.threats
    return Overview(
        title, columns, main, detectors, unranked, footnotes, marks, differing(results), threats, categories, dataset
    )


def _title(metric: str, threat: Threat | None = None) -> str:
    return METRICS[metric].title + (f" {threat[0]} {eps_text(threat[1])}" if threat else "")


def _threats(results: Sequence[Result]) -> list[Threat]:
    """The one that most detectors met first, and of several the smallest in linf."""
    met = Counter(threat for threat, _ in {((r.spec.norm, r.eps), r.detector) for r in results})
    return sorted(met, key=lambda threat: (-met[threat], threat[0] != "linf", threat[0], threat[1]))


def _chosen(results: Sequence[Result], threat: Threat) -> dict[str, list[Result]]:
    """Detector -> per category the cell of the standard evaluation, or else the one of the lowest AUROC; of
    certificates the one of the most draws."""
    found: dict[str, dict[str, Result]] = {}
    for r in results:
        if (r.spec.norm, r.eps) == threat:
            mine = found.setdefault(r.detector, {})
            mine[r.category] = min(mine.get(r.category, r), r, key=_preference)
    return {name: [cells[c] for c in sorted(cells)] for name, cells in found.items()}


def _preference(r: Result) -> tuple[bool, float]:
    if r.certificate:
        return False, -float(r.record.attack.parameters.get("samples", 0))
    return not is_standard(r), r.metrics["robust_auroc"].value


def is_standard(r: Result) -> bool:
    """Whether the cell is of the standard evaluation as it is defined, on however many images."""
    return r.spec.attack == STANDARD and not r.spec.attack_parameters


def _why_unranked(
    name: str, main: str, columns: Mapping[str, Column], groups: Sequence[Cells], categories: Sequence[str]
) -> list[str]:
    if name not in columns[main].cells:
        return [f"no {main}"]
    if part := lacking(columns[main].cells[name], categories):
        return [f"{part}, {ANOTHER_MEAN}"]
    used = [r for cells in groups for r in cells.get(name, ())]
    return list(dict.fromkeys(why for r in used for why in r.unranked))


def _footnotes(
    worst: Mapping[Threat, Cells], attacks: Sequence[Result]
) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """By letter: which attacks a figure comes from where that is not the standard evaluation, and where another attack
    went further; and which number has which."""
    letters: dict[str, str] = {}
    marks = {}
    rivals: dict[tuple[Threat, str], list[Result]] = {}
    for r in attacks:
        rivals.setdefault(((r.spec.norm, r.eps), r.detector), []).append(r)
    for threat, cells in worst.items():
        for name, own in cells.items():
            said = []
            if not all(map(is_standard, own)):
                said.append(f"by {', '.join(sorted({r.attack for r in own}))}, not the standard evaluation")
            if further := _further(own, rivals[threat, name]):
                best = min(further, key=lambda r: r.metrics["robust_auroc"].value)
                said.append(f"{best.attack} reached {best.metrics['robust_auroc'].value:.3f} on {best.category}")
            if said:
                text = "; ".join(said)
                letters.setdefault(text, _letter(len(letters)))
                marks[_title("robust_auroc", threat), name] = letters[text]
    return {letter: text for text, letter in letters.items()}, marks


def _further(own: Sequence[Result], rivals: Sequence[Result]) -> list[Result]:
    """Which of the attacks on the same reached less than those that count."""
    counts = {r.category: r.metrics["robust_auroc"].value for r in own}
    return [r for r in rivals if r.metrics["robust_auroc"].value < counts.get(r.category, -1)]


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    before, last = divmod(number, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)


def differing(results: Sequence[Result]) -> list[str]:
    """A sentence for each package whose version cells of one table do not share, and for each detector or attack whose
    code they do not: their figures may differ by it."""
    versions: dict[str, Counter[str]] = {}
    codes: dict[str, Counter[str]] = {}
    for r in results:
        for package, version in r.record.versions.items():
            versions.setdefault(package, Counter())[str(version)] += 1
        for name, part in (
            (f"detector {r.spec.detector}", r.record.detector),
            (f"attack {r.spec.attack}", r.record.attack),
        ):
            codes.setdefault(name, Counter())[part.code[:8]] += 1
    return [
        f"made with different {what}{name}: "
        + ", ".join(f"{one} ({count} cells)" for one, count in sorted(counts.items()))
        for what, found in (("versions of ", versions), ("code of ", codes))
        for name, counts in found.items()
        if len(counts) > 1
    ]


@lru_cache(maxsize=64)
def _reported(dataset: str, categories: tuple[str, ...], threats: tuple[Threat, ...]) -> pd.DataFrame:
    figures = reported.reported()
    parts = []
    for norm, eps in threats:
        for category in [*categories, reported.WHOLE]:
            parts.append(reported.beside(dataset, category, norm, eps, figures))
    found = pd.concat(parts).drop_duplicates()
    if found.empty:
        return found
    found["value"] = found["value"].map("{:.3f}".format)
    found["budget"] = (found["norm"] + " " + found["eps"]).str.strip()
    shown = found[["detector", "category", "metric", "budget", "value", "attack", "source", "where", "note"]]
    return shown.sort_values(["metric", "budget", "detector", "category"]).reset_index(drop=True)
