"""Finished cells of a results folder, by column: read once, no model loaded."""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from .bracket import compare_bounds
from .errors import UserError, unknown
from .metrics import Bootstrap, Metrics, accuracy, auroc_of, conservative, median, ranking
from .run import ASIDE, COLUMNS, Row, read_record, unchanged_samples
from .schema import wrong_record, wrong_rows
from .threat import parse_eps

if TYPE_CHECKING:
    from rich.table import Table as RichTable


class Table(NamedTuple):
    """The rows of a cell by column; N images."""

    ids: tuple[str, ...]
    anomalous: npt.NDArray[np.bool_]
    """(N,)"""
    columns: dict[str, npt.NDArray[np.float64]]
    """(N,) each: `clean`, `worst`, `distance`, `rounded`, and what the attack added."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        names = [*COLUMNS[2:], *(rows[0].more if rows else ())]
        values = np.array([[*row[2:-1], *row.more.values()] for row in rows], dtype=np.float64)
        columns = dict(zip(names, values.reshape(-1, len(names)).T, strict=True))
        return cls(tuple(row.id for row in rows), np.array([row.label == 1 for row in rows], dtype=bool), columns)

    @classmethod
    def from_csv(cls, text: str, path: Path) -> Table:
        """Raises UserError where a column is missing, short, there twice or no number, and for labels but 0 and 1."""
        damaged = f"{path} is damaged: expected the columns {', '.join(COLUMNS)}"
        try:
            header, *lines = list(csv.reader(io.StringIO(text))) or [[]]
            found = dict(zip(header, zip(*lines, strict=True), strict=True))
            ids, labels = found.pop("id"), found.pop("label")
            columns = {name: np.array(list(map(float, values))) for name, values in found.items()}
        except (KeyError, ValueError, csv.Error):
            raise UserError(damaged) from None
        if len(found) + 2 < len(header) or not set(COLUMNS[2:]) <= set(columns):
            raise UserError(f"{damaged}, each once")
        if other := set(labels) - {"0", "1"}:
            raise UserError(f"{damaged}; it has the label {min(other)}, and labels are 0 and 1")
        return cls(ids, np.array([label == "1" for label in labels]), columns)

    @property
    def rows(self) -> list[Row]:
        """One per image."""
        numbers = {name: values.tolist() for name, values in self.columns.items()}
        more = [name for name in numbers if name not in COLUMNS]
        own = zip(self.ids, self.anomalous.tolist(), *(numbers[name] for name in COLUMNS[2:]), strict=True)
        return [
            Row(name, int(label), clean, worst, distance, rounded, {column: numbers[column][i] for column in more})
            for i, (name, label, clean, worst, distance, rounded) in enumerate(own)
        ]


class Place(NamedTuple):
    """Where a cell lies."""

    folder: Path
    source: str = ""
    """The submission that it came in; empty for one of our own."""
    inside: str = ""
    """Where it lies in the submission."""

    @property
    def name(self) -> str:
        """As a sentence says it: of a submission, not where it was unpacked."""
        return f"{self.source}: {self.inside}" if self.source else str(self.folder)


@dataclass(frozen=True, eq=False)
class Result:
    """A finished cell."""

    folder: Path
    record: dict[str, Any]
    table: Table
    source: str = ""
    """The submission that it came in, below the results folder; empty for one of our own."""
    inside: str = ""
    """Where it lies in the submission."""

    @property
    def name(self) -> str:
        """Its folder, as a sentence says it."""
        return Place(self.folder, self.source, self.inside).name

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.record["spec"]
        return spec

    @property
    def category(self) -> str:
        return str(self.spec["category"])

    @cached_property
    def eps(self) -> Fraction:
        """The budget, exact."""
        return parse_eps(self.spec["eps"])

    @cached_property
    def detector(self) -> str:
        """The name with the parameters that are not the defaults; a file shows the start of its hash."""
        return with_settings(self.spec["detector"], self.spec["detector_parameters"])

    @cached_property
    def attack(self) -> str:
        spec = self.spec
        settings = {**spec["attack_parameters"], **{k: spec[k] for k in ("limit", "draws") if spec[k] is not None}}
        settings |= {"goal": spec["goal"]} if spec["goal"] != "rank" else {}
        return with_settings(spec["attack"], settings)

    @property
    def certificate(self) -> bool:
        """`worst` is a bound that holds for every image of the ball, not a score that an attack found."""
        return bool(self.record["kind"] == "certificate")

    @property
    def word(self) -> str:
        """What metrics of `worst` are called: `robust`, as far as an attack knows, or `certified`."""
        return "certified" if self.certificate else "robust"

    @property
    def stops_at_threshold(self) -> bool:
        """The attack wanted the decision wrong, no more: its scores are no worst case, and rank nothing."""
        return self.spec["goal"] == "threshold" or self.radii is not None

    @property
    def ranked_by(self) -> str:
        """The metric that a leaderboard of such cells goes by."""
        return f"{self.word}_accuracy" if self.stops_at_threshold else f"{self.word}_auroc"

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
        found: list[str] = self.record["attack"]["parts"]
        return found

    @property
    def checks(self) -> list[dict[str, Any]]:
        """{name, passed, sentence} of what was checked before and after the attack."""
        found: list[dict[str, Any]] = self.record["checks"]
        return found

    @property
    def unranked(self) -> list[str]:
        """Why this cell must not be ranked: what the detector says of itself, and checks that failed."""
        own = self.record["detector"]["unranked"]
        failed = [f"{c['name']} check failed: {c['sentence']}" for c in self.checks if not c["passed"]]
        return [own] * bool(own) + failed

    def _repr_html_(self) -> str:
        from .display import facts, html

        return html(facts(self))

    def __rich__(self) -> RichTable:
        from .display import facts, rich_table

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
        targets = self.spec["targets"]
        columns = {"clean": clean, self.word: worst}
        if targets != "anomalous" and still is not None:
            columns["normal_only"] = np.where(labels, still, worst)
        if targets != "normal" and still is not None:
            columns["anomalous_only"] = np.where(labels, worst, still)
        if self.certificate and self.stops_at_threshold:
            del columns["clean"]  # of as many draws as the verdict took: too few for a score
        found: dict[str, Callable[[], Bootstrap]] = {}
        salt = f"{self.spec['dataset']}/{self.category}"
        threshold = self.record["threshold"]["value"]
        for column, scores in columns.items():
            if column == "clean" or not self.stops_at_threshold:
                order = conservative(scores, labels) if self.certificate and column != "clean" else scores
                found[f"{column}_auroc"] = partial(auroc_of, order, labels, salt)
                if column in ("clean", self.word):
                    for name in ("ap", "fpr95"):
                        found[f"{column}_{name}"] = partial(_ranked, order.tobytes(), labels.tobytes(), salt, name)
            found[f"{column}_accuracy"] = partial(accuracy, scores, labels, threshold, salt)
            if column == self.word:
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


class Found(NamedTuple):
    """What lies below a results folder."""

    results: list[Result]
    notes: list[str]
    """A sentence for each cell that is not finished."""
    damaged: list[str]
    """A sentence for each cell that cannot be read: changed, cut short, or written by another version."""

    def _repr_html_(self) -> str:
        from .display import html, overview

        return html(overview(self))

    def __rich__(self) -> RichTable:
        from .display import overview, rich_table

        return rich_table(overview(self))


def read_results(root: str | Path, filters: Filters | None = None) -> Found:
    """Finished cells below `root`, at least one.

    Raises UserError for a folder that cannot be read, holds no cell that can be, or none that the filters keep, and
    for two cells that say to be the same and differ.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"no results in {root}: the folder does not exist; `bench run` makes it")
    if not root.is_dir():
        raise UserError(f"--results {root} is a file; a folder is expected")
    found = find_cells(root, filters)
    if found.results:
        return found
    if filters is not None and (every := find_cells(root).results):
        raise filters.kept_nothing(every)
    why = [*found.damaged, *found.notes]
    raise UserError(f"no finished results in {root}" + (f"; {why[0]}" if why else "; `bench run` makes some"))


