"""What is particular to a detector: its formula, its presets, its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Killed, KilledAt, detector, module, shared, small_data
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Progress, Rng, UserError, fit_or_load, load_data
from bench.system.cache import cache_folder


@pytest.mark.parametrize("name", ["advrad", "autoencoder"])
def test_a_killed_training_resumes_to_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("_training"), "SAVE_EVERY_SECONDS", 0.0)
    normal = DataLoader(small_data(size=16).train, batch_size=8)

    def fit(progress: Progress) -> Detector:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            built = detector(name, steps=8, batch_size=4)
            built.progress = progress
            built.fit(normal)
        return built

    whole = fit(Progress())
    for step in (4, 6):
        with pytest.raises(Killed):
            fit(KilledAt(step, tmp_path / "training.pt"))
        saved = torch.load(tmp_path / "training.pt", weights_only=True)
        assert saved["step"] == step - 1
    resumed = fit(KilledAt(0, tmp_path / "training.pt"))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_damaged_training_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(b"no checkpoint")
    built = detector("autoencoder", steps=2)
    built.progress = KilledAt(0, tmp_path / "training.pt")
    with pytest.raises(UserError, match="delete that file to train from the start"):
        built.fit(DataLoader(small_data(size=16).train))


def test_a_training_that_diverges_stops_with_the_step() -> None:
    built = detector("autoencoder", steps=50, lr=1e30)
    with pytest.raises(UserError, match=r"diverged at step \d+ of 50: the loss is"):
        built.fit(DataLoader(small_data(size=16).train))


def fitted_advrad(**given: Any) -> Any:
    built = detector("advrad", steps=2, batch_size=4, **given)
    built.fit(DataLoader(small_data(size=16).train, batch_size=8))
    return built.eval()


def test_advrad_reconstructs_in_one_step() -> None:
    """With the true noise as prediction, the clean image comes back exactly (their Algorithm 1)."""
    advrad = fitted_advrad(k=200)
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    noise = torch.randn_like(x)
    advrad.network.forward = lambda noised, step: noise
    assert torch.allclose(advrad._reconstruct(x, noise), x, atol=1e-5)


def test_the_diffusion_schedule_is_the_published_one() -> None:
    """alpha_bar_k of the linear schedule 1e-4 .. 0.02 in 1000 steps, from the table of published conversions."""
    alpha_bar = detector("advrad").alpha_bar
    for k, expected in ((25, 0.9916), (50, 0.9710), (100, 0.8970), (300, 0.3964)):
        assert alpha_bar[k - 1].item() == pytest.approx(expected, abs=2e-3)


def test_advrad_score_is_the_deviation_from_normal_error() -> None:
    advrad = fitted_advrad(filter=3)
    x, ids = torch.rand(3, 3, 16, 16), ["a", "b", "c"]
    noise = Rng(0, ids).normal(x)
    difference = x - (advrad._reconstruct(2 * x - 1, noise) + 1) / 2
    maps = []
    for scale in (1, 2, 4, 8):  # resize image and reconstruction, as the paper says
        small = (
            difference
            if scale == 1
            else F.interpolate(difference, (16 // scale, 16 // scale), mode="bilinear", antialias=True)
        )
        maps.append(F.interpolate(small.square().mean(1, keepdim=True), (16, 16), mode="bilinear"))
    error = torch.stack(maps).mean(0)
    for row in range(3):
        y, x_ = 7, 9  # an inner pixel: the mean over 3 x 3
        expected = (error[row, 0, y - 1 : y + 2, x_ - 1 : x_ + 2].mean() - advrad.normal_error[0, 0, y, x_]).abs()
        assert advrad.anomaly_map(x, Rng(0, ids))[row, 0, y, x_].item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.equal(advrad.score(x, Rng(0, ids)), advrad.anomaly_map(x, Rng(0, ids)).flatten(1).amax(1))


def test_advrad_presets_have_their_sizes() -> None:
    small, paper = (detector("advrad", preset=p) for p in ("small", "paper"))
    count = [sum(p.numel() for p in d.network.parameters()) for d in (small, paper)]
    assert 0.55e6 < count[0] < 0.7e6
    assert 80e6 < count[1] < 150e6
    assert (paper.parameters_record["steps"], small.parameters_record["steps"]) == (30_000, 600)
    with pytest.raises(ValueError, match="odd"):
        detector("advrad", filter=4)


@pytest.mark.parametrize("size", [(30, 30), (64, 48), (33, 65)])
def test_the_unet_takes_any_size(size: tuple[int, int]) -> None:
    network = detector("advrad").network
    x = torch.rand(2, 3, *size)
    assert network(x, torch.tensor([0, 999])).shape == x.shape


@pytest.mark.parametrize("error", ["l2", "ssim", "ms-ssim"])
def test_autoencoder_errors_are_zero_for_a_perfect_reconstruction(error: str) -> None:
    similarity = module("_similarity")
    x = torch.rand(2, 3, 48, 48)
    for measure in (similarity.ssim_error, similarity.ms_ssim_error):
        assert measure(x, x).abs().max() < 1e-5
        assert measure(x, 1 - x).mean() > 0.5
    built = detector("autoencoder", error=error, steps=3, batch_size=4)
    built.fit(DataLoader(small_data(size=48).train, batch_size=8))
    assert built.anomaly_map(x).shape == (2, 1, 48, 48)


def test_ssim_agrees_with_scikit_image() -> None:
    import numpy as np
    from skimage.metrics import structural_similarity

    x, y = np.random.RandomState(0).rand(2, 32, 32)
    theirs = structural_similarity(
        x, y, data_range=1, gaussian_weights=True, sigma=1.5, win_size=11, use_sample_covariance=False, full=True
    )[1]
    ours = 1 - module("_similarity").ssim_error(*(torch.from_numpy(a).float().expand(1, 3, 32, 32) for a in (x, y)))
    inner = slice(6, -6)  # borders are handled differently
    assert np.allclose(ours[0, 0, inner, inner], theirs[inner, inner], atol=1e-4)


# PatchCore


@pytest.fixture(scope="module")
def patchcore() -> Any:
    data = load_data(category="grass", image_size=96)
    return fit_or_load("patchcore", data, backbone="resnet18", weights="random", coreset="0.05").eval()


def test_patchcore_equals_anomalib(patchcore: Any) -> None:
    """The same backbone weights, bank and images: the same scores, theirs without a gradient."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    theirs = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False).eval()
    extractor = theirs.feature_extractor.feature_extractor
    extractor.load_state_dict(patchcore.features.model.state_dict(), strict=False)
    theirs.memory_bank = patchcore.bank
    x = load_data(category="grass", image_size=96).test.images(range(24, 48))
    with torch.no_grad():
        normalised = (x - patchcore.features.mean) / patchcore.features.std
        expected = theirs(normalised).pred_score
    ours = patchcore.score(x)
    assert torch.allclose(ours, expected.flatten(), atol=1e-4, rtol=1e-4)
    assert ours.std() > 1e-3  # not equal because all are


