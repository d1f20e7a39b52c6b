"""One table per data set: every detector, every threat model, the attack that counts, and what is certified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd

from ..cells.result import Result
from ..core.threat import eps_text
from . import reported
from .boards import ANOTHER_MEAN, NOT_RANKED, cost, estimate_of, lacking, mean_of, order
from .compare import not_worse

STANDARD = "standard"
Threat = tuple[str, Fraction]


class Column(NamedTuple):
    """What a column is the mean of."""

    metric: str
    cells: Mapping[str, Sequence[Result]]
    """Of every detector that has it, one per category."""


class Value(NamedTuple):
    """One number of the table, as text."""

    text: str
    interval: str = ""
    best: bool = False
    """The best of its column among those that are ranked, or not significantly worse."""
    mark: str = ""
    """The letter of a footnote."""


class Line(NamedTuple):
    """One detector."""

    rank: str
    detector: str
    values: Mapping[str, Value]
    cost: Mapping[str, str]


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
        cells = self.columns[self.main].cells
        ranked = [name for name in self.detectors if name not in self.unranked]
        metric = self.columns[self.main].metric
        ranked.sort(key=lambda name: -mean_of(cells[name], metric).value)
        best = {
            title: not_worse({name: own for name, own in column.cells.items() if name in ranked}, column.metric)
            for title, column in self.columns.items()
            if len(self.detectors) > 1
        }
        for name in self.detectors:
            values = {title: self._value(title, name, best.get(title, set())) for title in self.columns}
            rank = str(ranked.index(name) + 1) if name in ranked else NOT_RANKED
            yield Line(rank, name, values, cost(cells[name]) if name in cells else {})

    def _value(self, title: str, name: str, best: set[str]) -> Value:
        metric, cells = self.columns[title]
        own = cells.get(name, ())
        if not own or any(metric not in r.metrics for r in own):
            return Value(NOT_RANKED)
        text, _, interval = str(estimate_of(own, metric)).partition(" ")
        below = ", ".join(filter(None, (interval, lacking(own, self.categories))))
        return Value(text, below, name in best, self.marks.get((title, name), ""))

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
        if not r.stops_at_threshold and r.spec["targets"] == "both":
            s = r.spec
            groups.setdefault((s["dataset"], s["image_size"], s["seed"]), {}).setdefault(s["limit"] or 0, []).append(r)
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


def _overview(key: tuple[Any, ...], results: Sequence[Result], sort: str) -> Overview:
    dataset, size, seed, limit = key
    categories = sorted({r.category for r in results})
    title = f"{dataset}, {size} px" + f", {limit} images" * bool(limit) + f", seed {seed}" * bool(seed)
    title += f": mean of {len(categories)} categories" if len(categories) > 1 else f": {categories[0]}"
    attacks, certificates = ([r for r in results if r.certificate == which] for which in (False, True))
    threats = _threats(attacks)
    worst = {threat: _chosen(attacks, threat) for threat in threats}
    certified = {threat: _chosen(certificates, threat) for threat in sorted(_threats(certificates))}
    every = [*worst.values(), *certified.values()]
    clean = {name: cells for group in reversed(every) for name, cells in group.items()}
    columns = {"clean AUROC": Column("clean_auroc", clean)}
    columns |= {_title("robust AUROC", threat): Column("robust_auroc", cells) for threat, cells in worst.items()}
    if threats:
        columns |= {
            text: Column(metric, worst[threats[0]])
            for text, metric in (
                ("normal only", "normal_only_auroc"),
                ("anomalous only", "anomalous_only_auroc"),
                ("clean acc.", "clean_accuracy"),
                ("robust acc.", "robust_accuracy"),
            )
        }
    for threat, cells in certified.items():
        columns[_title("certified AUROC", threat)] = Column("certified_auroc", cells)
        columns[_title("certified acc.", threat)] = Column("certified_accuracy", cells)
    main = _title("robust AUROC", threats[0]) if threats else _title("certified AUROC", min(certified))
    unranked = {name: why for name in clean if (why := _why_unranked(name, columns[main], main, every, categories))}
    footnotes, marks = _footnotes(worst, attacks)
    own = columns[main].cells
    shown = order(own, sort or columns[main].metric, columns[main].metric)
    if not sort:
        shown.sort(key=lambda name: name in unranked)
    detectors = [*shown, *sorted(name for name in clean if name not in own)]
    met = tuple(dict.fromkeys([*threats, *certified]))
    warnings = differing(results)
    return Overview(
        title, columns, main, detectors, unranked, footnotes, marks, warnings, met, tuple(categories), dataset
    )


def _title(what: str, threat: Threat) -> str:
    norm, eps = threat
    return f"{what} {norm} {eps_text(eps)}"


def _threats(results: Sequence[Result]) -> list[Threat]:
    """The one that most detectors met first, and of several the smallest in linf."""
    met = Counter(threat for threat, _ in {((r.spec["norm"], r.eps), r.detector) for r in results})
    return sorted(met, key=lambda threat: (-met[threat], threat[0] != "linf", threat[0], threat[1]))


def _chosen(results: Sequence[Result], threat: Threat) -> dict[str, list[Result]]:
    """Detector -> per category the cell of the standard evaluation, or else the one of the lowest AUROC; of
    certificates the one of the most draws."""
    found: dict[str, dict[str, Result]] = {}
    for r in results:
        if (r.spec["norm"], r.eps) == threat:
            mine = found.setdefault(r.detector, {})
            mine[r.category] = min(mine.get(r.category, r), r, key=_preference)
    return {name: [cells[c] for c in sorted(cells)] for name, cells in found.items()}


def _preference(r: Result) -> tuple[bool, float]:
    if r.certificate:
        return False, -float(r.record["attack"]["parameters"].get("samples", 0))
    return not is_standard(r), r.metrics["robust_auroc"].value


def is_standard(r: Result) -> bool:
    """Whether the cell is of the standard evaluation as it is defined, on however many images."""
    return r.spec["attack"] == STANDARD and not r.spec["attack_parameters"]


def _why_unranked(
    name: str, main: Column, title: str, groups: Sequence[Mapping[str, Sequence[Result]]], categories: Sequence[str]
) -> list[str]:
    if name not in main.cells:
        return [f"no {title}"]
    if part := lacking(main.cells[name], categories):
        return [f"{part}, {ANOTHER_MEAN}"]
    used = [r for cells in groups for r in cells.get(name, ())]
    return list(dict.fromkeys(why for r in used for why in r.unranked))


def _footnotes(
    worst: Mapping[Threat, Mapping[str, Sequence[Result]]], attacks: Sequence[Result]
) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """By letter: which attacks a figure comes from where that is not the standard evaluation, and where another attack
    went further; and which number has which."""
    letters: dict[str, str] = {}
    marks = {}
    rivals: dict[tuple[Threat, str], list[Result]] = {}
    for r in attacks:
        rivals.setdefault(((r.spec["norm"], r.eps), r.detector), []).append(r)
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
                marks[_title("robust AUROC", threat), name] = letters[text]
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
        for package, version in r.record["versions"].items():
            versions.setdefault(package, Counter())[str(version)] += 1
        for name, part in ((f"detector {r.spec['detector']}", "detector"), (f"attack {r.spec['attack']}", "attack")):
            codes.setdefault(name, Counter())[r.record[part]["code"][:8]] += 1
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
