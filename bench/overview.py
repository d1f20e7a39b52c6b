"""One table per data set: every detector, every threat model, the strongest attack that met it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import pandas as pd

from . import reported
from .boards import NOT_RANKED, cost, mean_of, order, shown
from .cells import Result
from .threat import eps_text

STANDARD = "standard"
Threat = tuple[str, Fraction]


class Column(NamedTuple):
    """What a column is the mean of."""

    metric: str
    cells: Mapping[str, Sequence[Result]]
    """Of every detector that has it, one per category."""


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
    """Detector -> why it is not ranked."""
    stronger: Mapping[str, str]
    """Footnote -> the attacks that its figures come from, where they are not the standard evaluation."""
    marks: Mapping[tuple[str, str], str]
    """(title, detector) -> its footnote."""
    warnings: Sequence[str]
    reported: pd.DataFrame
    """Published figures on the same data: clean, and at the threat models of the columns."""

    @property
    def table(self) -> pd.DataFrame:
        """As text."""
        lines = []
        main = self.columns[self.main]
        for rank, name in enumerate(self.detectors, 1):
            line = {"rank": NOT_RANKED if name in self.unranked or name not in main.cells else str(rank)}
            everything = {r.category for column in self.columns.values() for r in column.cells.get(name, ())}
            line["detector"] = name
            for title, (metric, cells) in self.columns.items():
                mine = cells.get(name, ())
                text = shown(mine, metric, True) if mine else NOT_RANKED
                lacking = f" ({len(mine)} of {len(everything)})" if mine and len(mine) < len(everything) else ""
                mark = self.marks.get((title, name))
                line[title] = text + lacking + (f" <sup>{mark}</sup>" if mark else "")
            lines.append(line | (cost(main.cells[name]) if name in main.cells else {}))
        return pd.DataFrame(lines).fillna(NOT_RANKED)

    @property
    def ranked(self) -> dict[str, tuple[str, dict[str, Sequence[Result]]]]:
        """Title -> metric and the cells of those that are ranked: what may be printed in bold."""
        return {
            title: (metric, {name: own for name, own in cells.items() if name not in self.unranked})
            for title, (metric, cells) in self.columns.items()
        }

    @property
    def notes(self) -> list[str]:
        """What a reader must know of single rows."""
        found = [
            f"<sup>{mark}</sup> by {attack}, not the standard evaluation" for mark, attack in self.stronger.items()
        ]
        found += [f"not ranked: {name}: {'; '.join(why)}" for name, why in self.unranked.items()]
        return found + list(self.warnings)


def overviews(results: Sequence[Result], sort: str = "") -> list[Overview]:
    """Of attacks on both classes that go as far as they can; decisions and certificates have boards of their own."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for r in results:
        if not r.certificate and not r.stops_at_threshold and r.spec["targets"] == "both":
            s = r.spec
            groups.setdefault((s["dataset"], s["image_size"], s["seed"], s["limit"] or 0), []).append(r)
    return [_overview(key, cells, sort) for key, cells in sorted(groups.items())]


def _overview(key: tuple[Any, ...], results: Sequence[Result], sort: str) -> Overview:
    dataset, size, seed, limit = key
    categories = sorted({r.category for r in results})
    title = f"{dataset}, {size} px" + f", first {limit} images" * bool(limit) + f", seed {seed}" * bool(seed)
    title += f": mean of {len(categories)} categories" if len(categories) > 1 else f": {categories[0]}"
    threats = _threats(results)
    worst = {threat: _strongest(results, threat) for threat in threats}
    main = threats[0]
    clean = {name: cells for threat in reversed(threats) for name, cells in worst[threat].items()}
    columns = {"clean AUROC": Column("clean_auroc", clean)}
    columns |= {_title(threat): Column("robust_auroc", worst[threat]) for threat in threats}
    for text, metric in (
        ("normal only", "normal_only_auroc"),
        ("anomalous only", "anomalous_only_auroc"),
        ("clean acc.", "clean_accuracy"),
        ("robust acc.", "robust_accuracy"),
    ):
        columns[text] = Column(metric, worst[main])
    unranked: dict[str, list[str]] = {}
    for name in clean:
        used = [r for cells in worst.values() for r in cells.get(name, ())]
        if why := list(dict.fromkeys(w for r in used for w in r.unranked)):
            unranked[name] = why
    marks, stronger = _marks(worst)
    main_cells = worst[main]
    detectors = sorted(
        clean,
        key=lambda name: (
            name in unranked,
            name not in main_cells,
            -mean_of(main_cells.get(name, clean[name]), "robust_auroc").value,
        ),
    )
    if sort:
        detectors = order({name: main_cells.get(name, clean[name]) for name in detectors}, sort)
    figures = _reported(dataset, categories, threats)
    return Overview(title, columns, _title(main), detectors, unranked, stronger, marks, versions_of(results), figures)


def _title(threat: Threat) -> str:
    norm, eps = threat
    return f"robust AUROC {norm} {eps_text(eps)}"


def _threats(results: Sequence[Result]) -> list[Threat]:
    """The one that most detectors met first, and of several the smallest in linf."""
    met = Counter(threat for threat, _ in {((r.spec["norm"], r.eps), r.detector) for r in results})
    return sorted(met, key=lambda threat: (-met[threat], threat[0] != "linf", threat[0], threat[1]))


def _strongest(results: Sequence[Result], threat: Threat) -> dict[str, list[Result]]:
    """Detector -> per category the cell of the standard evaluation, or else the one of the lowest AUROC."""
    found: dict[str, dict[str, Result]] = {}
    for r in results:
        if (r.spec["norm"], r.eps) == threat:
            mine = found.setdefault(r.detector, {})
            mine[r.category] = min(mine.get(r.category, r), r, key=_strength)
    return {name: [cells[c] for c in sorted(cells)] for name, cells in found.items()}


def _strength(r: Result) -> tuple[bool, float]:
    return r.attack != STANDARD, r.metrics["robust_auroc"].value


def _marks(worst: Mapping[Threat, Mapping[str, Sequence[Result]]]) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Which cell of the table has which footnote, and the footnotes by letter."""
    letters: dict[str, str] = {}
    marks = {}
    for threat, cells in worst.items():
        for name, own in cells.items():
            attacks = sorted({r.attack for r in own})
            if attacks != [STANDARD]:
                text = ", ".join(attacks)
                letters.setdefault(text, _letter(len(letters)))
                marks[_title(threat), name] = letters[text]
    return marks, {letter: text for text, letter in letters.items()}


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    before, last = divmod(number, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)


def versions_of(results: Sequence[Result]) -> list[str]:
    """A sentence for each package that cells of one table do not share: their figures may differ by it."""
    found: dict[str, Counter[str]] = {}
    for r in results:
        for package, version in r.record["versions"].items():
            found.setdefault(package, Counter())[str(version)] += 1
    return [
        f"made with different versions of {package}: "
        + ", ".join(f"{version} ({count} cells)" for version, count in sorted(versions.items()))
        for package, versions in found.items()
        if len(versions) > 1
    ]


def _reported(dataset: str, categories: Sequence[str], threats: Sequence[Threat]) -> pd.DataFrame:
    """Published figures that belong beside these columns."""
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
