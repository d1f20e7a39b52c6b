"""Cells as they are read: whatever is damaged is one sentence, and what a filter leaves out still counts."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from conftest import asked_for, respec
from made_up import unpacked

from bench import UserError, load_results
from bench.cells.filters import Filters
from bench.cells.reader import find_cells, read_results
from bench.cells.result import Result
from bench.cells.rows import Row, Table, from_csv, to_csv
from bench.cli.certify import CertifyRequest
from bench.cli.run import RunRequest
from bench.engine.certifier import Certificate
from bench.harness.certify import candidate
from bench.report.commands import balls_of, checking, command_of
from bench.report.page import page
from bench.system.cache import cache_folder

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from report import write_cells

PLACE = "made_up/category_0/detector_00-5e21f9ab/apgd-linf-0.5_255"
"""Of the first cell in a submission, which names the size of images of a data set that is not installed."""
Run = Callable[..., tuple[int, str, str]]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three cells of 12 images."""
    folder = tmp_path / "results"
    write_cells(folder, 3, 12)
    return folder


def rewrite(folder: Path, change: Change) -> None:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    change(record)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def with_rows(folder: Path, content: bytes) -> None:
    """samples.csv of that content, with its hash in run.json."""
    (folder / "samples.csv").write_bytes(content)
    rewrite(folder, lambda record: record.update(samples_sha256=hashlib.sha256(content).hexdigest()))


def first(results: Path) -> Path:
    return min(results.rglob("run.json")).parent


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


# --- damaged cells


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
        (lambda text: text.replace(b"0.001", b"inf", 1), "has the value inf in column distance; it must be finite"),
    ],
)
def test_rows_that_are_not_whole_are_left_out(
    results: Path, run_cli: Run, change: Callable[[bytes], bytes], says: str
) -> None:
    folder = first(results)
    with_rows(folder, change((folder / "samples.csv").read_bytes()))
    assert says in left_out(results, run_cli)


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


# --- submissions


