"""bench report: what is read, kept, sorted and written, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made_up import write_cells

from bench import UserError, load_results
from bench.cells.filters import Filters
from bench.cells.reader import find_cells, read_results
from bench.cells.rows import Row, Table, to_csv
from bench.cells.schema import CheckRecord
from bench.report.leaderboard import markdown
from bench.report.write import write_report

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two detectors, ten categories, five budgets, two attacks; 12 images each."""
    folder = tmp_path / "results"
    write_cells(folder, 200, 12)
    return folder


def change(folder: Path, **values: object) -> Path:
    """The first cell, with other values in its record."""
    path = min(folder.rglob("run.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path.parent


def test_columns_are_the_rows() -> None:
    rows = [Row("a", 0, 1.0, 2.0, 0.1, 2.5, {"apgd": float("inf")}), Row("b", 1, 3.0, 0.5, 0.2, 0.25, {"apgd": 0.5})]
    read, made = Table.from_csv(to_csv(rows), Path("samples.csv")), Table.of(rows)
    assert read.ids == made.ids == ("a", "b") and read.anomalous.tolist() == made.anomalous.tolist() == [False, True]
    assert {k: v.tolist() for k, v in read.columns.items()} == {k: v.tolist() for k, v in made.columns.items()}
    assert read.columns["apgd"].tolist() == [float("inf"), 0.5]


@pytest.mark.parametrize("text", ["", "id,label,clean\na,0,1\n", "id,label,clean,worst,distance,rounded\na,2,1,1,1,1\n",
                                  "id,label,clean,worst,distance,rounded\na,0,1,1,1\n",
                                  "id,label,clean,worst,distance,rounded\na,0,x,1,1,1\n"])  # fmt: skip
def test_damaged_rows_are_said(text: str) -> None:
    with pytest.raises(UserError, match=r"samples.csv is damaged: expected the columns id, label"):
        Table.from_csv(text, Path("samples.csv"))


def test_filters_are_alternatives_of_a_key_and_conditions_between_keys(results: Path) -> None:
    def kept(*texts: str) -> set[tuple[str, str, str]]:
        found = read_results(results, Filters(texts)).results
        return {(r.detector, r.category, r.spec.eps) for r in found}

    assert len(kept("detector=detector_00,category=category_1,category=category_2,attack=apgd")) == 10
    assert kept("eps=0.007843137254901961") == kept("eps=2/255") and len(kept("eps=2/255")) == 20
    assert len(kept("category=category_*,detector=*01", "attack=square")) == 50


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("colour=red", "no --filter named 'colour'"),
        ("eps", "--filter eps: a value is expected"),
        ("eps=many", "eps"),
        ("detector=unknown", "--filter detector=unknown fits no finished cell; there are: detector_00, detector_01"),
    ],
)
def test_a_filter_that_cannot_work_is_one_line(results: Path, run_cli: Run, text: str, why: str) -> None:
    code, _, err = run_cli("report", "--results", str(results), "--filter", text)
    assert code == 2 and why in err and err.count("\n") == 1
    assert not (results / "LEADERBOARD.md").exists()


def test_filters_that_exclude_each_other_say_so(results: Path) -> None:
    cell = read_results(results).results[0]
    missing = f"detector={cell.detector},category={cell.category},eps=1/255,kind=attack"
    assert read_results(results, Filters([missing])).results
    change(results, spec=cell.spec.as_json() | {"seed": 1})
    with pytest.raises(UserError, match="no cell fits all of them"):
        read_results(results, Filters(["seed=1,detector=detector_01"]))


def test_a_damaged_cell_is_left_out_and_the_others_are_reported(results: Path, run_cli: Run) -> None:
    cell = change(results, schema=1)
    other = max(results.rglob("samples.csv"))
    other.write_text(other.read_text().replace("1", "2", 1))
    third = sorted(results.rglob("run.json"))[5]
    third.write_text(third.read_text()[:100])
    code, out, _ = run_cli("report", "--results", str(results), "--format", "md,csv", "--filter", "dataset=made_up")
    assert code == 1 and len(pd.read_csv(results / "leaderboard.csv")) == 197
    board = (results / "LEADERBOARD.md").read_text()
    for path, why in ((cell, "schema 1"), (other, "its sha256 is not the one"), (third, "is not JSON")):
        assert any(str(path) in line and why in line for line in board.splitlines())
        assert why in " ".join(out.split())


def test_cells_that_are_left_out_are_said_in_a_notebook_and_in_a_comparison(results: Path, run_cli: Run) -> None:
    cell = change(results, schema=1)
    with pytest.warns(UserWarning, match="left out: .*schema 1"):
        assert len(load_results(results)) == 199
    code, _, err = run_cli("compare", "detector_00", "detector_01", "--results", str(results))
    assert code == 0 and str(cell) in err and "schema 1" in err


def test_nothing_but_damaged_cells_is_an_error_that_says_the_first(tmp_path: Path, run_cli: Run) -> None:
    write_cells(tmp_path, 1, 8)
    change(tmp_path, schema=1)
    code, _, err = run_cli("report", "--results", str(tmp_path))
    assert code == 2 and "no finished results" in err and "schema 1" in err


def test_foreign_text_is_text(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,category=category_0"])).results
    found[0].checks.append(CheckRecord(name="x", passed=False, sentence="a\n# b </details><img src=x>"))
    found[0].record.warnings.append("<script>|")
    text = markdown(found, ["<b>note"])
    assert "<img" not in text and "<script>" not in text and "<b>note" not in text
    assert not any(line.startswith("# b") for line in text.splitlines())


def test_formats_hold_the_same_numbers(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = write_report(results, out, ("csv", "json"), Filters(["category=category_0"])).written
    assert [path.name for path in written] == ["leaderboard.csv", "leaderboard.json"]
    table, records = pd.read_csv(written[0]), pd.read_json(written[1])
    frame = load_results(results, ["category=category_0"])
    assert len(table) == len(records) == len(frame) == 20
    assert table["robust_auroc"].tolist() == pytest.approx(frame["robust_auroc"].tolist())
    assert records["robust_auroc"].tolist() == pytest.approx(frame["robust_auroc"].tolist())


def test_parquet_keeps_every_column(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed, which --format parquet needs")
    (path,) = write_report(results, tmp_path / "out", ("parquet",)).written
    found = pd.read_parquet(path)
    assert list(found) == list(load_results(results))
    assert json.loads(found["attack_parameters"][0]) == {"steps": 100, "restarts": 1}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--format", "pdf"], "no --format named 'pdf'"),
        (["--sort", "beauty"], "no column for --sort named 'beauty'"),
        (["--out", "{file}"], "is a file; a folder is expected"),
        (["--out", "{file}/below"], "Not a directory"),
    ],
)
def test_what_cannot_be_written_costs_nothing(
    results: Path, tmp_path: Path, run_cli: Run, options: list[str], why: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    code, _, err = run_cli("report", "--results", str(results), *(o.format(file=file) for o in options))
    assert code == 2 and why in err and err.count("\n") == 1
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
    assert file.read_text() == "mine"


def test_cells_of_unfinished_runs_are_notes(results: Path) -> None:
    change(results, status="running", rows=3)
    found = find_cells(results)
    assert len(found.results) == 199 and not found.damaged
    assert "3 of 12 images" in found.notes[0]
