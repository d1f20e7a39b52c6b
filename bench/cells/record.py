"""run.json beside its rows: read whole, or refused in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..system import files
from .rows import Row, from_csv

SCHEMA = 3
"""Of run.json and samples.csv; results of another schema are refused, never guessed at."""
ASIDE = "previous"  # folder below a cell: the finished result that --force is replacing
SAVED = "images"  # folder below a cell: what --save-images keeps


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a cell, if this version can read it."""
    path = folder / "run.json"
    record = files.read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise UserError(
            f"{path} was written by another version (schema {found}, this one reads {SCHEMA}); "
            "use that version, or another --results"
        )
    return record


def read_rows(folder: Path, record: dict[str, Any]) -> list[Row]:
    """The rows of a finished cell."""
    return from_csv(unchanged_samples(folder, record), folder / "samples.csv")


def unchanged_samples(folder: Path, record: dict[str, Any]) -> str:
    """samples.csv of a finished cell, after its hash has been compared with the record."""
    text, digest = read_samples(folder)
    if digest != record.get("samples_sha256"):
        raise UserError(
            f"{folder / 'samples.csv'} was changed after it was written (its sha256 is not the one in run.json); "
            "run the cell again with --force"
        )
    return text


def read_samples(folder: Path) -> tuple[str, str]:
    """samples.csv as it is, and its sha256; UserError if it is not there or not UTF-8."""
    path = folder / "samples.csv"
    try:
        content = path.read_bytes()
        return content.decode("utf-8"), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not a table in UTF-8") from None