def find_cells(root: Path, filters: Filters | None = None) -> Found:
    """As `read_results`, but none is no error.

    Filters choose among cells that were all read: an attack that a certificate contradicts, and the certificate, lose
    their rank whether or not the other one is shown, and a cell that is there twice is an error in every report.
    """
    found, known = Found([], [], []), dict[tuple[str, ...], tuple[str, ...]]()
    for place in _places(root, found.damaged):
        folder = place.folder
        try:
            record = read_record(folder)
            if wrong := wrong_record(record):
                raise UserError(f"{folder}: {wrong}")
            if record["status"] != "finished":
                if filters is None or filters.keep(record):
                    found.notes.append(_unfinished(place, record))
                continue
            table = Table.from_csv(unchanged_samples(folder, record), folder / "samples.csv")
            if wrong := wrong_rows(table, record):
                raise UserError(f"{folder}: {wrong}")
        except UserError as error:
            found.damaged.append(f"left out: {str(error).replace(str(folder), place.name)}")
            continue
        ids = known.setdefault(table.ids, table.ids)  # cells of a category share them
        found.results.append(Result(folder, record, table._replace(ids=ids), place.source, place.inside))
    results = refuse_twins(found.results, found.damaged)
    compare_bounds(results)
    found.results[:] = [r for r in results if filters is None or filters.keep(r.record)]
    return found


