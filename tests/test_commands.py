"""The command that makes a cell again, and that tests it, as a report says it."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from conftest import asked_for, respec
from made_up import unpacked
from stored_cells import Run, packed, three_cells

from bench.cells.reader import Results, read_results
from bench.cli.attacks import RunRequest
from bench.cli.certify import CertifyRequest
from bench.engine.certifier import Certificate
from bench.harness.certify import candidate
from bench.report.commands import balls_of, checking, command_of
from bench.report.page import page
from bench.system.cache import cache_folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return three_cells(tmp_path / "results")


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
    assert request.sigmas is not None
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
    theirs = Results([replace(r, standing="reproduced") for r in read_results(spaced).submitted], [], [])
    for found, source in ((own, "our own"), (theirs, "submission their cells.zip")):
        for r, text in zip(found.results, unpacked(page(found))["cells"], strict=True):
            assert all(line in unescape(text) for line in checking(r))
            assert f'<th scope="row">source</th><td>{source}</td>' in text
    assert checking(theirs.results[0]) == ["bench verify 'their cells.zip' --rerun"]
    assert not any(str(cache_folder()) in text for text in unpacked(page(theirs))["cells"])
