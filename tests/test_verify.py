"""`bench verify`: what was published passes, and whatever is changed in it is found and named."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PLUGIN
from stored_cells import Run, Verify, cell, change_rows, failed, index_of, record_of, rewrite, verifier


@pytest.fixture
def verified(run_cli: Run, ran: Path) -> Verify:
    return verifier(run_cli, ran)


@pytest.mark.parametrize("name", ["Mean", "Noisy"])
def test_what_was_published_passes(published: Path, verified: Verify, name: str) -> None:
    code, found = verified(cell(published, name), detector=name)
    assert code == 0
    assert list(found) == ["schema", "rows", "metrics", "budget", "code", "images", "data", "scores"]
    assert all(line.startswith("pass ") for line in found.values()), found
    assert found["images"].startswith("pass 3 stored images")
    code, found = verified(cell(published, name), "--no-scores", detector=name)
    assert code == 0 and "scores" not in found and found["data"].startswith("pass")


def test_a_whole_folder_is_verified_cell_by_cell(published: Path, run_cli: Run, ran: Path) -> None:
    code, out, err = run_cli("verify", published, "--data-root", ran / "images/widget", "--no-scores")
    cells = [str(path.parent) for path in sorted(published.rglob("run.json"))]
    assert (code, err) == (0, "") and len(cells) == 4
    assert [line for line in out.splitlines() if line in cells] == cells
    assert (
        "note    code: the code of detector Mean is not compared: no detector named 'Mean'" in out
    )  # without --detector


def test_metrics_are_those_of_the_report(published: Path) -> None:
    from bench.cells.reader import find_cells

    results = find_cells(published).results
    for result in results:
        assert result.record.metrics == {name: metric.value for name, metric in result.metrics.items()}
        assert result.record.metrics["robust_auroc"] <= result.record.metrics["clean_auroc"]


def other_digit(number: str) -> str:
    """The same number with another last digit."""
    return number[:-1] + ("1" if number[-1] != "1" else "2")


def test_a_changed_digit_of_a_score_is_found(published: Path, verified: Verify) -> None:
    folder = cell(published)

    def change(rows: list[dict[str, str]]) -> None:
        rows[0]["worst"] = other_digit(rows[0]["worst"])

    change_rows(folder, change, hide=False)
    code, found = verified(folder, "--no-scores")
    assert code == 1 and failed(found) == ["rows"]
    assert "samples.csv was changed after the run" in found["rows"]


def test_a_changed_digit_of_a_metric_is_found(published: Path, verified: Verify) -> None:
    folder = cell(published)
    before = record_of(folder)["metrics"]["robust_accuracy"]
    changed = before + 0.001

    rewrite(folder, lambda record: record["metrics"].update(robust_accuracy=changed))
    code, found = verified(folder, "--no-scores")
    assert code == 1 and failed(found) == ["metrics"]
    assert f"robust_accuracy is {before!r} by the rows, {changed!r} in run.json" in found["metrics"]


def test_a_metric_that_came_later_is_a_note_and_one_that_vanished_a_failure(
    published: Path, verified: Verify, run_cli: Run, tmp_path: Path
) -> None:
    folder = cell(published)
    rewrite(folder, lambda record: record["metrics"].pop("robust_ap"))
    code, found = verified(folder, "--no-scores")
    assert code == 0 and found["metrics"].startswith("note ")
    assert found["metrics"].endswith("metrics follow from the rows; not recorded when the cell was finished: robust_ap")
    assert run_cli("submit", folder, "--out", tmp_path / "older.zip")[0] == 0
    rewrite(folder, lambda record: record["metrics"].update(fame=1.0))
    code, found = verified(folder, "--no-scores")
    assert code == 1 and found["metrics"] == "FAIL fame is in run.json, and the rows have none"


def test_a_better_score_with_its_hash_is_found_by_metrics_and_by_the_images(published: Path, verified: Verify) -> None:
    folder = cell(published)

    def change(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["worst"] = row["rounded"] = row["clean"]  # nothing was lost to the attack

    change_rows(folder, change)
    code, found = verified(folder)
    assert code == 1 and failed(found) == ["metrics", "scores"]


def test_cells_from_before_metrics_were_recorded(published: Path, verified: Verify) -> None:
    folder = cell(published)
    rewrite(folder, lambda record: record.pop("metrics"))
    code, found = verified(folder)
    assert code == 0 and found["metrics"].startswith("skip not recorded") and found["scores"].startswith("pass")
    rewrite(folder, lambda record: record.pop("images"))
    code, found = verified(folder)
    assert code == 1 and found["images"].endswith("nothing could be compared")


def test_a_cell_without_images_is_compared_by_its_metrics_and_a_submission_not_by_them_alone(
    published: Path, verified: Verify, run_cli: Run, tmp_path: Path
) -> None:
    folder = cell(published)
    rewrite(folder, lambda record: record.pop("images"))
    code, found = verified(folder)
    assert code == 0 and found["images"] == "skip none are stored"
    assert run_cli("submit", folder, "--out", tmp_path / "bare.zip")[0] == 0
    code, found = verified(tmp_path / "bare.zip")
    assert code == 1 and found["images"] == "FAIL none are stored, so nothing was scored again: --rerun"
    assert verified(tmp_path / "bare.zip", "--no-scores")[0] == 0


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("distance", "0.0158", "good/000 is 0.0158 away, and may be 0.0156863 (linf 4/255)"),
        ("distance", "-0.001", "good/000 is -0.001 away"),
        ("worst", "-1000.0", "has a score better for the detector than"),
    ],
)
def test_rows_that_break_the_budget(published: Path, verified: Verify, column: str, value: str, says: str) -> None:
    folder = cell(published)
    change_rows(folder, lambda rows: rows[index_of(rows, "good/000")].update({column: value}))
    code, found = verified(folder, "--no-scores")
    assert code == 1 and "budget" in failed(found) and says in found["budget"]


def test_images_that_nobody_may_move(published: Path, verified: Verify) -> None:
    folder = cell(published)
    rewrite(folder, lambda record: record["spec"].update(targets="anomalous"))
    code, found = verified(folder, "--no-scores")
    assert code == 1 and "away, and may be 0 (linf 4/255)" in found["budget"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.pop(), "holds 11 rows, run.json counts 12"),
        (lambda rows: rows[1].update(id=rows[0]["id"]), "twice"),
        (lambda rows: rows[1].update(label="2"), "has the label 2"),
        (lambda rows: rows[0].update(label="1" if rows[0]["label"] == "0" else "0"), "run.json counts 6"),
        (lambda rows: rows[0].update(clean="nan"), "has the value nan in column clean"),
        (lambda rows: rows[0].update(clean="many"), "is damaged"),
    ],
)
def test_a_table_that_is_not_whole(
    published: Path, verified: Verify, change: Callable[[list[dict[str, str]]], object], says: str
) -> None:
    folder = cell(published)
    change_rows(folder, change)
    code, found = verified(folder)
    assert code == 1 and list(found) == ["schema"] and says in found["schema"], found


def test_a_submission_without_metrics_fails(published: Path, run_cli: Run, tmp_path: Path) -> None:
    folder = cell(published)
    assert run_cli("submit", folder, "--out", tmp_path / "one.zip")[0] == 0
    place = folder.relative_to(published).as_posix()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive, zipfile.ZipFile(tmp_path / "bare.zip", "w") as bare:
        for name in archive.namelist():
            content = archive.read(name)
            if name == f"{place}/run.json":
                record = json.loads(content)
                del record["metrics"]
                content = json.dumps(record).encode()
            bare.writestr(name, content)
    code, out, _ = run_cli("verify", tmp_path / "bare.zip", "--no-scores")
    assert code == 1 and "FAIL    metrics: not recorded" in out
    rewrite(folder, lambda record: record.pop("metrics"))
    code, _, err = run_cli("submit", folder, "--out", tmp_path / "two.zip")
    assert code == 2 and "is not submitted: metrics: not recorded" in err


def test_a_table_that_is_none(published: Path, verified: Verify) -> None:
    folder = cell(published)
    for content in (b"\xff\xfe", b"", b"id,id\n"):
        (folder / "samples.csv").write_bytes(content)
        code, found = verified(folder)
        assert code == 1 and failed(found) == list(found) == ["schema"]
    (folder / "samples.csv").unlink()
    code, found = verified(folder)
    assert code == 1 and "cannot read" in found["schema"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record.pop("threshold"), "threshold: field required"),
        (lambda record: record["spec"].pop("goal"), "spec.goal"),
        (lambda record: record["spec"].update(norm="l7"), "spec.norm"),
        (lambda record: record["spec"].update(eps="much"), "is not a number"),
        (lambda record: record["spec"].update(detector="folder/mine.py:Mean"), "must be a name, not a path"),
        (lambda record: record["spec"].update(dataset="mine.py"), "must be a name, not a path"),
        (lambda record: record.update(rows="12"), "rows"),
        (lambda record: record["images"][0].update(file="../run.json"), "images.0.file"),
    ],
)
def test_a_record_that_is_not_whole(
    published: Path, verified: Verify, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    folder = cell(published)
    rewrite(folder, change)
    code, found = verified(folder)
    assert code == 1 and list(found) == ["schema"] and says in found["schema"], found


def test_other_code_and_versions_are_notes(published: Path, verified: Verify, tmp_path: Path, run_cli: Run) -> None:
    folder = cell(published)
    rewrite(folder, lambda record: record["versions"].update(torch="1.0"))
    rewrite(folder, lambda record: record["attack"].update(code="0" * 64))
    code, found = verified(folder, "--no-scores")
    assert code == 0 and found["code"].startswith("note the code of attack pgd is not that of the run; torch ")
    (tmp_path / "mine.py").write_text(PLUGIN + "# changed\n", encoding="utf-8")
    code, out, _ = run_cli("verify", folder, "--detector", f"{tmp_path}/mine.py:Mean", "--no-scores")
    assert code == 0 and "note    code: the code of detector Mean is not that of the run" in out
    assert "skip    data: not compared with the images of folder/widget" in out


def test_what_cannot_be_verified_is_said_in_one_line(published: Path, run_cli: Run, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        code, out, err = run_cli("verify", path)
        assert code == 2 and not out and len(err.splitlines()) == 1, (code, out, err)
        return err

    assert "expected a cell's folder" in refused(tmp_path / "nothing")
    folder = cell(published)
    rewrite(folder, lambda record: record.update(status="running"))
    assert "is not finished" in refused(folder)
    rewrite(folder, lambda record: record.update(schema=99))
    assert "written by another version" in refused(folder)
    (folder / "run.json").write_text("{", encoding="utf-8")
    assert "is not JSON" in refused(folder)