def _unfinished(place: Place, record: Mapping[str, Any]) -> str:
    total = record["data"]["normal"] + record["data"]["anomalous"]
    return f"unfinished: {place.name} ({record['rows']} of {total} images); the same `bench run` goes on with it"


def _places(root: Path, damaged: list[str]) -> list[Place]:
    """Of the cells below a folder, our own first, and of the submissions that lie there."""
    found = [Place(folder) for folder in sorted(p.parent for p in root.rglob("run.json") if p.parent.name != ASIDE)]
    submissions = submissions_below(root)
    if submissions:
        from .submit import cells_of_submission

        for path in submissions:
            try:
                found += cells_of_submission(path, path.relative_to(root).as_posix())
            except UserError as error:
                damaged.append(f"left out: {error}")
    return found


def submissions_below(root: Path) -> list[Path]:
    """The submissions that lie below a folder."""
    return sorted(path for path in root.rglob("*.zip") if path.is_file())


def refuse_twins(results: Sequence[Result], damaged: list[str]) -> list[Result]:
    """The results without repeated cells: of those with equal spec and rows one, our own if there is one.

    Where rows differ, a submission's cell is left out, and `damaged` says so: beside one of our own, or, since nobody
    knows which is right, with the other one. Raises UserError for two of our own, naming both.
    """
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(json.dumps(r.spec, sort_keys=True), []).append(r)
    found = []
    for cells in groups.values():
        first = next((r for r in cells if not r.source), cells[0])
        others = [r for r in cells if r.record["samples_sha256"] != first.record["samples_sha256"]]
        for other in others:
            if not other.source:
                raise UserError(differ(first.name, other.name))
            damaged.append(f"left out: {other.name}: the same cell as {first.name} with different rows")
        if first.source and others:
            damaged.append(f"left out: {first.name}: the same cell as {others[0].name} with different rows")
        else:
            found.append(first)
    return found


def differ(one: str, other: str) -> str:
    """What is wrong with two cells of one spec."""
    return f"{one} and {other} are the same cell (equal parameters) with different rows: remove the one that is wrong"


FILTERS = ("dataset", "category", "detector", "attack", "norm", "eps", "targets", "goal", "kind", "seed", "image_size")
NEXT_FILTER = re.compile(r",(?![^()]*\))")  # not within the parameters of a detector


