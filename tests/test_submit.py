"""`bench submit`: cells in one file and out of it again; of a file that somebody else made nothing is believed."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.cells.reader import Results, find_cells, refuse_twins
from bench.cells.result import Result
from bench.cells.submission import cells_of_submission, unpacked
from bench.errors import UserError
from bench.system.cache import cache_folder

Run = Callable[..., tuple[int, str, str]]


def members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.fixture
def submission(published: Path, run_cli: Run, tmp_path: Path) -> Path:
    """All four cells of `published`."""
    code, _, err = run_cli("submit", published, "--out", tmp_path / "all.zip")
    assert code == 0, err
    return tmp_path / "all.zip"


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_comes_out_is_what_went_in(submission: Path, published: Path) -> None:
    found = files_below(unpacked(submission))
    weights = {name: found.pop(name) for name in list(found) if name.startswith("weights/")}
    of_cells = {name: content for name, content in files_below(published).items() if not name.startswith(".runs/")}
    assert found == of_cells and sorted(members(submission)) == members(submission)
    assert members(submission) == [*found, *weights] and len(weights) == 1  # Mean and Noisy learn the same
    for name, content in weights.items():
        assert name == f"weights/{hashlib.sha256(content).hexdigest()}.safetensors"
    assert find_cells(unpacked(submission))[0][0].metrics["robust_auroc"].value <= 1


def test_the_same_cells_are_the_same_bytes_wherever_they_lie(submission: Path, published: Path, run_cli: Run) -> None:
    before = submission.read_bytes()
    moved = published.rename(published.parent / "elsewhere")
    for path in moved.rglob("samples.csv"):
        path.touch()
    code, out, _ = run_cli("submit", moved, "--out", submission)
    assert code == 0 and submission.read_bytes() == before
    lines = out.splitlines()
    assert len(lines) == 4 + 2 and lines[4].startswith(f"written: {submission} (4 cells, 1 fit, ")
    assert lines[5].startswith("next: ") and f"bench verify {submission} --rerun" in lines[5]
    assert all("12 rows, " in line and "clean AUROC" in line and "robust AUROC" in line for line in lines[:4])


def test_one_cell_is_packed_with_its_place(published: Path, run_cli: Run, tmp_path: Path) -> None:
    (folder,) = published.rglob("Mean*/pgd-linf-4_255")
    code, _, err = run_cli("submit", folder, "--out", tmp_path / "one.zip")
    assert code == 0, err
    place = folder.relative_to(published).as_posix()
    found = members(tmp_path / "one.zip")
    assert found[:-1] == [f"{place}/{name}" for name in files_below(folder)] and found[-1].startswith("weights/")
    assert [name.count("/images/") for name in members(tmp_path / "one.zip")].count(1) == 3


def test_only_what_a_record_names_is_packed(published: Path, run_cli: Run, tmp_path: Path) -> None:
    (folder,) = published.rglob("Mean*/pgd-linf-4_255")
    (folder / "images" / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "previous").mkdir()
    shutil.copy(folder / "run.json", folder / "previous")
    assert run_cli("submit", folder, "--out", tmp_path / "one.zip")[0] == 0
    assert not any("notes" in name or "previous" in name for name in members(tmp_path / "one.zip"))


def test_a_submission_is_verified_as_its_cells_are(submission: Path, run_cli: Run, ran: Path) -> None:
    options = ("--data-root", ran / "images/widget", "--detector", f"{ran}/mine.py:Mean", "--no-scores")
    code, out, err = run_cli("verify", submission, *options)
    assert (code, err) == (0, "") and out.count("pass    metrics: ") == 4
    assert f"{submission}: folder/widget/" in out and str(cache_folder()) not in out
    (submission.parent / "theirs").mkdir()
    alone = submission.rename(submission.parent / "theirs" / "all.zip")
    code, out, _ = run_cli("verify", alone.parent, *options)
    assert code == 0 and out.count("pass    metrics: ") == 4


def test_unfinished_cells_are_left_out(published: Path, run_cli: Run, tmp_path: Path) -> None:
    cells = sorted(published.rglob("run.json"))
    for path in cells[1:]:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}), encoding="utf-8")
    code, out, _ = run_cli("submit", published, "--out", tmp_path / "some.zip")
    assert code == 0 and out.count("left out, not finished: ") == 3 and "(1 cell, 1 fit, " in out
    cells[0].write_text(json.dumps(json.loads(cells[0].read_text()) | {"status": "running"}), encoding="utf-8")
    code, _, err = run_cli("submit", published, "--out", tmp_path / "none.zip")
    assert code == 2 and "no finished cell in" in err and not (tmp_path / "none.zip").exists()


def change_first_row(folder: Path) -> None:
    path = folder / "samples.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] += "1"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_what_is_not_as_recorded_is_not_submitted(published: Path, run_cli: Run, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        code, out, err = run_cli("submit", path, "--out", tmp_path / "refused.zip")
        assert code == 2 and not out and len(err.splitlines()) == 1, (code, out, err)
        assert not (tmp_path / "refused.zip").exists()
        return err

    (folder,) = published.rglob("Mean*/pgd-linf-4_255")
    assert "expected a cell's folder" in refused(tmp_path / "nothing")
    next((folder / "images").iterdir()).unlink()
    assert f"{folder} is not submitted: images: " in refused(published)
    change_first_row(folder)
    assert f"{folder} is not submitted: rows: samples.csv was changed" in refused(published)
    (folder / "run.json").write_text("{", encoding="utf-8")
    assert "is not JSON" in refused(published)


def test_a_submission_is_not_submitted_again(submission: Path, run_cli: Run) -> None:
    code, _, err = run_cli("submit", submission, "--out", submission.parent / "again.zip")
    assert code == 2 and "is a submission already" in err


# --- files that somebody else made


def test_a_submission_is_unpacked_once_for_each_content(submission: Path) -> None:
    folder = unpacked(submission)
    assert folder.is_relative_to(cache_folder())
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert unpacked(submission) == folder and times == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert len(cells_of_submission(submission, "all.zip")) == 4
    with zipfile.ZipFile(submission, "a") as archive:
        for name in ("run.json", "samples.csv"):
            archive.writestr(f"a/b/{name}", "")
    assert unpacked(submission) != folder and len(cells_of_submission(submission, "all.zip")) == 5


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


CELL = [entry("a/b/run.json"), entry("a/b/samples.csv")]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ([entry("/etc/run.json")], "it holds '/etc/run.json'"),
        ([entry("../run.json")], "it holds '../run.json'"),
        ([entry("a/../../b/run.json")], "it holds 'a/../../b/run.json'"),
        ([entry("a\\b\\run.json")], "expected run.json, samples.csv and images/*.npz"),
        ([entry("C:/b/run.json")], "it holds 'C:/b/run.json'"),
        ([entry("a/.hidden/run.json")], "it holds 'a/.hidden/run.json'"),
        ([entry("a/b/mine.py")], "it holds 'a/b/mine.py'"),
        ([entry("a/b/images/photo.png")], "it holds 'a/b/images/photo.png'"),
        ([entry("a/b/images/../../../../0123456789.npz")], "it holds "),
        ([entry("run.json")], "it holds 'run.json'"),
        ([entry("a/b/images/")], "it holds 'a/b/images/'"),
        ([entry("a/b/images/0123456789abcdef.npz", stat.S_IFLNK | 0o777)], "is a link"),
        ([entry("a/c/run.json")], "a/c is no cell"),
        ([entry("a/c/images/0123456789abcdef.npz")], "a/c is no cell"),
        ([entry("A/b/run.json"), entry("A/b/samples.csv")], "holds a name twice"),
    ],
)  # fmt: skip
def test_anything_but_cells_is_refused(tmp_path: Path, extra: Sequence[zipfile.ZipInfo], says: str) -> None:
    path = tmp_path / "evil.zip"
    before = sorted(tmp_path.rglob("*"))
    with zipfile.ZipFile(path, "w") as archive:
        for info in (*CELL, *extra):
            archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="evil.zip is not a submission: ") as raised:
        unpacked(path)
    assert says in str(raised.value)
    assert sorted(p for p in tmp_path.rglob("*") if p != path) == before
    assert not list((cache_folder() / "submissions").glob(".*"))


def test_a_submission_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info in CELL:
            archive.writestr(info, b"0" * 10_000, zipfile.ZIP_DEFLATED)
    for limit, value, says in (
        ("ROWS_BYTES", 9_999, "is larger than"), ("BYTES", 19_999, "it holds more than"),
        ("MEMBERS", 1, "it holds more than"), ("BYTES", 100, "it is larger than"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(f"bench.cells.submission.{limit}", value)
            with pytest.raises(UserError, match=says):
                unpacked(path)
    assert len(cells_of_submission(path, "large.zip")) == 1


def test_damaged_files_are_named_in_one_line(submission: Path, run_cli: Run) -> None:
    content = submission.read_bytes()
    middle = len(content) // 3
    damaged = [content[: len(content) // 2], b"", b"no zip", content[:middle] + b"\0" * 64 + content[middle + 64 :]]
    for bytes_ in damaged:
        submission.write_bytes(bytes_)
        code, out, err = run_cli("verify", submission)
        assert code == 2 and not out and len(err.splitlines()) == 1
        assert f"{submission} is no" in err, err
    assert not list((cache_folder() / "submissions").iterdir())


def test_an_encrypted_file_is_refused(submission: Path) -> None:
    content = bytearray(submission.read_bytes())
    start = content.index(b"PK\x01\x02")  # the central directory, whose first flag is encryption
    content[start + 8] |= 1
    submission.write_bytes(content)
    with pytest.raises(UserError, match=r"all\.zip is no whole submission"):
        unpacked(submission)


# --- the same cell twice


def test_the_same_cell_twice(published: Path, submission: Path) -> None:
    here, there = find_cells(published).results, find_cells(unpacked(submission)).results
    assert refuse_twins([*here, *there], Results([], [], [])) == here
    first = here[0]
    other = Result(Path("other"), first.record.model_copy(update={"samples_sha256": "0" * 64}), first.table)
    with pytest.raises(UserError, match="with different rows") as raised:
        refuse_twins([*here, other], Results([], [], []))
    assert str(first.folder) in str(raised.value) and "other" in str(raised.value)


def test_twins_are_submitted_once_and_never_with_different_rows(published: Path, run_cli: Run, tmp_path: Path) -> None:
    (folder,) = published.rglob("Mean*/pgd-linf-8_255")
    twin = Path(shutil.copytree(folder, published / "twin"))
    code, out, _ = run_cli("submit", published, "--out", tmp_path / "all.zip")
    assert code == 0 and "(4 cells, 1 fit, " in out
    (other,) = published.rglob("Mean*/pgd-linf-4_255")
    record = json.loads((twin / "run.json").read_text(encoding="utf-8"))
    shutil.copy(other / "samples.csv", twin / "samples.csv")
    theirs = json.loads((other / "run.json").read_text(encoding="utf-8"))
    changed = record | {name: theirs[name] for name in ("samples_sha256", "metrics")}
    (twin / "run.json").write_text(json.dumps(changed), encoding="utf-8")
    code, _, err = run_cli("submit", published, "--out", tmp_path / "other.zip")
    assert code == 2 and str(folder) in err and str(twin) in err and "with different rows" in err
    assert not (tmp_path / "other.zip").exists()


def test_a_submission_below_the_results_is_reported(published: Path, run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    assert run_cli("submit", published, "--out", tmp_path / "theirs" / "all.zip")[0] == 0
    code, _, err = run_cli("report", "--results", tmp_path / "theirs", "--format", "csv")
    assert code == 0, err
    assert run_cli("report", "--results", published, "--out", tmp_path / "mine", "--format", "csv")[0] == 0
    theirs, mine = (tmp_path / "theirs" / "submitted.csv", tmp_path / "mine" / "leaderboard.csv")
    assert len(theirs.read_text().splitlines()) == len(mine.read_text().splitlines()) == 5
    assert not (tmp_path / "mine" / "submitted.csv").exists()
    (tmp_path / "theirs" / "broken.zip").write_bytes(b"PK")
    code, out, _ = run_cli("report", "--results", tmp_path / "theirs", "--format", "csv")
    assert code == 1 and "broken.zip" in "".join(out.split())
