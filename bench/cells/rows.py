"""The rows of a cell, one per test image, and their form on the disk: samples.csv."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..system import files
from .pixels import SUFFIX


class Row(NamedTuple):
    """What is known of one test image. Scores are raw; `distance` is in the norm of the threat model.

    rounded: the score of the attacked image after rounding to 8 bits.
    more: what else the attack found, by column: the score that each of its parts reached (`apgd`, `square`, ...); of a
    randomized detector `clean_se` and `worst_se` (standard errors of `clean` and `worst`, which are means over draws),
    `worst_draw` (of the draws, the worst, on images made for their mean) and `known_noise` (the adversary knows the
    draw); the radius of a minimum-norm attack; `after_1`, `after_2`, `after_5`, ...: the worst score that the attack
    has met in so many passes; of `standard`, `passes` (forward and backward, spent on this image) and `stopped` (why no
    more were: 1 it has lost every pair, 2 its steps brought nothing, 3 all were used).
    """

    id: str
    label: int
    clean: float
    worst: float
    distance: float
    rounded: float
    more: dict[str, float] = {}  # noqa: RUF012
    pixels: dict[str, str] = {}  # noqa: RUF012
    """Of an anomaly map, where its pixels lie (`cells.pixels`), by the column that has it: `clean_pixels`, ..."""


COLUMNS = Row._fields[:6]
"""Of samples.csv, before those that depend on the attack."""
SAMPLES = "samples.csv"


def begin_samples(folder: Path) -> None:
    """samples.csv without a row."""
    files.write_text(folder / SAMPLES, "")


def append_samples(folder: Path, rows: Sequence[Row], first: bool) -> None:
    """Rows on the disk when this returns; below the header, which comes with the first ones."""
    files.append(folder / SAMPLES, to_csv(rows, header=first))


def resume_samples(folder: Path, count: int) -> list[Row]:
    """The first `count` rows. Further ones were being written when the process died, and are cut off."""
    path = folder / SAMPLES
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; --force starts over") from None
    lines = content.splitlines(keepends=True)
    try:
        kept = b"".join(lines[: count + 1] if count else []).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is no text; --force starts over") from None
    if kept.encode() != content:
        files.write_text(path, kept)
    return from_csv(kept, path) if kept else []


def read_samples(folder: Path) -> tuple[str, str]:
    """samples.csv as it is, and its sha256; UserError if it is not there or not UTF-8."""
    path = folder / SAMPLES
    try:
        content = path.read_bytes()
        return content.decode("utf-8"), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not a table in UTF-8") from None


def to_csv(rows: Sequence[Row], header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow([*COLUMNS, *rows[0].more, *rows[0].pixels])
    writer.writerows(
        (r.id, r.label, *(repr(float(v)) for v in (*r[2:6], *r.more.values())), *r.pixels.values()) for r in rows
    )
    return text.getvalue()


def from_csv(text: str, path: Path) -> list[Row]:
    """Raises UserError for a table that is not whole; see `Table.from_csv`."""
    return Table.from_csv(text, path).rows


class Table(NamedTuple):
    """The rows of a cell by column; N images."""

    ids: tuple[str, ...]
    anomalous: npt.NDArray[np.bool_]
    """(N,)"""
    columns: dict[str, npt.NDArray[np.float64]]
    """(N,) each: `clean`, `worst`, `distance`, `rounded`, and what the attack added."""
    pixels: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    """N texts each: see `Row.pixels`."""

    def __repr__(self) -> str:
        return f"Table({len(self.ids)} images, {int(self.anomalous.sum())} anomalous: {', '.join(self.columns)})"

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        names = [*COLUMNS[2:], *(rows[0].more if rows else ())]
        values = np.array([[*row[2:6], *row.more.values()] for row in rows], dtype=np.float64)
        columns = dict(zip(names, values.reshape(-1, len(names)).T, strict=True))
        pixels = {name: tuple(row.pixels[name] for row in rows) for name in (rows[0].pixels if rows else ())}
        anomalous = np.array([row.label == 1 for row in rows], dtype=bool)
        return cls(tuple(row.id for row in rows), anomalous, columns, pixels)

    @classmethod
    def from_csv(cls, text: str, path: Path) -> Table:
        """Raises UserError where a column is missing, short, there twice or no number, and for labels but 0 and 1."""
        damaged = f"{path} is damaged: expected the columns {', '.join(COLUMNS)}"
        try:
            header, *lines = list(csv.reader(io.StringIO(text))) or [[]]
            found = dict(zip(header, zip(*lines, strict=True), strict=True))
            ids, labels = found.pop("id"), found.pop("label")
            pixels = {name: found.pop(name) for name in list(found) if name.endswith(SUFFIX)}
            columns = {name: np.array(list(map(float, values))) for name, values in found.items()}
        except (KeyError, ValueError, csv.Error):
            raise UserError(damaged) from None
        if len(found) + len(pixels) + 2 < len(header) or not set(COLUMNS[2:]) <= set(columns):
            raise UserError(f"{damaged}, each once")
        if other := set(labels) - {"0", "1"}:
            raise UserError(f"{damaged}; it has the label {min(other)}, and labels are 0 and 1")
        return cls(ids, np.array([label == "1" for label in labels]), columns, pixels)

    @property
    def normal_only(self) -> bool:
        """There are images, and none is anomalous."""
        return bool(self.ids) and not self.anomalous.any()

    @property
    def rows(self) -> list[Row]:
        """One per image."""
        numbers = {name: values.tolist() for name, values in self.columns.items()}
        more = [name for name in numbers if name not in COLUMNS]
        own = zip(self.ids, self.anomalous.tolist(), *(numbers[name] for name in COLUMNS[2:]), strict=True)
        return [
            Row(
                name,
                int(label),
                clean,
                worst,
                distance,
                rounded,
                {column: numbers[column][i] for column in more},
                {column: texts[i] for column, texts in self.pixels.items()},
            )
            for i, (name, label, clean, worst, distance, rounded) in enumerate(own)
        ]
