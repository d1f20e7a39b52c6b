"""`bench verify`: what was published passes, and whatever is changed in it is found and named."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PLUGIN

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def verified(run_cli: Run, ran: Path) -> Callable[..., tuple[int, dict[str, str]]]:
    """Runs `bench verify` with what lies in `ran`: the exit code, and by test the line without its name."""

    def verify(path: Path, *more: object, detector: str = "Mean") -> tuple[int, dict[str, str]]:
        options = ("--data-root", ran / "images/widget", "--detector", f"{ran}/mine.py:{detector}", *more)
        code, out, err = run_cli("verify", path, *options)
        lines = [line.split(maxsplit=1) for line in out.splitlines()]
        found = {rest.partition(": ")[0]: f"{status} {rest.partition(': ')[2]}" for status, rest in lines}
        return code, found | ({"error": err} if err else {})

    return verify


Verify = Callable[..., tuple[int, dict[str, str]]]


def cell(published: Path, name: str = "Mean") -> Path:
    (found,) = published.rglob(f"{name}*/pgd-linf-4_255")
    return found


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = record_of(folder)
    change(record)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def change_rows(folder: Path, change: Callable[[list[dict[str, str]]], object], hide: bool = True) -> None:
    """Change samples.csv; `hide` gives run.json the new hash, as who wants to be believed would."""
    path = folder / "samples.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    change(rows)
    path.write_text("\n".join([header, *(",".join(row.values()) for row in rows)]) + "\n", encoding="utf-8")
    if hide:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rewrite(folder, lambda record: record.update(samples_sha256=digest))


def failed(found: dict[str, str]) -> list[str]:
    return [name for name, line in found.items() if line.startswith("FAIL")]


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
    rewrite(folder, lambda record: record.pop("images"))
    code, found = verified(folder)
    assert code == 0 and found["metrics"].startswith("skip not recorded") and found["images"] == "skip none are stored"


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


def index_of(rows: list[dict[str, str]], name: str) -> int:
    return next(i for i, row in enumerate(rows) if name in row["id"])


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


def rewrite_image(folder: Path, **change: Callable[[np.ndarray], np.ndarray]) -> str:
    """Change arrays of the first stored image, and its hash in run.json; the id of its row."""
    record = record_of(folder)
    entry = record["images"][0]
    path = folder / entry["file"]
    with np.load(path) as arrays:
        found = dict(arrays)
    np.savez(path, **{name: change.get(name, lambda array: array)(found.get(name)) for name in {*found, *change}})
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(entry["id"])


def test_stored_images_that_are_not_what_their_row_says(published: Path, verified: Verify) -> None:
    folder = cell(published)

    def first(change: Callable[[np.ndarray], np.ndarray]) -> tuple[int, str]:
        rewrite_image(folder, attacked=change)
        code, found = verified(folder)
        assert "scores" not in found
        return code, found["images"]

    with np.load(folder / record_of(folder)["images"][0]["file"]) as arrays:
        clean, attacked = arrays["clean"], arrays["attacked"]
    assert "expected float32 (3, 16, 16)" in first(lambda a: a.astype(np.float64))[1]
    assert "expected float32 (3, 16, 16)" in first(lambda a: attacked[:, :8])[1]
    assert "not finite" in first(lambda a: np.full_like(attacked, np.nan))[1]
    assert "leaves the pixel range" in first(lambda a: attacked + 2)[1]
    assert "more than the budget" in first(lambda a: np.clip(attacked + 0.1, 0, 1))[1]
    code, line = first(lambda a: clean + (attacked - clean) / 2)
    assert code == 1 and line.startswith("FAIL") and "is moved by" in line and "and its row says" in line


def test_stored_files_that_are_damaged(published: Path, verified: Verify) -> None:
    folder = cell(published)
    rewrite_image(folder, other=lambda a: np.zeros(3))
    assert "holds the arrays attacked, clean, other" in verified(folder)[1]["images"]
    path = folder / record_of(folder)["images"][0]["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its sha256 is not the one in run.json" in verified(folder)[1]["images"]
    for damaged in (content[: len(content) // 2], b"", b"\x80\x04N."):
        path.write_bytes(damaged)
        digest = hashlib.sha256(damaged).hexdigest()
        rewrite(folder, lambda record, digest=digest: record["images"][0].update(sha256=digest))  # type: ignore[misc]
        assert "is not a whole npz file" in verified(folder)[1]["images"]
    path.unlink()
    code, found = verified(folder)
    assert code == 1 and "cannot be read" in found["images"]


def test_an_image_of_the_right_distance_that_is_not_the_attack(published: Path, verified: Verify) -> None:
    """The mirror image of the perturbation: as far away, and its score is another."""
    folder = cell(published)
    with np.load(folder / record_of(folder)["images"][0]["file"]) as arrays:
        clean = arrays["clean"]
        mirrored = clean - (arrays["attacked"] - clean)
    name = rewrite_image(folder, attacked=lambda array: mirrored)
    distance = float(np.abs(mirrored.astype(np.float64) - clean.astype(np.float64)).max())

    def change(rows: list[dict[str, str]]) -> None:
        rows[index_of(rows, name)]["distance"] = repr(distance)

    change_rows(folder, change)
    code, found = verified(folder)
    assert code == 1 and failed(found) == ["scores"] and f"({name}, attacked)" in found["scores"]
    assert verified(folder, "--no-scores")[0] == 0


def test_a_clean_image_that_is_not_of_the_data_set(published: Path, verified: Verify) -> None:
    folder = cell(published)
    rewrite_image(folder, clean=lambda a: a[..., ::-1], attacked=lambda a: a[..., ::-1])
    code, found = verified(folder)
    assert code == 1 and failed(found) == ["data"] and "scores" not in found


def test_without_the_data_set_scores_cannot_be_had(published: Path, run_cli: Run, ran: Path, tmp_path: Path) -> None:
    detector = ("--detector", f"{ran}/mine.py:Mean")
    for more in ((), ("--data-root", tmp_path / "nowhere")):
        code, out, err = run_cli("verify", cell(published), *detector, *more)
        assert code == 2 and len(err.splitlines()) == 1 and "skip    data: " in out
        code, out, err = run_cli("verify", cell(published), *detector, *more, "--no-scores")
        assert (code, err) == (0, "") and "pass    images: " in out


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


@pytest.fixture(scope="module")
def certified(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bench.cli import main

    results = tmp_path_factory.mktemp("certified")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ran)
        for goal in ("rank", "threshold"):
            code = main([
                "certify", "--detector", "mine.py:Mean", "--dataset", "folder", "--data-root", "images/widget",
                "--image-size", "16", "--radius", "0.05", "--samples", "150", "--alpha", "0.05", "--goal", goal,
                "--results", str(results),
            ])  # fmt: skip
            assert code == 0
    return results


def test_certificates_are_verified_too(
    certified: Path, run_cli: Run, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran)
    code, out, err = run_cli("verify", certified, "--detector", "smoothed+mine.py:Mean")
    assert (code, err) == (0, ""), out
    assert "pass    bounds: 12 bounds are in order" in out and "pass    bounds: 12 verdicts are verdicts" in out
    assert out.count("pass    metrics: ") == out.count("pass    code: ") == 2


def test_bounds_that_cannot_be(certified: Path, run_cli: Run, tmp_path: Path) -> None:
    import shutil

    def bounds(goal: str, **change: str) -> str:
        shutil.rmtree(tmp_path / "changed", ignore_errors=True)
        (source,) = (p.parent for p in certified.rglob("run.json") if record_of(p.parent)["spec"]["goal"] == goal)
        folder = Path(shutil.copytree(source, tmp_path / "changed"))
        change_rows(folder, lambda rows: rows[0].update(change))
        code, out, _ = run_cli("verify", folder)
        assert code == 1
        (line,) = [line for line in out.splitlines() if " bounds: " in line]
        return line

    assert "out of order" in bounds("rank", low="1000.0")
    assert "which is not its bound" in bounds("rank", worst="1000.0")
    assert "has radius 0.1, not 0.05" in bounds("rank", distance="0.1")
    assert "has the radius -1" in bounds("rank", certified_radius="-1.0")
    assert "which is none" in bounds("threshold", worst=repr(math.pi))
