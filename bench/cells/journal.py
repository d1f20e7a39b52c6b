"""What a command set out to do: written into the results folder when it begins, so that anybody can see how far it is.

How far each cell is, its own folder says. The journal adds what no folder can: cells that are not begun, why some have
failed, and whether the command still works.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from ..errors import UserError
from ..system import files, locks
from .base import Count, Part, first_problem
from .spec import RunSpec

FOLDER = ".runs"  # below the results
KEPT = 20  # the newest
SCHEMA = 1


class PlannedCell(Part):
    """A cell of a command."""

    label: str
    folder: str
    """Below the results folder, `/` between its parts."""
    images: Count
    """Its rows, once it is finished."""
    spec: RunSpec


class FailedCell(Part):
    """Of what has no result, and why."""

    label: str
    """A cell, or a detector none of whose cells could be begun."""
    why: str
    folders: list[str]
    """Of the cells that it concerns."""


class Journal(Part):
    """Of one command."""

    schema_version: int = SCHEMA
    title: str
    host: str
    process: int
    started: str
    """UTC."""
    at_once: Count
    """Detectors and categories that are worked on side by side."""
    cells: list[PlannedCell]
    failures: list[FailedCell]
    ended: str | None = None
    """UTC; None while it works, and of one that was killed."""


class Keeper:
    """Writes the journal of a command that works. That it cannot be written costs no result: it is said once."""

    def __init__(self, results: Path, journal: Journal, tell: Callable[[str], None]):
        self._path = results / FOLDER / f"{journal.started.replace(':', '')}-{journal.host}-{journal.process}.json"
        self._results, self._journal, self._tell, self._said = results, journal, tell, False
        self._alone = threading.Lock()

    def failed(self, label: str, why: str, folders: Sequence[Path] = ()) -> None:
        """From any thread."""
        where = [below(self._results, folder) for folder in folders]
        with self._alone:
            self._journal.failures.append(FailedCell(label=label, why=why, folders=where))
            self._write()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """The command works within, and nobody who looks can miss it."""
        try:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(locks.alone(self._path, "keeps this journal", self._tell))
                    self._write()
                except UserError as error:
                    self._say(error)
                yield
                self._journal.ended = now()
                self._write()
        finally:
            _tidy(self._path.parent)

    def _write(self) -> None:
        try:
            files.write_text(self._path, self._journal.model_dump_json(indent=1))
        except UserError as error:
            self._say(error)

    def _say(self, error: UserError) -> None:
        if not self._said:
            self._tell(f"`bench status` will not see this run: {error}")
        self._said = True


def journal_of(title: str, at_once: int, cells: Sequence[PlannedCell], failures: Sequence[FailedCell] = ()) -> Journal:
    """Of this process, which begins now. failures: of what has no cells."""
    return Journal(
        title=title,
        host=files.safe_name(platform.node() or "here"),
        process=os.getpid(),
        started=now(),
        at_once=at_once,
        cells=list(cells),
        failures=list(failures),
    )


class Kept(Journal):
    """A journal as it was found."""

    works: bool
    """Its command has not ended."""


def journals(results: Path) -> list[Kept]:
    """Of the newest commands, the oldest first; one that cannot be read is left out: it says nothing of cells."""
    found = []
    for path in _files(results / FOLDER):
        with contextlib.suppress(UserError):
            found.append(read_journal(path))
    return found


def read_journal(path: Path) -> Kept:
    """Raises UserError for a file that is no journal of this version."""
    content = files.read_json(path)
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA:
        raise UserError(f"{path} is no journal of this version")
    try:
        return Kept.model_validate({**content, "works": content.get("ended") is None and locks.is_held(path)})
    except ValidationError as error:
        raise UserError(f"{path}, {first_problem(error)}") from None


def below(results: Path, folder: Path) -> str:
    """A cell's folder as journals name it."""
    return folder.relative_to(results).as_posix()


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.is_file())


def _tidy(folder: Path) -> None:
    """Without locks of commands that were killed, and without all but the newest journals."""
    with contextlib.suppress(OSError):
        paths = _files(folder)
        idle = [path for path in paths if not locks.is_held(path)]
        for path in set(paths[:-KEPT]).intersection(idle):
            path.unlink()