class Filters:
    """`detector=advrad,detector=patchcore,eps=2/255`: several values of one key are alternatives, of several keys all
    must fit; `*` stands for anything. A detector is named with or without its parameters.

    Raises UserError for a key that is not known or has no value.
    """

    def __init__(self, texts: Sequence[str]):
        self.wanted: dict[str, list[str]] = {}
        for part in (part.strip() for text in texts for part in NEXT_FILTER.split(text)):
            key, given, value = part.partition("=")
            if key not in FILTERS:
                raise unknown("--filter", key, FILTERS)
            if not given or not value:
                raise UserError(f"--filter {part}: a value is expected, for example --filter {key}=...")
            if key == "eps" and "*" not in value:
                parse_eps(value)
            self.wanted.setdefault(key, []).append(value)

    def keep(self, record: Mapping[str, Any]) -> bool:
        """Whether every key has a value that fits the cell."""
        return all(any(self._fits(record, key, value) for value in values) for key, values in self.wanted.items())

    @staticmethod
    def _fits(record: Mapping[str, Any], key: str, value: str) -> bool:
        spec = {**record["spec"], "kind": record["kind"]}
        if key == "eps" and "*" not in value:
            return math.isclose(parse_eps(spec["eps"]), parse_eps(value), rel_tol=1e-9)
        names = [str(spec[key])]
        if key == "detector":
            names.append(with_settings(spec["detector"], spec["detector_parameters"]))
        return any(name == value or fnmatch.fnmatchcase(name, value) for name in names)

    def kept_nothing(self, results: Sequence[Result]) -> UserError:
        """What there is instead, of the first key that nothing fits."""
        for key, values in self.wanted.items():
            if not any(self._fits(r.record, key, value) for r in results for value in values):
                there = sorted({str({**r.spec, "kind": r.record["kind"]}[key]) for r in results})
                shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
                return UserError(f"--filter {key}={','.join(values)} fits no finished cell; there are: {shown}")
        return UserError("--filter: each of them fits a cell, but no cell fits all of them")


def load_results(path: str | Path = "results", filters: Sequence[str] = ()) -> pd.DataFrame:
    """Every finished cell below a folder as one tidy row: spec, metrics with `_low` and `_high`, cost, provenance.

    filters: such as `detector=advrad` or `eps=2/255`; several values of one key are alternatives. Warns of each cell
    that cannot be read.
    """
    found = read_results(path, Filters(filters) if filters else None)
    for sentence in found.damaged:
        warnings.warn(sentence, stacklevel=2)
    return tidy(found.results)


def tidy(results: Sequence[Result]) -> pd.DataFrame:
    """A row per cell."""
    return pd.DataFrame([_tidy(result) for result in results])


def _tidy(result: Result) -> dict[str, Any]:
    spec, record = result.spec, result.record
    row: dict[str, Any] = {
        "dataset": spec["dataset"],
        "category": spec["category"],
        "image_size": spec["image_size"],
        "detector": spec["detector"],
        "detector_parameters": record["detector"]["parameters"],
        "kind": record["kind"],
        "attack": spec["attack"],
        "attack_parameters": record["attack"]["parameters"],
        "norm": spec["norm"],
        "eps": float(result.eps),
        "eps_text": spec["eps"],
        "targets": spec["targets"],
        "goal": spec["goal"],
        "seed": spec["seed"],
        "source": result.source,
        "normal": record["data"]["normal"],
        "anomalous": record["data"]["anomalous"],
    }
    for name in result.metrics:
        value = result.metrics.estimate(name)
        row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return row | {
        "threshold": record["threshold"]["value"],
        "forwards": record["forwards"],
        "backwards": record["backwards"],
        "seconds": record["seconds"],
        "fit_seconds": (record["detector"]["fit"] or {}).get("seconds"),
        "checks_seconds": record.get("checks_seconds"),
        "peak_memory_mib": record["peak_memory"],
        "weights": record["detector"].get("weights"),
        "checks_failed": "; ".join(c["sentence"] for c in record["checks"] if not c["passed"]),
        "unranked": "; ".join(result.unranked),
        "device": record["device"],
        "versions": record["versions"],
        "commit": record["git"]["commit"],
        "dirty": record["git"]["dirty"],
        "warnings": "; ".join(record["warnings"]),
        "folder": str(result.folder),
    }
