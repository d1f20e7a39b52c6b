"""Shifts of light and lens: what they do to an image, by hand and beside the reference, and in a command."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Linear, NoisyLinear, make_tree, small_data
from sklearn.metrics import roc_auc_score
from test_run import cell_of
from torch import Tensor

import bench
from bench import Rng, UserError, shift
from bench.cells.record import read_finished
from bench.core.shifts import LINE, PUBLISHED, SEVERITIES, Condition, kinds_of, label, shifted

Run = Callable[..., tuple[int, str, str]]


def picture(size: int = 48, seed: int = 0) -> np.ndarray:
    """Smooth colours with an edge and some texture, uint8 (H, W, 3)."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:size, :size] / size
    image = np.stack([120 + 80 * np.sin(3 * x), 60 + 150 * y, 200 * (x > 0.5)], -1) + rng.randint(
        -20, 20, (size, size, 3)
    )
    return np.clip(image, 0, 255).astype(np.uint8)


def as_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def under(kind: str, severity: int, pixels: np.ndarray, name: str = "a") -> Tensor:
    return shifted(pixels, as_tensor(pixels), Condition(kind, severity), Rng.of_run(0, [name]))


@pytest.mark.parametrize("kind", [*PUBLISHED, *LINE])
def test_a_shift_is_an_image_and_grows_with_severity(kind: str) -> None:
    pixels = picture(160)  # a lens that is out of focus by parts of the side blurs no small image
    clean = as_tensor(pixels)
    far = []
    for severity in SEVERITIES:
        found = under(kind, severity, pixels)
        assert found.shape == clean.shape and found.min() >= 0 and found.max() <= 1
        levels = found * 255
        assert (levels - levels.round()).abs().max() < 1e-3  # a camera has 8 bits
        assert torch.equal(found, under(kind, severity, pixels))
        far.append(float((found - clean).abs().mean()))
    assert 0 < far[0] < far[-1] and (kind == "translation" or far == sorted(far))  # between pixels it smooths


