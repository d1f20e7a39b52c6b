"""`bench certify`: the command, its settings, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from certified import SMALL, Run, counted_calls, own_cache, rows_of  # noqa: F401  fixtures
from conftest import Linear, detector, small_data
from scipy import stats
from torch import Tensor

from bench import Data, Rng, UserError, certify
from bench.cells.bracket import brackets
from bench.cells.reader import read_results
from bench.core.progress import Monitor
from bench.engine.certifier import Certificate
from bench.plugins import registry
from bench.stats import smoothing as bounds


def test_the_command_runs_resumes_and_is_rechecked(tmp_path: Path, run_cli: Run) -> None:
    arguments = [
        "certify", "--detector", "autoencoder", "--category", "brick", "--limit", 6, "--image-size", 32,
        "--param", "autoencoder.steps=5", "--sigma", "0.12,0.25", "--radius", "0.1,0.05", "--samples", 60,
        "--alpha", "0.05", "--results", tmp_path,
    ]  # fmt: skip
    code, out, err = run_cli(*arguments)
    assert code == 0, err
    assert "certified" in out and len(rows_of(tmp_path)) == 4
    code, _, err = run_cli(*arguments)
    assert code == 0 and err.count("already there") == 4
    code, out, err = run_cli("check-run", next(tmp_path.rglob("certificate-l2-0.1*")))
    assert code == 0 and "pass    stored rows" in out and "inside the ball" in out, out + err
    code, _, err = run_cli(
        "run", "--detector", "smoothed+autoencoder", "--param", "smoothed.sigma=0.25", "--param", "smoothed.n=1",
        "--param", "autoencoder.steps=5", "--category", "brick", "--limit", 6, "--image-size", 32, "--attack",
        "noise-l2", "--eps", "0.1", "--results", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    found = brackets(read_results(tmp_path)[0])
    assert [b.attacked() is not None for b in found] == [False, False, False, True]  # the same detector by both names


@pytest.mark.parametrize("name", ["denoised+autoencoder", "advrad-one-noise"])
def test_parts_that_must_know_the_noise_are_told(name: str, tmp_path: Path, run_cli: Run) -> None:
    steps = f"{name.partition('+')[0]}.steps=4"
    given = ["--param", steps, *(["--param", "autoencoder.steps=4"] if "+" in name else [])]
    code, _, err = run_cli(
        "certify", "--detector", name, *given, "--category", "brick", "--limit", 4, "--image-size", 32, "--sigma", 0.12,
        "--radius", 0.05, "--samples", 40, "--alpha", 0.1, "--results", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    parameters = json.loads(next(tmp_path.rglob("run.json")).read_text())["detector"]["parameters"]
    assert {v for k, v in parameters.items() if k.endswith(".sigma")} == {0.12}


def test_a_denoiser_removes_noise_at_the_step_that_has_it() -> None:
    steps = {sigma: detector("advrad-one-noise", sigma=sigma).k for sigma in (0.12, 0.25, 0.5, 1.0)}
    for (sigma, step), published in zip(steps.items(), (71, 145, 259, 397), strict=True):
        assert abs(step - published) <= 1, sigma
    denoised = registry.load("detectors", "denoised").target
    with pytest.raises(UserError, match="made for noise of sigma=0.5, and the certificate adds 0.25"):
        certify(denoised(Linear(), sigma=0.5), small_data(), sigma=0.25)


def test_half_precision_is_another_detector_with_bounds_of_its_own(data: Data) -> None:
    whole = certify(Linear(), data, 0.1, **SMALL)
    half = certify(Linear(), data, 0.1, params={"precision": "bfloat16"}, **SMALL)
    assert half.attrs["run"]["detector"]["parameters"]["smoothed.precision"] == "bfloat16"
    assert np.abs(half.clean - whole.clean).max() < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--radius", "0"], "--radius 0 must be above 0"),
        (["--radius", "-0.1"], "--radius -0.1 must be above 0"),
        (["--radius", "near"], "--radius near is not a number"),
        (["--radius", "1e6", "--sigma", "1e7"], "is longer than any change"),
        (["--sigma", "0"], "--sigma 0 must be a number above 0"),
        (["--sigma", "-1"], "--sigma -1 must be a number above 0"),
        (["--sigma", "much"], "--sigma much must be a number above 0"),
        (["--samples", "0"], "--samples must be at least 1"),
        (["--alpha", "0"], "--alpha must be between 0 and 1"),
        (["--alpha", "1"], "--alpha must be between 0 and 1"),
        (["--center", "mean"], "a bounded score: give low and high"),
        (["--center", "middle"], "center must be median, mean, or a number between 0 and 1"),
        (["--goal", "fame"], "'fame' is not one of 'rank', 'threshold'"),
        (["--param", "sigma=0.3"], "sigma is the noise of the certificate: give it as --sigma 0.3"),
        (["--detector", "autoencodr"], "autoencoder"),
        (["--norm", "l1"], "autoencoder has no certificate in l1: it bounds its score in no norm"),
        (["--norm", "linf", "--radius", "2/255"], "radius 0.435 (eps times the root of 3 x 32 x 32)"),
    ],
)
def test_bad_input_is_said_in_one_line(arguments: list[str], message: str, tmp_path: Path, run_cli: Run) -> None:
    default = ["--detector", "autoencoder", "--category", "brick", "--limit", "6", "--image-size", "32"]
    code, _, err = run_cli("certify", *default, "--param", "autoencoder.steps=2", *arguments, "--results", tmp_path)
    said = err.strip().splitlines()[-1]
    assert code == 2 and message in said and said.startswith("bench: "), err


def test_a_radius_out_of_reach_says_how_many_draws_it_takes(data: Data) -> None:
    with pytest.raises(UserError, match="needs at least --samples") as error:
        certify(Linear(), data, 0.5, sigma=0.25, samples=100)
    needed = int(str(error.value).partition("--samples ")[2].split()[0].replace(",", ""))
    assert certify(Linear(), data, 0.5, sigma=0.25, samples=needed).worst.map(math.isfinite).all()
    with pytest.raises(UserError, match="needs at least"):
        certify(Linear(), data, 0.5, sigma=0.25, samples=needed - 1)


def test_draws_that_no_computer_makes_are_refused_as_well(data: Data) -> None:
    with pytest.raises(UserError, match="more than a billion"):
        certify(Linear(), data, 0.2, sigma=0.005)
    with pytest.raises(UserError, match=r"too few for the 0.99-quantile: give --param smoothed.n=301"):
        certify(Linear(), data, 0.1, params={"center": "0.99"})


def test_a_verdict_takes_more_draws_than_a_bound_and_says_so(data: Data) -> None:
    with pytest.raises(UserError, match="for any verdict") as error:
        certify(Linear(), data, 0.1, samples=20, goal="threshold")
    needed = int(str(error.value).partition("--samples ")[2].split()[0])
    edge = stats.norm.cdf(-0.1 / 0.25)
    alpha = 0.001 / len(data.test)
    assert bounds.decided(0, needed, alpha, edge) and not bounds.decided(0, needed - 1, alpha, edge)
    assert needed > bounds.fewest_draws(alpha, 0.1 / 0.25)
    certify(Linear(), data, 0.1, samples=needed, goal="threshold")


def test_scores_clipped_in_single_precision_are_inside_their_bounds(data: Data) -> None:
    given = {"center": "mean", "low": 0.0, "high": 26.1}
    rows = certify(Linear(), data, 0.01, sigma=0.02, samples=200, params=given)
    assert np.isclose(rows.clean, float(np.float32(26.1)), rtol=1e-12).any()
    assert all(check["passed"] for check in rows.attrs["run"]["checks"]), rows.attrs["run"]["checks"]


class SmallMemory(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        if len(x) > 8:
            raise torch.OutOfMemoryError("planted")
        return super().score(x)


def test_too_large_a_batch_is_halved(data: Data) -> None:
    found, plain = (certify(d, data, 0.1, batch_size=16, **SMALL) for d in (SmallMemory(), Linear()))
    assert np.allclose(found.worst, plain.worst, rtol=1e-5)


def test_kept_draws_that_are_not_the_detectors_are_drawn_again(data: Data, tmp_path: Path) -> None:
    found = certify(Linear(), data, 0.1, **SMALL)
    for path in (tmp_path / "cache").rglob("*.f8"):
        path.write_bytes((np.frombuffer(path.read_bytes(), "<f8") + 1).tobytes())
    told: list[str] = []
    again = certify(Linear(), data, 0.1, monitor=Monitor(tell=told.append), **SMALL)
    assert again.equals(found) and any("drawing all of them again" in sentence for sentence in told)


class BreaksInNoise(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return (x.clamp_min(-1e9) - x.clamp_min(0)).flatten(1).sum(1).sqrt() + super().score(x)


def test_a_detector_that_cannot_score_noise_is_named(data: Data) -> None:
    with pytest.raises(
        UserError, match=r"BreaksInNoise gives the image good/0, with noise of sigma 0.25, the score nan"
    ):
        certify(BreaksInNoise(), data, **SMALL)


def test_settings_are_what_the_record_says(data: Data, tmp_path: Path) -> None:
    certify(Linear(), data, 0.1, results=tmp_path, **SMALL)
    record = json.loads(next(tmp_path.rglob("run.json")).read_text())
    assert record["attack"]["parameters"] == {"samples": 150, "alpha": 0.05}
    assert Certificate(**record["attack"]["parameters"]) == Certificate(150, 0.05)
    assert record["forwards"] == 150 * len(data.test) and record["spec"]["norm"] == "l2"
