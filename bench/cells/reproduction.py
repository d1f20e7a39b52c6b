"""What somebody found who ran a submission again: a file beside the zip, theirs and never the submitter's.

`theirs.zip.reproduced.json` is written by `bench verify theirs.zip --rerun`. It is of one content: it holds the zip's
sha256, and a zip that was changed since has none. It is not signed: whoever may write into a results folder says there
what was reproduced. What lies inside a zip says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from ..errors import UserError
from ..system import files
from .base import Count, Part, Sha256, first_problem

SCHEMA: Literal[1] = 1
SUFFIX = ".reproduced.json"
Verdict = Literal["reproduced", "not reproduced"]


class TestRecord(Part):
    """One line of the rerun."""

    __test__ = False  # pytest looks for classes of that name

    status: Literal["pass", "FAIL", "note", "skip"]
    name: str
    sentence: str


class CellRerun(Part):
    """A cell of the submission, run again."""

    verdict: Verdict
    tests: list[TestRecord]
    images: list[str]
    """Ids of the test images that were attacked (or certified) again."""
    differences: dict[str, float]
    """By what they are of: the largest, or the mean, between the rows and what was computed again."""
    detector_code: str = ""
    """sha256 of the code that ran here."""
    attack_code: str = ""


class Reproduction(Part):
    """A submission that was run again."""

    version: Literal[1] = Field(alias="schema")
    sha256: Sha256
    """Of the zip."""
    verdict: Verdict
    """`reproduced` if every one of its cells is."""
    finished: str
    """Date and time in UTC."""
    seed: int
    """That chose the images: of whoever ran it again, so that no submitter could know them."""
    images: Annotated[int, Field(ge=1)]
    """How many of a cell were asked for."""
    refitted: bool
    """Fitted again although the weights were carried."""
    other_versions: bool
    """Other versions of packages, or other code, than the submission names were accepted."""
    threads: Count
    """Of torch."""
    device: str
    versions: dict[str, str | None]
    cells: dict[str, CellRerun]
    """By where they lie in the zip."""


class Found(NamedTuple):
    """`of` is None where nothing was reproduced; then `why`, unless there is no record at all."""

    of: Reproduction | None
    why: str = ""


def path_beside(submission: Path) -> Path:
    """Where the record of a rerun of this zip lies."""
    return submission.with_name(submission.name + SUFFIX)


def write_reproduction(submission: Path, record: dict[str, Any]) -> Path:
    """`record`: what `Reproduction` holds, without its schema."""
    path = path_beside(submission)
    files.write_json(path, Reproduction.model_validate({"schema": SCHEMA} | record).as_json())
    return path


def reproduction_of(submission: Path, sha256: str) -> Found:
    """The record beside a zip of that content, if it says that all of it was reproduced."""
    path = path_beside(submission)
    if not path.is_file():
        return Found(None)
    try:
        record = Reproduction.model_validate(files.read_json(path))
    except ValidationError as error:
        return Found(None, f"{path.name} is not the record of a rerun: {first_problem(error)}")
    except UserError as error:
        return Found(None, str(error))
    if record.sha256 != sha256:
        return Found(None, f"{submission.name} was changed after it was run again: `bench verify --rerun` once more")
    return Found(record if record.verdict == "reproduced" else None)
