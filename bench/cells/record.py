"""run.json beside its rows: read whole and validated, or refused in one line; and written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ..errors import UserError
from ..system import files
from .base import first_problem
from .rows import SAMPLES, Row, from_csv, read_samples
from .schema import SCHEMA, FinishedRecord, Record

ASIDE = "previous"  # folder below a cell: the finished result that --force is replacing
SAVED = "images"  # folder below a cell: what --save-images keeps
REMEDY = "it was changed, or another tool wrote it: run the cell again with --force, or remove its folder"


class DamagedRecord(UserError):
    """Of a run.json that this version should have written, and that is not as it writes them."""


def read_record(folder: Path) -> Record:
    """run.json of a cell, a FinishedRecord if it says so.

    Raises DamagedRecord, which names the file and the first field that is not as a cell has it, and UserError for a
    file that is not JSON or was written by another version.
    """
    path = folder / "run.json"
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise DamagedRecord(f"{path} is not the record of a cell; {REMEDY}")
    if found.get("schema") != SCHEMA:
        raise UserError(
            f"{path} was written by another version (schema {str(found.get('schema'))[:20]}, this one reads {SCHEMA}); "
            "use that version, or another --results"
        )
    try:
        return (FinishedRecord if found.get("status") == "finished" else Record).model_validate(found)
    except ValidationError as error:
        raise DamagedRecord(f"{path}, {first_problem(error)}; {REMEDY}") from None


def read_finished(folder: Path) -> FinishedRecord:
    """As `read_record`; UserError as well for a cell that is not finished."""
    record = read_record(folder)
    if not isinstance(record, FinishedRecord):
        raise UserError(f"{folder} is not finished ({record.rows} rows); the same `bench run` goes on with it")
    return record


def write_record(folder: Path, record: Record) -> None:
    files.write_json(folder / "run.json", record.as_json())


def read_rows(folder: Path, record: FinishedRecord) -> list[Row]:
    """The rows of a finished cell."""
    return from_csv(unchanged_samples(folder, record), folder / SAMPLES)


def unchanged_samples(folder: Path, record: FinishedRecord) -> str:
    """samples.csv of a finished cell, after its hash has been compared with the record."""
    text, digest = read_samples(folder)
    if digest != record.samples_sha256:
        raise UserError(
            f"{folder / 'samples.csv'} was changed after it was written (its sha256 is not the one in run.json); "
            "run the cell again with --force"
        )
    return text


def folders_of_cells(root: Path) -> list[Path]:
    """Those below it, without what --force has set aside, or was setting aside when it was killed."""
    return sorted(p.parent for p in root.rglob("run.json") if ASIDE not in p.parent.name.split("."))


def finished_below(root: Path) -> Iterator[tuple[Path, FinishedRecord]]:
    """The folders and records of the finished cells below it; what cannot be read is left out, and no row is read."""
    for folder in folders_of_cells(root):
        with contextlib.suppress(UserError):
            yield folder, read_finished(folder)


def cells_below(path: Path) -> list[Path]:
    """The folder itself if it is a cell, else those below it."""
    path = path.parent if path.name == "run.json" else path
    if not path.exists():
        raise UserError(f"no {path}; expected a cell's folder (with run.json), or a folder of cells")
    found = folders_of_cells(path)
    if not found:
        raise UserError(f"{path} is no cell and holds none: there is no run.json in it")
    return found