def packed(results: Path, run_cli: Run, name: str) -> Path:
    """All cells of the folder, with their metrics, in a submission beside it."""
    for r in find_cells(results).results:
        record = r.record.as_json() | {"metrics": {name: metric.value for name, metric in r.metrics.items()}}
        (r.folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    code, _, err = run_cli("submit", results, "--out", results.parent / name)
    assert code == 0, err
    return results.parent / name


def with_other_rows(submission: Path, worst: str = "0.5") -> None:
    """The first cell of a submission says something else, hash and all."""
    with zipfile.ZipFile(submission) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    place = min(name for name in content if name.endswith("run.json")).removesuffix("/run.json")
    header, line, *rest = content[f"{place}/samples.csv"].decode().splitlines()
    content[f"{place}/samples.csv"] = "\n".join([header, f"{line.rpartition(',')[0]},{worst}", *rest, ""]).encode()
    record = json.loads(content[f"{place}/run.json"])
    record["samples_sha256"] = hashlib.sha256(content[f"{place}/samples.csv"]).hexdigest()
    content[f"{place}/run.json"] = json.dumps(record).encode()
    with zipfile.ZipFile(submission, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)


def test_a_submission_is_told_from_our_own(results: Path, run_cli: Run) -> None:
    submission = packed(results, run_cli, "theirs.zip")
    assert [r.source for r in read_results(results).results] == ["", "", ""]
    shutil.rmtree(results)
    (results / "team").mkdir(parents=True)
    submission.rename(results / "team" / "theirs.zip")
    found = read_results(results).results
    assert [r.source for r in found] == ["team/theirs.zip"] * 3
    assert found[0].name == f"team/theirs.zip: {PLACE}"
    assert load_results(results)["source"].tolist() == ["team/theirs.zip"] * 3


def test_our_own_cell_is_kept_beside_a_submission_that_says_something_else(results: Path, run_cli: Run) -> None:
    submission = packed(results, run_cli, "theirs.zip")
    with_other_rows(submission)
    submission.rename(results / "theirs.zip")
    found = find_cells(results)
    assert [r.source for r in found.results] == ["", "", ""]
    assert found.damaged == [f"left out: theirs.zip: {PLACE}: the same cell as {first(results)} with different rows"]


def test_two_submissions_that_differ_are_both_left_out(results: Path, run_cli: Run) -> None:
    for name in ("a.zip", "b.zip"):
        packed(results, run_cli, name)
    shutil.rmtree(results)
    results.mkdir()
    with_other_rows(results.parent / "b.zip")
    for name in ("a.zip", "b.zip"):
        (results.parent / name).rename(results / name)
    found = find_cells(results)
    assert [r.source for r in found.results] == ["a.zip", "a.zip"]
    assert found.damaged == [
        f"left out: b.zip: {PLACE}: the same cell as a.zip: {PLACE} with different rows",
        f"left out: a.zip: {PLACE}: the same cell as b.zip: {PLACE} with different rows",
    ]


def test_two_cells_of_our_own_that_differ_are_an_error_that_names_both(results: Path) -> None:
    twin = Path(shutil.copytree(first(results), results / "twin"))
    with_rows(twin, (twin / "samples.csv").read_bytes().replace(b"0.001", b"0.0011"))
    for filters in (None, Filters(["attack=square"])):
        with pytest.raises(UserError, match="with different rows") as raised:
            read_results(results, filters)
        assert str(twin) in str(raised.value) and str(first(results)) in str(raised.value)


def test_what_is_damaged_in_a_submission_is_said_by_its_name(results: Path, run_cli: Run) -> None:
    submission = packed(results, run_cli, "theirs.zip")
    with_other_rows(submission, worst="nan")
    submission.rename(results / "theirs.zip")
    (sentence,) = find_cells(results).damaged
    assert sentence.startswith(f"left out: theirs.zip: {PLACE}: test/0000.png has the value nan in column rounded")


# --- filters


def test_a_detector_with_its_parameters_is_one_value(results: Path) -> None:
    rewrite(
        first(results), lambda record: record["spec"].update(detector_parameters={"backbone": "x", "layers": [2, 3]})
    )
    for text in ("detector=detector_00 (backbone=x, layers=2,3),eps=0.5/255", "detector=* (*layers=2,3)"):
        assert [r.folder for r in read_results(results, Filters([text])).results] == [first(results)]
    for text in ("colour=red", "detector=detector_00 (backbone=x, layers=2,3),colour=red"):
        with pytest.raises(UserError, match="no --filter named 'colour'"):
            Filters([text])


def test_a_filter_leaves_a_contradicted_attack_without_its_rank(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = first(results)
    rewrite(folder, lambda record: record["spec"].update(norm="l2", eps="0.1", detector="smoothed+mean"))
    rewrite(folder, lambda record: record["detector"].update(parameters={"smoothed.n": 15}))
    (attack,) = (r for r in find_cells(results).results if r.folder == folder)
    labels = attack.table.anomalous
    rows = [
        Row(name, int(label), float(label), float(label), 0.1, float("nan"),
            {"low": float(label), "high": float(label), "low_0": 0.0, "high_0": 1.0, "certified_radius": 0.0})
        for name, label in zip(attack.table.ids, labels, strict=True)
    ]  # fmt: skip
    certificate = Path(shutil.copytree(folder, results / "certificate"))
    with_rows(certificate, to_csv(rows).encode())
    rewrite(certificate, lambda record: record.update(kind="certificate"))
    rewrite(certificate, lambda record: record["spec"].update(attack="certificate"))
    (alone,) = read_results(results, Filters(["attack=apgd,norm=l2"])).results
    assert alone.metrics["robust_auroc"].value < 1
    assert any("certified AUROC 1.0000 at l2 0.1 is above" in why for why in alone.unranked)


# --- the command that makes a cell again


def test_the_command_of_a_sweep_has_its_smaller_balls(tmp_path: Path, run_cli: Run) -> None:
    small = ("--category", "brick", "--limit", 4, "--image-size", 16, "--targets", "normal", "--seed", 3)
    given = ("--param", "steps=2", "--attack", "noise-linf", "--attack-param", "tries=2", "--results", tmp_path)
    code, _, err = run_cli("run", "--detector", "autoencoder", *small, *given, "--eps", "4/255,1/255,2/255")
    assert code == 0, err
    found = read_results(tmp_path).results
    balls = balls_of(found)
    expected = {"1/255": "1/255", "2/255": "1/255,2/255", "4/255": "1/255,2/255,4/255"}
    for r in found:
        asked = asked_for(command_of(r, balls=balls), RunRequest)
        assert ",".join(asked.eps) == expected[r.spec.eps] and asked.data_root is None
        assert (asked.detectors, asked.attacks, asked.targets) == (("autoencoder",), ("noise-linf",), "normal")
        assert (asked.categories, asked.limit, asked.image_size, asked.seed) == (("brick",), 4, 16, 3)
        assert asked.params == {"steps": "2"} and asked.attack_params == {"tries": "2"}
        assert asked_for(command_of(r), RunRequest).eps == (r.spec.eps,)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = shlex.split(command_of(max(found, key=lambda r: r.eps), balls=balls))
    assert run_cli(*words[1:], "--results", tmp_path)[0] == 0  # finds every cell finished
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_balls_that_lead_in_a_circle_end(results: Path) -> None:
    one, *_ = found = read_results(results).results
    for r in found:
        r.record.smaller_ball = next(iter(balls_of([one])))
    assert command_of(one, balls=balls_of(found)).count("/255") == 1


def test_the_command_of_a_certificate_is_exact(results: Path) -> None:
    given = {"smoothed.n": 21, "smoothed.center": "0.4", "denoised.steps": 2, "autoencoder.error": "ssim"}
    asked = candidate("denoised+autoencoder", 0.123456789, given)
    (r, *_) = read_results(results).results
    r.record.kind = "certificate"
    r.record.attack.parameters = vars(Certificate(60, 0.00012345678))
    r.record.detector.parameters = dict(asked.changed)
    respec(r, detector=asked.label, detector_parameters=asked.changed, attack="certificate", norm="l2", eps="0.05")
    assert asked.changed["denoised.sigma"] == asked.changed["smoothed.sigma"] == 0.123456789
    request = asked_for(command_of(r), CertifyRequest)
    (name,), (sigma,) = request.detectors, request.sigmas
    again = candidate(name, sigma, {**request.params, "smoothed.center": request.center})
    assert (again.label, again.changed) == (asked.label, asked.changed)
    assert Certificate(request.samples, request.alpha) == Certificate(60, 0.00012345678)
    assert (request.radii, request.categories, request.image_size) == (("0.05",), (r.category,), 64)


def test_where_images_must_be_had_the_command_says_so(results: Path) -> None:
    for r in read_results(results).results:
        assert asked_for(command_of(r), RunRequest).data_root == Path("DIR")


def test_the_page_names_a_submission_and_not_where_it_was_unpacked(results: Path, run_cli: Run) -> None:
    spaced = results.rename(results.parent / "our results")
    own = read_results(spaced)
    for r in own.results:
        assert checking(r) == [f"bench check-run '{r.folder}'", f"bench verify '{r.folder}'"]
    submission = packed(spaced, run_cli, "their cells.zip")
    shutil.rmtree(spaced)
    spaced.mkdir()
    submission.rename(spaced / submission.name)
    theirs = read_results(spaced)
    for found, source in ((own, "our own"), (theirs, "submission their cells.zip")):
        for r, text in zip(found.results, unpacked(page(found))["cells"], strict=True):
            assert all(line in unescape(text) for line in checking(r))
            assert f'<th scope="row">source</th><td>{source}</td>' in text
    assert checking(theirs.results[0]) == ["bench verify 'their cells.zip'"]
    assert not any(str(cache_folder()) in text for text in unpacked(page(theirs))["cells"])


# --- shown


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
