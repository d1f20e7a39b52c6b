"""Cells as they are read: whatever is damaged is one sentence, and what is whole fits a screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import respec
from stored_cells import Change, Run, first, rewrite, three_cells, with_rows, write_cells

from bench.cells.reader import find_cells, read_results
from bench.cells.result import Result
from bench.cells.rows import Row, Table, from_csv, to_csv


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return three_cells(tmp_path / "results")


def left_out(results: Path, run_cli: Run) -> str:
    """What the report, which goes on, says of the one cell that it cannot read."""
    code, _, err = run_cli("report", "--results", results)
    assert (code, err) == (1, "")
    found = find_cells(results)
    assert len(found.results) == 2 and len(found.damaged) == 1
    (sentence,) = found.damaged
    assert sentence.startswith("left out: ") and str(first(results)) in sentence and "\n" not in sentence
    assert sentence in (results / "LEADERBOARD.md").read_text(encoding="utf-8")
    return sentence


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: [record.pop(name) for name in list(record) if name != "schema"], "run.json, "),
        (lambda record: record["data"].pop("train_images"), "run.json, data.train_images: field required"),
        (lambda record: record.pop("finished"), "run.json, finished: field required"),
        (lambda record: record["detector"]["fit"].pop("seconds"), "run.json, detector.fit.seconds: field required"),
        (lambda record: record["detector"].update(purification={"value": "5"}), "run.json, detector.purification"),
        (lambda record: record["detector"].update(weights=-1), "run.json, detector.weights"),
        (lambda record: record.update(seconds=float("nan")), "run.json, seconds"),
        (lambda record: record.update(forwards=10**400), "run.json, forwards"),
        (lambda record: record.update(status="running", rows="3"), "run.json, rows"),
        (lambda record: record.update(status=None), "run.json, status"),
        (lambda record: record["spec"].update(eps="much"), "is not a number"),
        (lambda record: record["attack"].update(parts=["apgd"]), "samples.csv has no column apgd"),
        (lambda record: record["detector"].update(randomized=True), "samples.csv has no column worst_draw"),
        (lambda record: record.update(kind="certificate"), "samples.csv has no column low, high"),
        (lambda record: record["data"].update(normal=5), "samples.csv holds 4 normal images, run.json counts 5"),
    ],
)
def test_a_record_that_is_not_whole_is_left_out(results: Path, run_cli: Run, change: Change, says: str) -> None:
    rewrite(first(results), change)
    assert says in left_out(results, run_cli)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: b"\xff\xfe" + text, "it is not a table in UTF-8"),
        (lambda text: text.replace(b"\n", b"\r\r\n", 1) + b"\0", "is damaged: "),
        (lambda text: text.replace(b"test/0001.png", b"x" * 140_000), "is damaged: "),
        (lambda text: text.replace(b"rounded", b"worst"), "is damaged: "),
        (lambda text: text.splitlines(keepends=True)[0], "is damaged: "),
        (lambda text: b"".join(text.splitlines(keepends=True)[:-1]), "holds 11 rows, run.json counts 12"),
        (lambda text: text.replace(b"0001", b"0002"), "holds the image test/0002.png twice"),
        (lambda text: text.replace(b",1,", b",2,", 1), "it has the label 2"),
        (lambda text: text.replace(b"0.001", b"nan", 1), "has the value nan in column distance; it must be finite"),
        (lambda text: text.replace(b"0.001", b"0.5", 1), "is 0.5 away, and may be 0.00196078 (linf 0.5/255)"),
        (lambda text: text.replace(b"0.001", b"-0.5", 1), "is -0.5 away, and may be 0.00196078 (linf 0.5/255)"),
        (lambda text: text.replace(b"0.001", b"inf", 1), "has the value inf in column distance; it must be finite"),
    ],
)
def test_rows_that_are_not_whole_are_left_out(
    results: Path, run_cli: Run, change: Callable[[bytes], bytes], says: str
) -> None:
    folder = first(results)
    with_rows(folder, change((folder / "samples.csv").read_bytes()))
    assert says in left_out(results, run_cli)


def test_who_may_not_be_moved_was_not(results: Path, run_cli: Run) -> None:
    rewrite(first(results), lambda record: record["spec"].update(targets="anomalous"))
    assert "is 0.001 away, and may be 0 (linf 0.5/255)" in left_out(results, run_cli)


def test_a_record_too_deep_to_be_read_is_left_out(results: Path, run_cli: Run) -> None:
    (first(results) / "run.json").write_text("[" * 100_000, encoding="utf-8")
    assert "is not JSON" in left_out(results, run_cli)


def test_bounds_may_be_infinite_and_never_nan(results: Path) -> None:
    folder = first(results)
    certificate = {"kind": "certificate"}

    def read(low: float, stands: float) -> list[str]:
        more = {"low": low, "high": 2.0, "low_0": 0.0, "high_0": 1.0, "certified_radius": stands}
        rows = [Row(f"{i}", i % 2, float(i), low, 0.1, float("nan"), more) for i in range(12)]
        with_rows(folder, to_csv(rows).encode())
        rewrite(folder, lambda record: record.update(certificate, data=record["data"] | {"normal": 6, "anomalous": 6}))
        return find_cells(results).damaged

    assert read(float("-inf"), float("nan")) == []
    (sentence,) = read(float("nan"), 0.0)
    assert "has the value nan in column worst; it must be a number" in sentence


def test_rows_are_the_table_again() -> None:
    rows = [Row("a", 0, 1.0, 2.0, 0.1, 2.5, {"apgd": float("inf")}), Row("b", 1, 3.0, 0.5, 0.2, 0.25, {"apgd": 0.5})]
    assert Table.of(rows).rows == from_csv(to_csv(rows), Path("samples.csv")) == rows


def test_what_is_read_fits_a_screen(results: Path) -> None:
    found = read_results(results)
    (r, *_) = found.results
    respec(r, detector_parameters={"layers": list(range(200))})
    for shown in (r, r.record, r.table, found):
        assert all(len(line) < 240 for line in repr(shown).splitlines()) and len(repr(shown).splitlines()) <= 5
        assert str(shown) == repr(shown)
    assert repr(r).startswith("Result(detector_00 (layers=0,1,") and "apgd linf 0.5/255 on made_up/category_0" in repr(
        r
    )
    assert repr(r.table) == "Table(12 images, 8 anomalous: clean, worst, distance, rounded)"
    assert repr(found).startswith("Results(3 finished cells, 0 unfinished, 0 left out)\n  Result(detector_00 ")
    measured = {name: metric.value for name, metric in r.metrics.items()}
    recorded = Result(r.folder, r.record.model_copy(update={"metrics": measured}), r.table)
    assert f"robust AUROC {measured['robust_auroc']:.3f}" in repr(recorded)
    write_cells(results / "more", 20, 12)
    assert repr(find_cells(results / "more")).endswith("  and 17 more")
