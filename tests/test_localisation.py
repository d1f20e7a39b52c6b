"""Anomaly maps under attack: metrics by hand and by others, attacks whose optimum is known, and what stops a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tree, shared
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score
from test_run import cell_of
from torch import Tensor

from bench import Data, Detector, Record, Rng, TestSet, ThreatModel, TrainSet, UserError, evaluate
from bench.cells.pixels import from_texts, to_text
from bench.cells.record import read_finished, read_rows
from bench.core.images import ArraySource
from bench.engine.localiser import MapScale, Truth, histograms, judge, truths_of
from bench.stats.pixels import ALARM, BINS, PIXEL_METRICS, Pixels, Sums

Run = Callable[..., tuple[int, str, str]]
SIZE, EPS = 12, 8 / 255


class Bright(Detector):
    """The map is the mean of the colours, the score nearly its maximum."""

    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.gain = gain

    def fit(self, normal: object) -> None:
        """Nothing to learn."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.anomaly_map(x).flatten(1).logsumexp(1)

    def anomaly_map(self, x: Tensor) -> Tensor:
        return self.gain * x.mean(1, keepdim=True)


class Drawn(Bright):
    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.anomaly_map(x, rng).flatten(1).logsumexp(1)

    def anomaly_map(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return (x + 0.01 * noise).mean(1, keepdim=True)


class Detached(Bright):
    def anomaly_map(self, x: Tensor) -> Tensor:
        return super().anomaly_map(x.detach())


class HalfCut(Bright):
    """The half of the gradient that says how the map depends on the left of the image is wrong."""

    def anomaly_map(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        left = x[..., :half]
        return super().anomaly_map(torch.cat([-left + 2 * left.detach(), x[..., half:]], -1))


class Small(Bright):
    def anomaly_map(self, x: Tensor) -> Tensor:
        return super().anomaly_map(x)[..., ::2, ::2]


class NotFinite(Bright):
    def anomaly_map(self, x: Tensor) -> Tensor:
        return super().anomaly_map(x) / 0


class Raises(Bright):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return x.flatten(1).logsumexp(1)

    def anomaly_map(self, x: Tensor) -> Tensor:
        raise IndexError("no map today")


class Same(Bright):
    """The map says nothing, the score does."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return x.flatten(1).amax(1)

    def anomaly_map(self, x: Tensor) -> Tensor:
        return 0 * super().anomaly_map(x)


class NoMap(Bright):
    anomaly_map = None  # type: ignore[assignment]

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return x.flatten(1).amax(1)


def mapped(masks: bool = True) -> Data:
    """Grey noise; an anomaly is a square, and a line beside it, a little brighter than what is around them."""
    rng = np.random.RandomState(3)

    def record(name: str, label: int) -> Record:
        image = rng.randint(90, 130, (SIZE, SIZE, 3)).astype(np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        if label:
            mask[2:6, 3:8] = 255
            mask[9, 2:10] = 255
            image[mask > 0] += 14
        return Record(name, ArraySource(image), label, ArraySource(mask) if label and masks else None)

    test = [record(f"good/{i}", 0) for i in range(6)] + [record(f"bad/{i}", 1) for i in range(5)]
    train = [record(f"train/{i}", 0) for i in range(24)]
    return Data("mapped", "one", SIZE, TrainSet(train, SIZE), TestSet(test, SIZE))


def pixels_of(bins: np.ndarray, masks: np.ndarray, anomalous: np.ndarray) -> Pixels:
    """Of bins (N, H, W) and masks (N, H, W), one image at a time."""
    background, mask, covered = (np.zeros((len(bins), BINS)) for _ in range(3))
    counts = np.zeros(len(bins))
    for i, (own, marked) in enumerate(zip(bins, masks, strict=True)):
        labels, count = ndimage.label(marked, structure=np.ones((3, 3)))
        background[i] = np.bincount(own[~marked], minlength=BINS)
        mask[i] = np.bincount(own[marked], minlength=BINS)
        for region in range(1, count + 1):
            inside = np.bincount(own[labels == region], minlength=BINS)
            covered[i] += inside / inside.sum()
        counts[i] = count
    return Pixels(background, mask, covered, counts, anomalous, np.arange(len(bins), dtype=float), "salt")


def some_maps(seed: int = 0, count: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins, masks and labels of a few images; half of them have masks of one to three regions."""
    rng = np.random.RandomState(seed)
    masks = np.zeros((count, 10, 10), bool)
    for i in range(count // 2, count):
        masks[i, 1:4, 1:4] = True
        masks[i, 6:9, 2 + i % 3 : 5 + i % 3] = i % 2
        masks[i, 0, 9] = i % 3 == 0
    bins = np.clip(rng.normal(480, 40, masks.shape) + 60 * masks, 0, BINS - 1).astype(int)
    return bins, masks, np.arange(count) >= count // 2


def test_auroc_and_ap_of_pixels_are_those_of_scikit_learn() -> None:
    bins, masks, anomalous = some_maps()
    whole = pixels_of(bins, masks, anomalous)._whole
    flat, marked = bins.ravel(), masks.ravel()
    assert float(PIXEL_METRICS["pixel_auroc"](whole)) == pytest.approx(roc_auc_score(marked, flat), abs=1e-12)
    assert float(PIXEL_METRICS["pixel_ap"](whole)) == pytest.approx(average_precision_score(marked, flat), abs=1e-12)
    above = flat >= ALARM
    f1 = 2 * (above & marked).sum() / (above.sum() + marked.sum())
    assert float(PIXEL_METRICS["seg_f1"](whole)) == pytest.approx(f1, abs=1e-12)
    assert float(PIXEL_METRICS["background_fpr"](whole)) == pytest.approx(above[~marked].mean(), abs=1e-12)


def test_aupro_by_hand() -> None:
    """Two regions, of 2 and of 1 pixel; 4 pixels of background: thresholds 9, 8, 7, 6 give false positive rates 0,
    1/4, 1/2, 1 and overlaps 1/2, 1/2, 1, 1, joined by lines."""
    background, mask, covered = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    mask[[9, 7]] = 1, 2
    covered[[9, 7]] = 1, 1  # the region of one pixel is in bin 9, both pixels of the other one in 7
    background[[8, 7, 6]] = 1, 1, 2
    sums = Sums(background, mask, covered, np.array(2.0))
    # up to 1/4 the overlap is 1/2; from there a line to 1 at 1/2
    assert float(PIXEL_METRICS["aupro_05"](sums)) == pytest.approx(0.5)
    at = 0.5 + 0.5 * (0.30 - 0.25) / 0.25
    assert float(PIXEL_METRICS["aupro"](sums)) == pytest.approx((0.25 * 0.5 + 0.05 * (0.5 + at) / 2) / 0.30)


def test_aupro_is_that_of_anomalib() -> None:
    metrics = pytest.importorskip("anomalib.metrics.aupro", reason="anomalib is not installed")
    bins, masks, anomalous = some_maps(1, 12)
    whole = pixels_of(bins, masks, anomalous)._whole
    for name, limit in (("aupro", 0.30), ("aupro_05", 0.05)):
        theirs = metrics._AUPRO(fpr_limit=limit)
        theirs.update(torch.from_numpy(bins / BINS).float(), torch.from_numpy(masks).int())
        assert float(PIXEL_METRICS[name](whole)) == pytest.approx(float(theirs.compute()), abs=2e-3)


def test_a_perfect_map_and_its_opposite() -> None:
    _, masks, anomalous = some_maps()
    for sign, best in ((1, 1.0), (-1, 0.0)):
        pixels = pixels_of(np.where(masks, ALARM + sign * 100, ALARM - sign * 100), masks, anomalous)
        for name in ("pixel_auroc", "aupro", "seg_f1"):
            assert pixels.measure(name).value == pytest.approx(best), name
        low, high = pixels.measure("pixel_auroc").ends(1.96)
        assert 0 <= low <= best <= high <= 1 and high - low > 0.05  # six images prove little


def test_the_interval_holds_the_truth() -> None:
    """Of 200 samples of 8 + 8 images from a population whose pixel AUROC is known."""
    rng = np.random.RandomState(5)

    def sample(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        anomalous = np.arange(2 * count) >= count
        masks = np.zeros((2 * count, 6, 6), bool)
        masks[anomalous, :2] = True
        shift = rng.normal(0, 15, (2 * count, 1, 1))
        return (rng.normal(480, 30, masks.shape) + shift + 60 * masks).astype(int), masks, anomalous

    bins, masks, _ = sample(3000)
    truth = roc_auc_score(masks.ravel(), bins.ravel())
    held = 0
    for _ in range(200):
        low, high = pixels_of(*sample(8)).measure("pixel_auroc").ends(1.96)
        held += low <= truth <= high
    assert held >= 0.90 * 200


def test_texts_say_the_same_again() -> None:
    rng = np.random.RandomState(0)
    background = np.where(rng.rand(BINS) < 0.2, rng.randint(1, 9, BINS), 0).astype(float)
    mask, covered = np.zeros(BINS), np.zeros(BINS)
    mask[[0, 700, BINS - 1]], covered[[0, 700, BINS - 1]] = (1, 2, 3), (1, 2 / 3, 1 / 3)
    found = from_texts([to_text(background, mask, covered), to_text(background)])
    assert (found[0][0] == background).all() and (found[1][0] == mask).all() and np.allclose(found[2][0], covered)
    assert found[3].tolist() == [2, 0] and not found[1][1].any()
    for text in ("1:2|3:4", "x", "1:0", "1:-2", "1:nan", "5:1 0:1", f"{BINS}:1", "-1:1", "1:2 ", "9" * 30 + ":1"):
        with pytest.raises((ValueError, OverflowError)):
            from_texts([text])


def test_what_an_image_is_judged_by() -> None:
    """The pixel AUROC of its own map, and the mean of a normal one."""
    rng, scale = torch.Generator().manual_seed(0), MapScale(0.0, 1.0, 3.0, 20)
    z = torch.randn(2, 20, 20, generator=rng)
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[3:9, 4:7] = True
    truths = [Truth(0, torch.zeros_like(mask), mask.double()), Truth(1, mask, mask.double())]
    found = judge(z, truths, scale)
    assert found[0] == pytest.approx(float(z[0].double().mean()))
    assert found[1] == pytest.approx(roc_auc_score(mask.ravel(), z[1].ravel()), abs=2e-3)
    at_alarm = histograms(torch.tensor([[[3.0, 3.0 + 1e-6]]]), [[torch.ones(1, 2)]], scale)[0, 0]
    assert at_alarm[ALARM - 1] == 1 and at_alarm[ALARM] == 1  # only what is above the level is an alarm


@pytest.mark.parametrize("attack", ["pgd-linf", "apgd-linf", "square-linf", "noise-linf"])
def test_rows_hold_what_they_promise(attack: str, tmp_path: Path) -> None:
    given = {"pgd-linf": {"steps": 5}, "apgd-linf": {"steps": 5}, "square-linf": {"queries": 20}}.get(attack, {})
    found = evaluate(Bright(), mapped(), attack, EPS, goal="map", attack_params=given, results=tmp_path)
    sign = 1 - 2 * found["label"]
    assert (sign * found["worst"] >= sign * found["clean"]).all()
    assert (sign * found["worst"] >= sign * found["transfer"] - 1e-9).all()
    assert (found["distance"] <= EPS + 1e-6).all()
    metrics = found.metrics
    assert metrics["robust_pixel_auroc"] < metrics["clean_pixel_auroc"] < 1
    assert "clean_auroc" not in metrics and "clean_accuracy" not in metrics
    record = read_finished(cell_of(tmp_path))
    assert record.kind == "localisation" and not record.failed and record.map_scale is not None


def test_the_optimum_is_reached() -> None:
    """Each pixel of the map is one of the image: the best attack raises the background and lowers the anomaly by eps,
    pixel by pixel, and of a normal image raises all."""
    data, eps = mapped(), 4 / 255
    found = evaluate(Bright(), data, "pgd-linf", eps, goal="map", attack_params={"steps": 20})
    for i, (clean, worst) in enumerate(zip(found["clean"].tolist(), found["worst"].tolist(), strict=True)):
        z = data.test.image(i).mean(0)
        mask = data.test.mask(i)
        if mask is None:
            assert worst - clean == pytest.approx(eps / z_deviation(data), rel=1e-4)
        else:
            best = roc_auc_score(mask[0].ravel(), (z + eps * (1 - 2 * mask[0].float())).ravel())
            assert worst == pytest.approx(best, abs=3e-3)


def z_deviation(data: Data) -> float:
    _, held = data.train.split(0)
    return float(torch.stack([held.image(i).mean(0) for i in range(len(held))]).double().std(correction=0))


def test_a_larger_ball_is_never_better_for_the_detector() -> None:
    data, small, large = mapped(), ThreatModel("linf", "1/255"), ThreatModel("linf", "3/255")
    given = {"goal": "map", "attack_params": {"steps": 3}}
    first = evaluate(Bright(), data, "pgd-linf", small, keep_images=True, **given)  # type: ignore[arg-type]
    second = evaluate(Bright(), data, "pgd-linf", large, smaller=[small], **given)  # type: ignore[arg-type]
    sign = 1 - 2 * first["label"]
    assert (sign * second["worst"] >= sign * first["worst"] - 1e-9).all()


def test_one_side_alone() -> None:
    data = mapped()
    threat = ThreatModel("linf", EPS, "normal")
    found = evaluate(Bright(), data, "pgd-linf", threat, goal="map", attack_params={"steps": 3})
    anomalous = found["label"] == 1
    assert (found["worst"] == found["clean"])[anomalous].all() and (found["distance"] > 0)[~anomalous].all()
    assert "normal_only_pixel_auroc" in found.metrics and "anomalous_only_pixel_auroc" not in found.metrics
    assert found.metrics["robust_pixel_auroc"] == found.metrics["normal_only_pixel_auroc"]


def test_a_detector_that_draws_noise() -> None:
    found = evaluate(Drawn(), mapped(), "pgd-linf", EPS, goal="map", draws=3, attack_params={"steps": 3, "draws": 2})
    sign = 1 - 2 * found["label"]
    assert (sign * found["worst"] >= sign * found["clean"]).all()
    again = evaluate(Drawn(), mapped(), "pgd-linf", EPS, goal="map", draws=3, attack_params={"steps": 3, "draws": 2})
    assert found.equals(again)


def test_regions_are_connected_over_corners_and_weigh_the_same() -> None:
    data = mapped()
    truth = truths_of(data.test)["bad/0"]
    assert truth.covered[truth.mask].sum() == pytest.approx(2.0)  # the square and the line
    assert truth.covered[~truth.mask].abs().max() == 0


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (NoMap, r"NoMap has no anomaly map \(anomaly_map\), which --goal map attacks"),
        (Small, r"its anomaly map is \(\d+, 1, 6, 6\) for images \(\d+, 3, 12, 12\); expected a float tensor"),
        (NotFinite, "its anomaly map holds values that are not finite"),
        (Raises, r"failed in anomaly_map: IndexError: no map today"),
        (
            Detached,
            "the anomaly map of Detached has no gradient, which pgd follows; attacks that need none: square-linf",
        ),
        (Same, "the pixels of its maps of normal images are all 0"),
    ],
)
def test_a_map_that_cannot_be_attacked(detector: type[Detector], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(detector(), mapped(), "pgd-linf", EPS, goal="map", results=tmp_path)


def test_a_map_without_a_gradient_meets_attacks_that_need_none() -> None:
    found = evaluate(Detached(), mapped(), "square-linf", EPS, goal="map", attack_params={"queries": 30})
    assert found.metrics["robust_pixel_auroc"] < found.metrics["clean_pixel_auroc"]


def test_masks_that_are_missing_are_counted() -> None:
    with pytest.raises(
        UserError, match=r"needs the mask of every anomalous test image: 5 of 5 have none \(such as bad/0"
    ):
        evaluate(Bright(), mapped(masks=False), "pgd-linf", EPS, goal="map")


@pytest.mark.parametrize("attack", ["standard-linf", "autoattack-linf", "worst-linf"])
def test_attacks_on_image_scores_are_refused(attack: str) -> None:
    with pytest.raises(
        UserError, match="moves anomaly maps, and .* is about image scores; attacks that fit: apgd-linf"
    ):
        evaluate(Bright(), mapped(), attack, EPS, goal="map")


def test_a_wrong_gradient_of_the_map_is_found() -> None:
    """Of the score nothing is wrong with it that a check of scores would have to see."""
    found = evaluate(HalfCut(), mapped(), "pgd-linf", EPS, goal="map", attack_params={"steps": 3})
    failed = {check["name"]: check["sentence"] for check in found.attrs["run"]["checks"] if not check["passed"]}
    assert "is not that of the anomaly map" in failed["map gradient"]


def test_too_few_steps_are_found() -> None:
    found = evaluate(Bright(), mapped(), "pgd-linf", EPS, goal="map",
                     attack_params={"steps": 1, "step_size": 0.004, "random_start": False})  # fmt: skip
    failed = {check["name"] for check in found.attrs["run"]["checks"] if not check["passed"]}
    assert "map steps" in failed


PLUGIN = """
from bench import Detector

class Bright(Detector):
    def fit(self, normal):
        pass
    def score(self, x):
        return self.anomaly_map(x).flatten(1).logsumexp(1)
    def anomaly_map(self, x):
        return x.mean(1, keepdim=True)
"""


@pytest.fixture
def typed(tmp_path: Path) -> list[str]:
    """A detector in a file, on images with masks."""
    tree = make_tree(tmp_path / "images/widget", train=24)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:10, 4:10] = 255
    for path in (tree / "ground_truth/dent").glob("*.png"):
        Image.fromarray(mask).save(path)
    (tmp_path / "bright.py").write_text(PLUGIN)
    return [
        "run", "--detector", f"{tmp_path}/bright.py:Bright", "--attack", "pgd-linf", "--attack-param", "steps=3",
        "--dataset", "folder", "--data-root", str(tmp_path / "images"), "--image-size", "16",
        "--results", str(tmp_path / "results"), "--goal", "map",
    ]  # fmt: skip


def test_from_the_command_to_the_report(typed: list[str], tmp_path: Path, run_cli: Run) -> None:
    code, out, err = run_cli(*typed, "--save-images", "1")
    assert code == 0 and "Pixel AUROC" in out, (out, err)
    results, cell = tmp_path / "results", cell_of(tmp_path / "results")
    before = (cell / "samples.csv").read_bytes()
    code, out, err = run_cli(*typed)
    assert code == 0 and (cell / "samples.csv").read_bytes() == before
    found = ["--detector", typed[2], "--data-root", str(tmp_path / "images")]
    code, out, err = run_cli("verify", str(cell), *found)
    assert code == 0 and "pass    scores: " in out and "16 metrics follow" in out, (out, err)
    code, out, err = run_cli("check-run", str(cell), *found)
    assert code == 0 and "pass    map gradient" in out and "FAIL" not in out, (out, err)
    code, out, err = run_cli("submit", str(results), "--out", str(tmp_path / "mine.zip"))
    assert code == 2 and "of kind localisation" in out and "no finished cell" in err
    code, out, err = run_cli("report", "--results", str(results))
    assert code == 0 and "robust" in out
    board = (results / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert "robust pixel AUROC" in board and "clean AUPRO" in board and "robust AUROC" not in board
    with (results / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["kind"] == "localisation" and float(row["robust_pixel_auroc"]) <= float(row["clean_pixel_auroc"])
    assert "robust pixel AUROC" in (results / "report/index.html").read_text(encoding="utf-8")


def test_changed_pixels_are_found(typed: list[str], tmp_path: Path, run_cli: Run) -> None:
    assert run_cli(*typed)[0] == 0
    cell = cell_of(tmp_path / "results")
    rows = read_rows(cell, read_finished(cell))
    one = next(row for row in rows if row.label)
    background = one.pixels["worst_pixels"].partition("|")[0]
    for text in (background, one.pixels["worst_pixels"].replace(":", ";", 1), f"{background}||"):
        changed = (cell / "samples.csv").read_text().replace(one.pixels["worst_pixels"], text, 1)
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        record = json.loads((cell / "run.json").read_text())
        (other / "samples.csv").write_text(changed)
        (other / "run.json").write_text(json.dumps(record))
        code, out, err = run_cli("verify", str(other))
        assert code == 1 and "FAIL    schema" in out, (out, err)


def test_a_real_category() -> None:
    """The defects of bottles are found where they are, until the map is attacked."""
    root = shared("data", "mvtec_bottle").parent
    import bench

    data = bench.load_data("folder", category="mvtec_bottle", root=root, image_size=64)
    found = evaluate("nearest-patch", data, "pgd-linf", "2/255", goal="map", limit=8, attack_params={"steps": 3})
    metrics = found.metrics
    assert metrics["clean_pixel_auroc"] > 0.9 and metrics["robust_pixel_auroc"] < metrics["transfer_pixel_auroc"]
