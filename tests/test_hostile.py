"""A submission that is made to break its reader: the report is whole, and what is wrong is one line."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lying import Forged
from stored_cells import Run, first, packed, record_of, three_cells, write_cells

from bench.cells import limits
from bench.cells.reader import find_cells
from bench.report.text import for_spreadsheets, from_spreadsheet, markdown_text

ESC, TURNED = "\x1b[31m", "\u202e"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three cells of our own."""
    return three_cells(tmp_path / "results")


@pytest.fixture
def theirs(tmp_path: Path, run_cli: Run) -> Forged:
    """One cell of somebody else, of images that our own have as well."""
    write_cells(tmp_path / "theirs", 1, 12, 1)
    forged = Forged.of(packed(tmp_path / "theirs", run_cli, "theirs.zip"))
    forged.record["spec"]["detector"] = "theirs"
    return forged


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def within(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


def put(path: str, value: object) -> Callable[[Forged], object]:
    """Another value at `spec.eps`, say."""

    def change(forged: Forged) -> None:
        *parents, last = path.split(".")
        part = forged.record
        for name in parents:
            part = part[name]
        part[last] = value

    return change


def put_rows(**values: object) -> Callable[[Forged], object]:
    return lambda forged: forged.rows[0].update(values)


def certificate(**parameters: object) -> Callable[[Forged], object]:
    def change(forged: Forged) -> None:
        names = ("low", "high", "low_0", "high_0", "certified_radius")
        forged.each(lambda row: row.update(dict.fromkeys(names, row["clean"]), worst=row["clean"], distance=0.1))
        settings = {"samples": 100, "alpha": 0.001, **{k: v for k, v in parameters.items() if k != "sigma"}}
        forged.record["kind"] = "certificate"
        forged.record["spec"] |= {
            "attack": "certificate", "detector": "smoothed+theirs", "norm": "l2", "eps": "0.1",
            "attack_parameters": settings,
        }  # fmt: skip
        forged.record["attack"]["parameters"] = settings
        forged.record["detector"]["parameters"] = {"smoothed.sigma": parameters.get("sigma", 0.25)}

    return change


LEFT_OUT: dict[str, tuple[Callable[[Forged], object], str]] = {
    "eps beyond floats": (put("spec.eps", "1e400"), "spec"),
    "eps beyond the range": (put("spec.eps", "1e300"), "spec"),
    "half of a pair": (put("spec.detector", "\ud800"), "is not JSON"),
    "half of a pair in a check": (put("checks", [{"name": "x", "passed": True, "sentence": "\udfff"}]), "is not JSON"),
    "score beyond single precision": (put_rows(worst=-1e308, clean=-1e308), "single precision"),
    "score that is none": (put_rows(clean=float("nan")), "nan"),
    "threshold": (put("threshold.value", 1e308), "threshold"),
    "sigma that is text": (certificate(sigma="much"), "sigma"),
    "sigma that is none": (certificate(sigma=float("nan")), "sigma"),
    "sigma that is a list": (certificate(sigma=[1]), "sigma"),
    "samples that are text": (certificate(samples="all"), "samples"),
    "alpha of a mapping": (certificate(alpha={"a": 1}), "alpha"),
    "kind": (put("kind", "certificate"), "samples.csv has no column"),
    "kind of maps": (put("kind", "localisation"), "cells of kind localisation are not part of submissions"),
    "kind of shifts": (put("kind", "shift"), "cells of kind shift are not part of submissions"),
    "count of many digits": (put("forwards", 10**4000), "forwards"),
    "long text": (put("warnings", ["x" * 10**6]), "characters"),
    "many values": (put("attack.parameters", dict.fromkeys(map(str, range(30_000)), 1)), "values"),
    "deep parameters": (put("detector.parameters", {"a": within(300)}), "detector.parameters"),
    "escape in a name": (put("spec.detector", f"{ESC}mine"), "control or bidirectional"),
    "turned text": (put("checks", [{"name": "x", "passed": True, "sentence": TURNED}]), "control or bidirectional"),
    "break in a warning": (put("warnings", ["one\n## two"]), "control or bidirectional"),
    "escape in an id": (put_rows(id=f"{ESC}good"), "control or bidirectional"),
}  # fmt: skip
SHOWN: dict[str, Callable[[Forged], object]] = {
    "image size": put("spec.image_size", 10**5),
    "seed": put("spec.seed", 10**18),
    "no device": put("device", ""),
    "passes": put("backwards", 10**15),
    "memory": put("peak_memory", 1e9),
    "purification": put("detector.purification", {"parameter": "x.t", "value": 1e308, "inner": "y"}),
    "versions": put("versions", {"torch": None, "=1+1": "@x"}),
    "parameters": put("spec.detector_parameters", {"a": [None, {"b": 1e308}]}),
    "deep parameters": put("detector.parameters", {"a": within(80)}),
    "no threshold": put("threshold.value", float("nan")),
}


def reported(results: Path, run_cli: Run) -> tuple[int, str]:
    """The report of a folder in which three cells are ours."""
    code, out, err = run_cli("report", "--results", results, "--format", "md,html,csv,json")
    assert not err, err
    assert len(pd.read_csv(results / "leaderboard.csv")) == 3
    text = (results / "LEADERBOARD.md").read_text(encoding="utf-8")
    for shown in (out, text):
        assert ESC not in shown and TURNED not in shown
    return code, text


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_hostile_cell_is_left_out_and_named(results: Path, theirs: Forged, run_cli: Run, name: str) -> None:
    change, says = LEFT_OUT[name]
    change(theirs)
    theirs.save_as_it_is(results / "evil.zip")
    code, text = reported(results, run_cli)
    (line,) = (line for line in text.splitlines() if line.startswith("- left out: "))
    assert code == 1 and "evil.zip" in line and says in line, line
    code, out, err = run_cli("verify", results / "evil.zip", "--no-scores")
    assert code in (1, 2) and len((out + err).splitlines()) == 1 and ESC not in out + err


@pytest.mark.parametrize("name", SHOWN)
def test_odd_claims_are_shown_and_break_nothing(results: Path, theirs: Forged, run_cli: Run, name: str) -> None:
    SHOWN[name](theirs)
    theirs.save(results / "odd.zip")
    code, text = reported(results, run_cli)
    assert code == 0 and "| theirs" in text.partition("## Submitted, not reproduced")[2]


@pytest.mark.parametrize(
    "content",
    [nested(100_000), '{"a":' * 100_000, "1" * 10**6, "-" + "9" * 10**6 + ".5", '{"rows": ' + "7" * 10**6 + "}", "",
     "\xff"],
)  # fmt: skip
def test_a_record_that_is_no_record(results: Path, theirs: Forged, run_cli: Run, content: str) -> None:
    with zipfile.ZipFile(results / "evil.zip", "w") as archive:
        archive.writestr(f"{theirs.place}/run.json", content.encode("latin-1"))
        archive.writestr(f"{theirs.place}/samples.csv", theirs.text)
    assert reported(results, run_cli)[0] == 1
    code, out, err = run_cli("verify", results / "evil.zip")
    assert code in (1, 2) and len((out + err).splitlines()) == 1


def test_a_submission_costs_no_more_than_it_may(
    results: Path, theirs: Forged, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs.save(results / "large.zip")
    for name in ("ROWS", "COLUMNS", "CELLS"):
        with monkeypatch.context() as patch:
            patch.setattr(limits, name, 0 if name == "CELLS" else 3)
            code, text = reported(results, run_cli)
            assert code == 1 and "left out: large.zip" in text
    with monkeypatch.context() as patch:
        patch.setattr(limits, "IMAGES", 12)
        assert reported(results, run_cli)[0] == 0
        patch.setattr(limits, "IMAGES", 11)
        assert reported(results, run_cli)[0] == 1


def test_whatever_a_cell_raises_is_its_own_fault(
    results: Path, theirs: Forged, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs.save(results / "evil.zip")
    for error in (MemoryError, RecursionError, OverflowError("x"), KeyError("x"), AssertionError):
        monkeypatch.setattr("bench.cells.reader.refuse_unreadable", lambda result, error=error: throw(error))
        code, text = reported(results, run_cli)
        assert code == 1 and "left out: evil.zip: " in text and "it cannot be read (" in text


def throw(error: type[Exception] | Exception) -> None:
    raise error


def test_a_submission_changes_nothing_of_what_is_ranked(results: Path, theirs: Forged, run_cli: Run) -> None:
    """Neither by a category that others lack, nor as the best, nor as a budget that most have."""
    before = reported(results, run_cli)[1]
    for i in range(4):
        theirs.record["spec"] |= {
            "category": f"new_{i}",
            "eps": "7/255",
            "dataset": record_of(first(results))["spec"]["dataset"],
        }
        theirs.each(lambda row: row.update(clean=float(row["label"]), worst=float(row["label"])))
        theirs.save(results / f"{i}.zip")
    after = reported(results, run_cli)[1]
    head, _, rest = after.partition("## Submitted, not reproduced")
    assert head.strip() == before.strip()
    assert rest.count("| theirs") == 4 and "**" not in rest and rest.count("1.000 | 1.000") == 4
    assert [r.detector for r in find_cells(results).submitted] == ["theirs"] * 4
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert "Submitted, not reproduced" in page and "<b>1.000" not in page
    assert len(pd.read_csv(results / "submitted.csv")) == 4
    for path in results.glob("*.zip"):
        path.unlink()
    reported(results, run_cli)
    assert not (results / "submitted.csv").exists()


def test_a_folder_of_submissions_alone(theirs: Forged, tmp_path: Path, run_cli: Run) -> None:
    (tmp_path / "only").mkdir()
    theirs.save(tmp_path / "only" / "a.zip")
    code, out, err = run_cli("report", "--results", tmp_path / "only", "--format", "md,html,csv,json")
    assert (code, err) == (0, "") and "submitted, not reproduced: claims" in out
    text = (tmp_path / "only" / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert "| theirs | made_up category_0, 64 px |" in text and "a.zip |" in text
    assert (tmp_path / "only" / "leaderboard.json").read_text(encoding="utf-8").split() == ["[", "]"]
    assert len(pd.read_csv(tmp_path / "only" / "submitted.csv")) == 1


# --- what becomes of text


@pytest.mark.parametrize(
    "text",
    ["![x](http://a/b.png)", "[x](javascript:alert)", "[x]: http://a", "[x][y]", "<img src=x>", "**best**", "__best__",
     "`x`", "a | b", "a \\| b", "# x", "- x", "+ x", "http://a.b", "www.a.b", "~~x~~", "x <b>y</b>", f"{ESC}x", "_x_"],
)  # fmt: skip
def test_text_in_markdown_is_text(text: str) -> None:
    found = markdown_text(text)
    active = r"\]\(|\]\[|\]:|<|\*|`|\||~|\\|^[#+-]|://|www\.|\x1b|(^|\W)_|_(\W|$)"
    assert not re.search(active, re.sub(r"&#?\w+;", "", found)), found


@pytest.mark.parametrize(
    "text", ["patchcore (layers=2,3)", "wide_resnet50_2", "x [2 of 3]", "linf 2/255", "瓶子", "p < 1"]
)
def test_plain_text_in_markdown_stays_as_it_is(text: str) -> None:
    assert markdown_text(text) == text.replace("<", "&lt;")


def test_no_cell_of_a_csv_is_a_formula() -> None:
    texts = ["=1+1", "+1", "-x", "@x", "\tx", "\rx", "'=x", "plain", "", "2/255"]
    frame = pd.DataFrame({"text": texts, "number": np.arange(10) - 5.0, "parts": [{"a": 1}] * 10})
    found = for_spreadsheets(frame)
    assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r")) for text in found["text"])
    assert [from_spreadsheet(text) for text in found["text"][:6]] == texts[:6]
    assert found["number"].tolist() == frame["number"].tolist() and found["text"][6:].tolist() == texts[6:]
