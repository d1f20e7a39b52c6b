"""Full disks, damaged caches and what killed processes leave: one line that names the place and the remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Run, on_tree, one_line
from conftest import MEAN, Linear, module

from bench import Progress, UserError
from bench.audit.submit import submit
from bench.cells.submission import unpacked
from bench.plugins import kept_fits
from bench.system import arrays, files, locks, temporary
from bench.system.cache import cache_folder

pytestmark = pytest.mark.usefixtures("own_cache")

FULL = "No space left on device"


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from bench.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit of a file's size is a thing of POSIX")
@pytest.mark.parametrize("size", [0, 100, 1000, 3000])
def test_files_may_not_grow(tree: Path, plugin: str, results: Path, size: int) -> None:
    """A limit is met where a full disk would be: at the fit, its record, the rows, or the images of a sweep."""
    words = ["run", "--detector", plugin, *map(str, on_tree(tree, results)), "--eps", "1/255,2/255"]
    command = [sys.executable, "-c", LIMITED, str(size), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    for line in done.stderr.splitlines():
        room = "cannot write" in line and "make room there" in line
        assert room or "No usable temporary directory" in line  # not even for what processes speak through
    kept = {path: path.read_bytes() for path in results.rglob("samples.csv")}
    again = subprocess.run([sys.executable, "-m", "bench.cli", *words], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert all(path.read_bytes().startswith(rows) for path, rows in kept.items())


def says_where(error: pytest.ExceptionInfo[UserError], place: str) -> bool:
    said = str(error.value)
    return place in said and FULL in said and "make room there" in said and "\n" not in said


def test_a_fit_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def no_room_either(*_: object) -> None:
        raise SafetensorError(f"Error while serializing: I/O error: {FULL} (os error {errno.ENOSPC})")

    monkeypatch.setattr("safetensors.torch.save_file", no_room_either)
    folder = cache_folder() / "fitted/one"
    with pytest.raises(UserError) as error:
        kept_fits.save(Linear(), folder, {"schema": kept_fits.SCHEMA})
    assert says_where(error, str(folder / "model.safetensors")) and "XDG_CACHE_HOME" in str(error.value)
    assert list(folder.iterdir()) == []


def test_a_checkpoint_of_a_training_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    training, detector = module("_training"), Linear()
    detector.progress = Progress()
    detector.progress.checkpoint = cache_folder() / "fitted/one/training.pt"
    training._save(detector, {"network": torch.nn.Linear(2, 2)}, 0, 1)
    before = detector.progress.checkpoint.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(UserError) as error:
        training._save(detector, {"network": torch.nn.Linear(2, 2)}, 0, 2)
    assert says_where(error, "training.pt")
    assert detector.progress.checkpoint.read_bytes() == before
    assert len(list(detector.progress.checkpoint.parent.iterdir())) == 1


def test_warm_starts_draws_and_locks_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", no_room)
    folder = cache_folder() / "attacked/one"
    with pytest.raises(UserError) as error:
        arrays.write_sealed(folder / "a.npy", np.zeros(3), "a")
    assert says_where(error, "a.npy") and list(folder.iterdir()) == []
    with pytest.raises(UserError) as error:
        files.write_at(folder / "draws.f8", 0, b"12345678")
    assert says_where(error, "draws.f8")
    monkeypatch.setattr(Path, "mkdir", no_room)
    with pytest.raises(UserError) as error, locks.alone(cache_folder() / "fitted/two", "fits", print):
        pass
    assert says_where(error, ".two.lock")


def test_numpy_says_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object, **__: object) -> None:
        raise OSError("192 requested and 120 written")

    monkeypatch.setattr(Path, "write_bytes", short)
    with pytest.raises(UserError, match="192 requested and 120 written; make room there or set XDG_CACHE_HOME"):
        arrays.write_sealed(cache_folder() / "attacked/one/a.npy", np.zeros(3), "a")


def packed(results: Path, path: Path) -> Path:
    assert list(submit(results, path))
    return path


def test_a_submission_does_not_fit(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(published, tmp_path / "s.zip")
    monkeypatch.setattr(shutil, "copyfileobj", no_room)
    with pytest.raises(UserError) as error:
        unpacked(path)
    assert says_where(error, "submissions")
    assert list((cache_folder() / "submissions").iterdir()) == []


def test_rows_that_do_not_fit_are_kept_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.csv"
    files.append(path, "a row\n")
    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(UserError) as error:
        files.append(path, "another\n")
    assert says_where(error, "samples.csv") and "XDG_CACHE_HOME" not in str(error.value)
    assert path.read_text().startswith("a row\n")


DAMAGES = {
    "another shape": lambda folder: (folder / "fit.json").write_text("[1, 2]"),
    "no record": lambda folder: (folder / "fit.json").write_text("{}"),
    "no number": lambda folder: (folder / "fit.json").write_text('{"schema": 2, "model_sha256": 3}'),
    "cut": lambda folder: (folder / "fit.json").write_text("{"),
    "no text": lambda folder: (folder / "fit.json").write_bytes(b"\xff\xfe"),
    "less than a run says": lambda folder: lacking(folder / "fit.json", "images"),
    "no model": lambda folder: (folder / "model.safetensors").unlink(),
    "a cut model": lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 9),
    "a folder": lambda folder: [(folder / "model.safetensors").unlink(), (folder / "model.safetensors").mkdir()],
}


def lacking(path: Path, name: str) -> None:
    record = json.loads(path.read_text())
    del record[name]
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_fit_is_made_again(run_cli: Run, tree: Path, plugin: str, results: Path, damage: str) -> None:
    command = ("run", "--detector", plugin, *on_tree(tree, results))
    assert run_cli(*command)[0] == 0
    rows = next(results.rglob("samples.csv")).read_bytes()
    (record,) = cache_folder().rglob("fit.json")
    DAMAGES[damage](record.parent)
    code, out, err = run_cli(*command, "--force")
    assert code == 0 and "Traceback" not in err
    assert "fitting again" in " ".join((out + err).split())
    assert next(results.rglob("samples.csv")).read_bytes() == rows
    assert run_cli(*command, "--force")[0] == 0
    assert len(list(record.parent.parent.iterdir())) == 1


def test_two_files_with_one_class_name(run_cli: Run, tree: Path, plugin: str, results: Path, tmp_path: Path) -> None:
    assert run_cli("run", "--detector", plugin, *on_tree(tree, results))[0] == 0
    other = tmp_path / "other.py"
    other.write_text(MEAN.replace("abs().pow(self.power)", "abs()"), encoding="utf-8")
    code, _, err = run_cli("run", "--detector", f"{other}:Mean", *on_tree(tree, results))
    said = one_line(err)
    assert code == 2 and "another Mean" in said and "--results DIR keeps both" in said


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def left(folder: Path, name: str, process: int, machine: str | None = None) -> Path:
    """What a process leaves that is killed while it writes."""
    own = temporary.prefix(name)
    path = folder / f"{own.replace(f'-{os.getpid()}.', f'-{process}.')}a1b2c3d4"
    if machine:
        path = path.with_name(path.name.replace(own.split(".")[-2].split("-")[0], machine))
    path.write_text("half a file")
    return path


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("whether a process lives can be asked on POSIX alone; here its files go after a day")
    gone = left(tmp_path, "run.json", dead_process())
    alive = left(tmp_path, "run.json", os.getppid())
    elsewhere = left(tmp_path, "run.json", dead_process(), machine="abcdef")
    aged = left(tmp_path, "fit.json", os.getppid(), machine="abcdef")
    older = tmp_path / ".run.json.abcdefgh"
    young = tmp_path / ".samples.csv.abcdefgh"
    private = tmp_path / ".my.settings"
    for path in (older, young, private):
        path.write_text("x")
    for path in (aged, older, private):
        os.utime(path, (time.time() - 2 * temporary.DAY,) * 2)
    files.write_text(tmp_path / "run.json", "{}")
    assert not gone.exists() and not aged.exists() and not older.exists()
    assert alive.exists() and elsewhere.exists() and young.exists() and private.exists()


KILLED = """
import os, sys
from pathlib import Path
from bench.system import files
with files.writing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_a_process_that_is_killed_while_it_writes(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("no SIGKILL here")
    folder = tmp_path / "cell"
    subprocess.run([sys.executable, "-c", KILLED, str(folder / "run.json")])
    assert len(list(folder.iterdir())) == 1
    files.write_text(folder / "run.json", "{}")
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_what_a_killed_unpacking_left_is_swept(published: Path, tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("whether a process lives can be asked on POSIX alone")
    place = cache_folder() / "submissions"
    place.mkdir(parents=True)
    name = temporary.prefix("unpacking").replace(f"-{os.getpid()}.", f"-{dead_process()}.")
    (place / f"{name}a1b2c3d4/sub").mkdir(parents=True)
    unpacked(packed(published, tmp_path / "s.zip"))
    assert not list(place.glob(".*"))
