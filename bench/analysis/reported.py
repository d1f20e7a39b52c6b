"""Published figures, to be set beside ours and never mixed with them: `results/reported.csv`, read and checked.

Nothing here was measured by this benchmark. Papers attack other objectives, other images and at other sizes than we do;
`attack`, `where` and `note` say how far a figure can be compared.
"""

from __future__ import annotations

import csv
import functools
import io
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from ..cells.measures import SHARE
from ..cells.metrics import METRICS, PART, Metric
from ..core.norms import NORMS
from ..core.threat import parse_eps
from ..errors import UserError, unknown
from ..plugins import registry

COLUMNS = (
    "detector", "dataset", "category", "image_size", "metric", "value", "norm", "eps", "attack", "source", "where",
    "note",
)  # fmt: skip
NEVER_EMPTY = ("detector", "dataset", "category", "metric", "value", "source", "where")
WHOLE = "mean"
"""The category of a figure of a whole data set: the mean over its categories, where it has some."""
ALIASES = {"mvtecad": "mvtec"}
"""Other names of our data sets, as `_key` writes them."""


def published_metrics() -> dict[str, Metric]:
    """What a figure may be of, by name: whatever of METRICS is a share.

    `certified_normal_only_auroc`, and what else both attacks and certificates have: of a certificate that bounds only
    this class, and leaves the other clean.
    """
    shares = {name: metric for name, metric in METRICS.items() if metric.measure.unit == SHARE and PART not in name}
    both = {name: metric for name, metric in shares.items() if metric.kind is None and metric.column != "clean"}
    return shares | {f"certified_{name}": metric for name, metric in both.items()}


def reported(path: Path | None = None) -> pd.DataFrame:
    """The published figures, a row each, in the order of the file; `path` is another file of the same columns.

    detector: our name where we have that method, else the paper's.
    dataset: our name where we have it, else the paper's.
    category: a category of the data set, or `mean` for the whole of it.
    image_size: pixels along a side; <NA> where the figure does not say.
    metric: one of `published_metrics`.
    value: in [0, 1].
    norm, eps: the budget, as text: `linf` and `2/255`; empty of clean figures. Pixels in [0, 1].
    attack: as the paper names it, or of a certificate the method; empty of clean figures and where it is not known.
    source: authors, venue or year, address.
    where: table or section, or what the figure was read from.
    note: what a reader must know to compare: who was attacked, an attack that was not adapted, a digit in doubt.

    Raises UserError, with the number of the line, for a file that does not hold that.
    """
    name = str(path or "the installed reported.csv")
    frame = pd.DataFrame(_rows(_text(path, name), name), columns=list(COLUMNS), dtype=str)
    frame["image_size"] = pd.to_numeric(frame["image_size"]).astype("Int64")
    frame["value"] = frame["value"].astype(float)
    return frame


def _rows(text: str, name: str) -> list[dict[str, str]]:
    """By column, checked; `name` is the file's, for errors."""
    rows: list[dict[str, str]] = []
    seen: dict[tuple[str, ...], int] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if lacking := [column for column in COLUMNS if column not in header]:
            raise UserError(f"{name}, line 1: the column {lacking[0]!r} is missing; expected {','.join(COLUMNS)}")
        for fields in reader:
            where = f"{name}, line {reader.line_num}"
            if len(fields) != len(header):
                raise UserError(
                    f"{where}: {len(fields)} fields instead of {len(header)}; text with a comma needs double quotes"
                )
            row = {column: field.strip() for column, field in zip(header, fields, strict=True)}
            _check(row, where)
            if (first := seen.setdefault(_what(row), reader.line_num)) != reader.line_num:
                raise UserError(f"{where}: the same figure as in line {first}")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: not comma-separated text: {error}") from None
    return rows


def _what(row: dict[str, str]) -> tuple[str, ...]:
    """All that tells a figure from another one."""
    return tuple(row[column] for column in COLUMNS if column not in ("value", "note"))