def test_patchcore_gradient_is_that_of_the_full_distance_table(patchcore: Any) -> None:
    """The search runs without gradient; the result must have the gradient of the search through everything."""
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))

    def by_table(images: Tensor) -> Tensor:
        patches, _ = patchcore._embed(images)
        distance = torch.cdist(patches, patchcore.bank.expand(len(images), -1, -1))
        return distance.amin(2).amax(1)

    plain = detector("patchcore", backbone="resnet18", weights="random", neighbours=1)
    plain.load_state_dict(patchcore.state_dict())
    gradients: list[Tensor] = []
    for score in (plain.eval().score, by_table):
        point = x.clone().requires_grad_(True)
        gradients.append(torch.autograd.grad(score(point).sum(), point)[0])
    assert F.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0) > 0.999


def test_the_coreset_covers_as_greedy_selection_must() -> None:
    """Against a direct implementation, and within twice the best radius that chance finds."""
    k_center = module("_coreset").k_center_greedy
    points = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    chosen = k_center(points, 40).tolist()
    assert len(set(chosen)) == 40
    expected = [chosen[0]]
    while len(expected) < 40:
        expected.append(int(torch.cdist(points, points[expected]).amin(1).argmax()))
    assert chosen == expected


def test_patchcore_says_both_ways_to_get_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    tries = []

    def offline(*_: object, **__: object) -> None:
        tries.append(1)
        raise OSError("no route to host")

    built = detector("patchcore", backbone="resnet18")
    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(module("_features"), "_unreachable", {})
    for _ in range(2):
        with pytest.raises(UserError, match=r"no route to host.*--param weights=PATH.*huggingface\.co"):
            built.fit(DataLoader(small_data(size=32).train))
    assert len(tries) == 1  # the hub's retries take a minute; a grid waits for them once


