"""--force costs no finished result: neither a kill at any step, nor a failure after it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Killed

from bench import UserError
from bench.cells.record import read_finished, read_rows
from bench.harness import aside

NEW = "the rows of a redo that is not finished"


@pytest.fixture
def cell(ran: Path, tmp_path: Path) -> Path:
    """A finished one, with an image beside its rows."""
    (found,) = (ran / "results").rglob("Mean*/pgd-linf-4_255")
    folder = shutil.copytree(found, tmp_path / "cell")
    (folder / "images").mkdir()
    (folder / "images/one.npz").write_text("an image")
    return folder


def steps_of(patch: pytest.MonkeyPatch, kill_at: int) -> Iterator[int]:
    """Counts what is done to the disk; a kill comes before the step of that number."""
    taken = iter(range(10**6))

    def before(call: object, owner: object, name: str) -> None:
        def step(*arguments: object, **more: object) -> object:
            if next(taken) == kill_at:
                raise Dead
            return call(*arguments, **more)  # type: ignore[operator]

        patch.setattr(owner, name, step)

    for owner, name in (
        (os, "link"),
        (Path, "rename"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (os, "rmdir"),
        (os, "unlink"),
    ):
        before(getattr(owner, name), owner, name)
    return taken


class Dead(BaseException):
    """The process is gone: nothing of it runs any more."""


def redo(folder: Path, ends: type[BaseException] | None, kill_at: int = -1) -> int:
    """A `--force` that writes some rows, and ends so, or is killed before a step; the number of steps."""
    with pytest.MonkeyPatch.context() as patch:
        taken = steps_of(patch, kill_at)
        try:
            with aside.set_aside(folder):
                record = json.loads((folder / "previous/run.json").read_text(encoding="utf-8"))
                (folder / "samples.csv").write_text(NEW)
                (folder / "run.json").write_text(json.dumps({**record, "status": "running", "rows": 0}))
                if ends is not None:
                    raise ends
        except (Dead, UserError, Killed):
            pass
        return next(taken)


def whole(folder: Path) -> bool:
    """Whether the finished result is there, rows and images."""
    try:
        read_rows(folder, read_finished(folder))
    except UserError:
        return False
    return (folder / "images/one.npz").read_text() == "an image"


def test_a_failing_redo_brings_everything_back(cell: Path) -> None:
    before = {path.relative_to(cell): path.read_bytes() for path in cell.rglob("*") if path.is_file()}
    for ends in (UserError, Killed):  # any error that a redo may end in
        redo(cell, ends)
        assert {path.relative_to(cell): path.read_bytes() for path in cell.rglob("*") if path.is_file()} == before


def test_no_kill_and_no_failure_after_it_costs_the_finished_rows(cell: Path, tmp_path: Path) -> None:
    steps = redo(shutil.copytree(cell, tmp_path / "counted"), UserError)
    assert steps > 10
    for first in range(steps):
        for second in range(0, steps, 3):
            folder = shutil.copytree(cell, tmp_path / f"{first}-{second}")
            redo(folder, UserError, kill_at=first)
            assert whole(folder) or whole(folder / "previous")
            redo(folder, UserError, kill_at=second)
            assert whole(folder) or whole(folder / "previous")
            redo(folder, UserError)
            assert whole(folder) and not (folder / "previous").exists()
            assert sorted(path.name for path in folder.iterdir()) == ["images", "run.json", "samples.csv"]
            shutil.rmtree(folder)


def test_the_newest_finished_result_is_what_comes_back(cell: Path) -> None:
    """A kill between the end of a redo and the removal of what it replaced."""
    shutil.copytree(cell, cell / "previous")
    (cell / "previous/images/one.npz").write_text("an older image")
    redo(cell, UserError)
    assert whole(cell)


def test_a_file_system_without_links(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError), aside.set_aside(cell):
        assert whole(cell / "previous") and not (cell / "run.json").exists()
        raise UserError("it fails")
    assert whole(cell)