def _text(path: Path | None, name: str) -> str:
    try:
        file = path or resources.files("bench.results") / "reported.csv"
        return file.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before it
    except (ModuleNotFoundError, FileNotFoundError) as error:
        hint = "" if path else "; run `pip install -e .` in the checkout, with results/ as it is in the repository"
        raise UserError(f"no published figures: {name} is not there{hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from None


def _check(row: dict[str, str], where: str) -> None:
    for column in NEVER_EMPTY:
        if not row[column]:
            raise UserError(f"{where}: {column} is empty")
    known = published_metrics()
    if row["metric"] not in known:
        raise UserError(f"{where}: {unknown('metric', row['metric'], known)}")
    try:
        inside = 0 <= float(row["value"]) <= 1
    except ValueError:
        inside = False
    if not inside:
        raise UserError(f"{where}: value {row['value']} is not a number in [0, 1]; 81.1 % is 0.811")
    if row["image_size"] and not (row["image_size"].isdecimal() and int(row["image_size"]) > 0):
        raise UserError(f"{where}: image_size {row['image_size']} is not a number of pixels; leave it empty if unknown")
    if known[row["metric"]].column == "clean":
        _refuse_budget(row, where)
    else:
        _check_budget(row, where)


def _refuse_budget(row: dict[str, str], where: str) -> None:
    for column in ("norm", "eps", "attack"):
        if row[column]:
            raise UserError(f"{where}: {row['metric']} has no {column}, got {row[column]}")


def _check_budget(row: dict[str, str], where: str) -> None:
    if row["norm"] not in NORMS:
        raise UserError(f"{where}: {unknown('norm', row['norm'], NORMS)}")
    if not row["eps"]:
        raise UserError(f"{where}: eps is empty, and {row['metric']} needs one")
    try:
        parse_eps(row["eps"], row["norm"])
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('--')}") from None


def beside(
    dataset: str, category: str, norm: str, eps: str | float | Fraction, figures: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The rows of `figures` (all published ones by default) that belong beside a board of this data set and budget.

    Those of the data set, of this category or of all of it (`mean`), clean or at exactly this budget. They may differ
    from the board in everything else: image size, attack, images. A board of several categories asks for `mean`.

    Data sets match whatever their case and separators: `mvtec`, `MVTec AD` and `mvtec_ad` are one. Of the data set
    `folder` only the category, a folder's name, says whose images they are: it is taken for a published data set if it
    is the name of one (`BrainMRI`), or that of one of ours followed by a category of it, so `mvtec_bottle` is the
    category `bottle` of `mvtec`. Nothing stands beside a folder named `bottle`, which may hold anybody's bottles.
    """
    figures = reported() if figures is None else figures
    data = _dataset(dataset)
    if data == "folder":
        data, category = _of_folder(category, figures)
    budget, known = parse_eps(eps, norm), published_metrics()
    figures = figures[[_dataset(name) == data for name in figures["dataset"]]]
    same = [
        _key(row["category"]) in (_key(category), WHOLE)
        and (known[row["metric"]].column == "clean" or (row["norm"] == norm and parse_eps(row["eps"], norm) == budget))
        for row in _records(figures)
    ]
    return figures[pd.Series(same, index=figures.index, dtype=bool)].reset_index(drop=True)


def _of_folder(name: str, figures: pd.DataFrame) -> tuple[str, str]:
    """Data set and category that a folder's name says; an empty data set if it says none."""
    if _dataset(name) in {_dataset(row["dataset"]) for row in _records(figures)}:
        return _dataset(name), WHOLE
    names = {_key(ours): ours for ours in registry.names("datasets")}
    for spelt, ours in (names | {alias: names[ours] for alias, ours in ALIASES.items()}).items():
        if _key(name).startswith(spelt):
            for category in getattr(registry.load("datasets", ours).target, "CATEGORIES", ()):
                if _key(name) == spelt + _key(category):
                    return _dataset(ours), category
    return "", WHOLE


def _records(figures: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(figures.columns, values, strict=True)) for values in figures.itertuples(index=False)]


@functools.cache
def _key(name: str) -> str:
    """Letters and digits alone, in lower case."""
    return "".join(character for character in name.casefold() if character.isalnum())


def _dataset(name: str) -> str:
    return ALIASES.get(_key(name), _key(name))
