"""run.json as types: what is written is read again, and whatever else lies there is refused in one line."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RECORD, Linear, made_record, small_data

from bench import UserError, evaluate
from bench.cells.reader import find_cells
from bench.cells.record import read_record
from bench.cells.schema import FinishedRecord
from bench.core.data import Data

ORDER = [
    "schema", "kind", "status", "spec", "detector", "attack", "data", "checks", "threshold", "versions", "git",
    "device", "batch_size", "started", "warnings", "rows", "forwards", "backwards", "seconds", "peak_memory",
    "scoring", "smaller_ball", "checks_seconds", "checks_passes", "finished", "samples_sha256", "metrics",
]  # fmt: skip
"""Of a finished attack without stored images."""
Run = Any


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished cell of a command line run."""
    evaluate(Linear(), small_data(), results=tmp_path)
    return next(tmp_path.rglob("run.json")).parent


def write(folder: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "run.json").write_text(text, encoding="utf-8")


def refused(folder: Path) -> str:
    """What is said of it, on one line that names the file."""
    with pytest.raises(UserError) as raised:
        read_record(folder)
    said = str(raised.value)
    assert said.startswith(str(folder / "run.json")) and said.isprintable()
    return said


# --- written and read


def test_what_is_written_is_read_again(folder: Path) -> None:
    stored = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record = read_record(folder)
    assert isinstance(record, FinishedRecord) and record.as_json() == stored and list(stored) == ORDER
    assert record.spec.threat.radius == pytest.approx(2 / 255) and record.spec.eps == "2/255"


def test_the_record_in_memory_is_the_one_on_the_disk(tmp_path: Path) -> None:
    written = evaluate(Linear(), small_data(), results=tmp_path).attrs["run"]
    alone = evaluate(Linear(), small_data()).attrs["run"]
    assert written == json.loads(next(tmp_path.rglob("run.json")).read_text(encoding="utf-8"))
    assert type(written) is type(written["spec"]) is dict
    same = ("spec", "detector", "attack", "data", "threshold", "checks", "samples_sha256", "metrics")
    assert all(alone[name] == written[name] for name in same) and alone["metrics"]["robust_auroc"] <= 1


def test_fields_that_came_later_may_be_missing(tmp_path: Path) -> None:
    old = json.loads(json.dumps(RECORD))
    for part, name in (("detector", "weights"), ("attack", "sources")):
        del old[part][name]
    del old["started"]
    write(tmp_path, old)
    record = read_record(tmp_path)
    assert isinstance(record, FinishedRecord)
    assert (record.metrics, record.images, record.smaller_ball, record.detector.weights) == (None, [], None, None)
    assert record.as_json() == old  # and nothing is made up when it is written again


def test_what_is_not_named_in_the_schema_is_for_people(tmp_path: Path) -> None:
    write(tmp_path, RECORD | {"note": "for people"})
    assert read_record(tmp_path).as_json() == RECORD


def test_a_spec_knows_its_ball_and_is_not_changed_by_accident() -> None:
    spec = made_record(spec={"norm": "l2", "eps": "0.2"}).spec
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 1
    other = spec.within(made_record().spec.threat)
    assert (other.norm, other.eps, other.detector) == ("linf", "2/255", spec.detector) and spec.norm == "l2"


# --- refused


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"schema": 3}, "kind: field required; it was changed, or another tool wrote it: run the cell again"),
        ([], "is not the record of a cell; "),
        ("7", "is not the record of a cell; "),
        ({}, "was written by another version (schema None"),
        ({"schema": 10**400}, "was written by another version (schema 1000"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"schema": 3, "device": "\\ud800"}', "is not JSON"),
        ('{"schema": ' + "1" * 5000 + "}", "is not JSON"),
        (RECORD | {"spec": None}, "spec: input should be"),
        (RECORD | {"rows": "60"}, "rows: input should be a valid integer"),
        (RECORD | {"rows": 10**30}, "rows: input should be less than or equal to"),
        (RECORD | {"status": "stopped"}, "status: input should be 'running' or 'finished'"),
        (RECORD | {"checks": [{"name": "x", "passed": 1, "sentence": ""}]}, "checks.0.passed: "),
        (RECORD | {"versions": {"a\nb": 1}}, r"versions.a\nb: input should be a valid string"),
        (RECORD | {"spec": RECORD["spec"] | {"category": "a/b"}}, "spec.category: it must be a name, not a path"),
        (RECORD | {"spec": RECORD["spec"] | {"eps": "many"}}, "spec: --eps many is not a number"),
        (RECORD | {"spec": RECORD["spec"] | {"further": 1}}, "spec.further: extra inputs are not permitted"),
    ],
)
def test_a_record_that_nobody_here_wrote(tmp_path: Path, content: Any, says: str) -> None:
    write(tmp_path, content)
    assert says in refused(tmp_path)


def test_a_run_over_such_a_record_says_what_to_do_and_force_does_it(tmp_path: Path, run_cli: Run) -> None:
    words = (
        "run", "--detector", "autoencoder", "--param", "steps=2", "--category", "brick", "--image-size", 16,
        "--limit", 4, "--attack", "noise-linf", "--attack-param", "tries=2", "--results", tmp_path,
    )  # fmt: skip
    assert run_cli(*words)[0] == 0
    path = next(tmp_path.rglob("run.json"))
    rows = (path.parent / "samples.csv").read_bytes()
    damaged: list[Any] = [{"schema": 3}, [], {"schema": 3, "status": "finished", "spec": []}]
    for content in damaged:
        path.write_text(json.dumps(content))
        for again in (words, ("check-run", path.parent)):
            code, _, err = run_cli(*again)
            error = err.splitlines()[-1]  # after what the report says of the folder
            assert code == 2 and str(path) in error and "Traceback" not in err and "--force" in error
    assert run_cli(*words, "--force")[0] == 0
    assert (path.parent / "samples.csv").read_bytes() == rows and find_cells(tmp_path).results


def paths(value: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """Of everything that is inside of a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield (*place, name)
        yield from paths(inner, *place, name)


def test_no_change_of_a_record_is_a_traceback(folder: Path) -> None:
    """Every value replaced by every kind of value, or left out: the record is read, or one line says what is wrong."""
    text = (folder / "run.json").read_text(encoding="utf-8")
    strange: list[Any] = [None, True, -1, 10**400, float("nan"), "", "x\n\ud800", [], [1], {}, {"a": [{}]}]
    refusals = 0
    for *place, last in paths(json.loads(text)):
        for value in [..., *strange]:
            record = json.loads(text)
            inner = record
            for name in place:
                inner = inner[name]
            if value is ...:
                del inner[last]
            else:
                inner[last] = value
            write(folder, record)
            found = find_cells(folder)
            assert len(found.results) + len(found.damaged) + len(found.notes) == 1
            assert all(sentence.isprintable() for sentence in found.damaged)
            refusals += len(found.damaged)
            for r in found.results:
                assert r.name and r.detector and r.attack and isinstance(r.unranked, list)
    assert refusals > 500


def test_names_that_could_not_be_read_again_are_refused_before_the_work() -> None:
    data = small_data()
    odd = Data(data.name, "a/b", data.image_size, data.train, data.test)
    with pytest.raises(UserError, match="category: it must be a name, not a path"):
        evaluate(Linear(), odd)


# --- documented


def test_the_documentation_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "docs"))
    for path, text in importlib.import_module("generate").documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not up to date: python docs/generate.py"