@pytest.mark.parametrize("kind", ["gaussian_noise", "exposure", "motion-blur", "translation", "sensor-noise"])
def test_what_is_random_belongs_to_the_image(kind: str) -> None:
    pixels = picture()
    found = [under(kind, 5, pixels, name) for name in "abcdefgh"]
    assert len({tuple(one.flatten().tolist()) for one in found}) > 1


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", list(PUBLISHED))
def test_the_published_ones_are_those_of_the_reference(
    kind: str, severity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a grey level at 99 % of the pixels; of the noise, given the same draws."""
    reference = pytest.importorskip("imagecorruptions", reason="imagecorruptions-imaug is not installed")
    for seed in range(3):
        pixels = picture(64, seed)
        noise = Rng.of_run(0, ["a"]).child("shift", kind).normal(torch.empty(1, *pixels.shape)).numpy()[0]
        monkeypatch.setattr(np.random, "normal", lambda size, scale, noise=noise: noise * scale)
        theirs = reference.corrupt(pixels, corruption_name=kind, severity=severity).astype(int)
        ours = (under(kind, severity, pixels) * 255).round().permute(1, 2, 0).numpy().astype(int)
        assert (abs(theirs - ours) <= 1).mean() >= 0.99


def test_by_hand() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert (under("brightness", 3, grey) * 255).unique().tolist() == [int(100 + 0.3 * 255)]
    black = np.zeros((8, 8, 3), np.uint8)
    assert (under("brightness", 1, black) * 255).round().unique().tolist() == [25]  # black becomes grey
    half = np.concatenate([grey[:4], np.full((4, 8, 3), 200, np.uint8)])
    assert (under("contrast", 3, half) * 255).round().unique().tolist() == [140, 160]  # 150 -+ 0.2 * 50
    brown = np.array([[[200, 100, 50]]], np.uint8).repeat(8, 0).repeat(8, 1)
    raised = under("brightness", 1, brown)[:, 0, 0] * 255
    assert raised.round().tolist() == [225, 112, 56]  # hue and saturation stay
    assert torch.equal(under("defocus", 5, grey), as_tensor(grey)) and torch.equal(
        under("rotation", 5, grey), as_tensor(grey)
    )
    ratio = under("exposure", 2, grey).mean() / as_tensor(grey).mean()
    assert float(ratio) == pytest.approx(2**0.2, rel=0.01) or float(ratio) == pytest.approx(2**-0.2, rel=0.01)
    warm = under("white-balance", 5, grey)[:, 0, 0]
    assert warm[1] == pytest.approx(100 / 255) and float(warm[0] * warm[2]) == pytest.approx(
        float(warm[1]) ** 2, rel=0.02
    )


def test_16_bits_are_shifted_as_8() -> None:
    eight = picture()
    sixteen = eight.astype(np.uint16) * 257
    assert torch.equal(
        under("contrast", 3, eight), shifted(sixteen, as_tensor(eight), Condition("contrast", 3), Rng.of_run(0, ["a"]))
    )


def test_names() -> None:
    assert kinds_of(["published", "jpeg"]) == (*PUBLISHED, "jpeg") and kinds_of(["line", "jpeg"]) == tuple(LINE)
    assert label(tuple(PUBLISHED), (3,)) == "published, severity 3"
    assert label((*LINE, "contrast"), SEVERITIES) == "line, contrast, severity 1 to 5"
    with pytest.raises(UserError, match="no kind of shift named 'fog'"):
        kinds_of(["fog"])


def test_rows_and_metrics() -> None:
    data = small_data(12, 11)
    found = shift(Linear(), data, ["exposure", "gamma"], [1, 4])
    conditions = ["exposure_1", "exposure_4", "gamma_1", "gamma_4"]
    assert list(found.columns[6:]) == conditions
    sign, metrics = 1 - 2 * found["label"], found.metrics
    every = found[["clean", *conditions]].mul(sign, axis=0)
    assert (every.max(axis=1) == sign * found["worst"]).all()
    areas = [roc_auc_score(found["label"], found[name]) for name in conditions]
    assert metrics["shifted_auroc"] == pytest.approx(np.mean(areas))
    assert metrics["gamma_4_auroc"] == pytest.approx(areas[3])
    threshold = found.attrs["run"]["threshold"]["value"]
    normal = found[found["label"] == 0]
    alarms = [(normal[name] > threshold).mean() for name in conditions]
    assert metrics["shifted_false_alarms"] == pytest.approx(np.mean(alarms))
    misses = (found[found["label"] == 1]["worst"] <= threshold).mean()
    assert metrics["worst_shift_misses"] == pytest.approx(misses)
    assert "robust_auroc" not in metrics and "clean_ap" not in metrics


def test_scores_are_those_of_the_shifted_images() -> None:
    data, detector = small_data(12, 11), Linear()
    found = shift(detector, data, ["vignette"], [3])
    for i in (0, 15):
        record = data.test.records[i]
        image = shifted(
            record.source.pixels(), data.test.image(i), Condition("vignette", 3), Rng.of_run(0, [record.id])
        )
        assert found["vignette_3"][i] == pytest.approx(float(detector.score(image[None])), rel=1e-5)


def test_a_detector_that_draws_noise_and_any_batch() -> None:
    data = small_data(12, 11)
    first = shift(NoisyLinear(), data, ["gamma"], [2], draws=4)
    again = shift(NoisyLinear(), data, ["gamma"], [2], draws=4, batch_size=3)
    assert np.allclose(first["gamma_2"], again["gamma_2"], rtol=1e-5)


@pytest.fixture
def typed(tmp_path: Path) -> list[str]:
    make_tree(tmp_path / "images/widget", train=24)
    return [
        "shift", "--detector", "autoencoder", "--param", "steps=2", "--dataset", "folder",
        "--data-root", str(tmp_path / "images"), "--image-size", "16", "--results", str(tmp_path / "results"),
    ]  # fmt: skip


def test_from_the_command_to_the_report(typed: list[str], tmp_path: Path, run_cli: Run) -> None:
    results = tmp_path / "results"
    code, out, err = run_cli(*typed, "--kind", "line")
    assert code == 0 and "shift line, severity 1 to 5" in out, (out, err)
    cell = cell_of(results)
    before = (cell / "samples.csv").read_bytes()
    code, out, err = run_cli(*typed, "--kind", "line")
    assert code == 0 and (cell / "samples.csv").read_bytes() == before
    record = read_finished(cell)
    assert record.kind == "shift" and not record.failed and len(record.attack.parts) == 50
    code, out, err = run_cli("verify", str(cell))
    assert code == 0 and "metrics follow from the rows" in out, (out, err)
    code, out, err = run_cli("check-run", str(cell), "--data-root", str(tmp_path / "images"))
    assert code == 0 and "pass    shift repeat" in out and "FAIL" not in out, (out, err)
    code, out, err = run_cli("submit", str(results), "--out", str(tmp_path / "mine.zip"))
    assert code == 2 and "of kind shift" in out
    code, out, err = run_cli("report", "--results", str(results))
    assert code == 0 and "false alarms" in out
    board = (results / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert "shifted AUROC" in board and "False alarms by kind" in board and "linf 1" not in board
    assert len(list(results.glob("severity*.png"))) == 3
    with (results / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["kind"] == "shift" and 0 <= float(row["jpeg_5_false_alarms"]) <= 1


def test_shifts_stand_on_boards_of_their_own(typed: list[str], tmp_path: Path, run_cli: Run) -> None:
    attack = ["run", *typed[1:], "--attack", "pgd-linf", "--attack-param", "steps=2", "--eps", "1"]
    assert run_cli(*typed)[0] == run_cli(*attack)[0] == 0
    code, out, err = run_cli("report", "--results", str(tmp_path / "results"))
    assert code == 0, (out, err)
    board = (tmp_path / "results/LEADERBOARD.md").read_text(encoding="utf-8")
    assert board.count("### ") == 2 and "shift published, severity 3" in board


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--kind", "fog"], "no kind of shift named 'fog'. Known: "),
        (["--severity", "6"], "--severity 6: severities are 1 to 5"),
        (["--severity", "1,two"], "--severity two: severities are 1 to 5"),
    ],
)
def test_what_there_is_not(typed: list[str], more: list[str], message: str, run_cli: Run) -> None:
    code, _, err = run_cli(*typed, *more)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


def test_the_function_is_public() -> None:
    assert bench.shift is shift and "bench.harness.shift" in sys.modules