def test_weights_come_from_a_file_and_are_known_by_their_content(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    save_file(state, tmp_path / "resnet18.safetensors")
    torch.save(state, tmp_path / "resnet18.pth")
    data = load_data(category="brick", image_size=32)
    banks = []
    for name in ("resnet18.safetensors", "resnet18.pth"):
        built: Any = fit_or_load("patchcore", data, weights=str(tmp_path / name))
        assert built.backbone == "resnet18"  # from the file's name
        assert built.origin.parameters["weights"].startswith("sha256:")
        banks.append(built.bank)
    assert torch.equal(banks[0], banks[1])


def test_a_backbone_that_needs_no_download() -> None:
    """Its weights are those of the checkpoint, whatever the seed; each fits a layer of the same shape and name."""
    layer, states = "layer3.1.conv2.weight", []
    for seed in (0, 1):
        torch.manual_seed(seed)
        built = detector("patchcore", backbone="cifar_resnet18", layers=(3,))
        before = built.features.model.state_dict()[layer].clone()
        built.features.load_weights("hub")
        states.append(built.features.model.state_dict()[layer])
        assert not torch.equal(before, states[-1])
    assert torch.equal(states[0], states[1])
    assert built.features(torch.rand(2, 3, 64, 64))[0].shape == (2, 256, 16, 16)


@pytest.mark.parametrize(
    ("keys", "says"),
    [("missing", "lacks layer1.0.conv1.weight"), ("shape", "has another shape for conv1.weight"),
     ("garbage", "cannot read weights"), ("absent", "no weights file")],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(tmp_path: Path, keys: str, says: str) -> None:
    import timm

    state = timm.create_model("resnet18", pretrained=False).state_dict()
    path = tmp_path / "resnet18.safetensors"
    if keys == "missing":
        save_file({k: v for k, v in state.items() if "layer1" not in k}, path)
    elif keys == "shape":
        save_file({**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}, path)
    elif keys == "garbage":
        path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(UserError, match=says):
        detector("patchcore", weights=path).fit(DataLoader(small_data(size=32).train))


# The cache of fitted detectors


def test_a_fit_is_kept_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data(category="brick", image_size=24)
    first = fit_or_load("autoencoder", data, steps=2)
    kind = type(first)
    monkeypatch.setattr(kind, "fit", lambda *_: pytest.fail("was fitted again"))
    again = fit_or_load("autoencoder", data, steps="2")
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert next(cache_folder().rglob("model.safetensors")).is_file()


@pytest.mark.parametrize("spoil", ["flipped byte", "pickle", "record", "schema"])
def test_a_tampered_checkpoint_is_made_again(spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    import json

    data = load_data(category="gravel", image_size=24)
    fit_or_load("autoencoder", data, steps=2)
    (folder,) = (cache_folder() / "fitted/textures-gravel-24px").iterdir()
    model, record = folder / "model.safetensors", folder / "fit.json"
    content, text = model.read_bytes(), record.read_text()
    if spoil == "flipped byte":
        model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif spoil == "pickle":
        torch.save({"x": torch.zeros(1)}, model)
    elif spoil == "record":
        record.write_text(text[:40])
    else:
        record.write_text(json.dumps({**json.loads(text), "schema": 99}))
    fit_or_load("autoencoder", data, steps=2)
    assert f"the fit kept in {folder} is damaged" in caplog.text and "fitting again" in caplog.text
    assert model.read_bytes() == content and json.loads(record.read_text()).keys() == json.loads(text).keys()


@pytest.mark.slow
def test_real_bottles_are_told_apart_until_they_are_attacked() -> None:
    from bench import ThreatModel, evaluate
    from bench.stats.metrics import points

    data = load_data("folder", root=shared("data", "mvtec_bottle"), image_size=128)
    weights = shared("weights", "mobilenetv2_100.safetensors")
    rows = evaluate("patchcore", data, "pgd", ThreatModel("linf", "2/255"), params={"weights": str(weights)})
    labels = rows.label.to_numpy(bool)
    assert points(rows.clean.to_numpy(), labels)["auroc"] >= 0.95
    assert points(rows.worst.to_numpy(), labels)["auroc"] <= 0.05
