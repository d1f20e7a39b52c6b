"""SPADE against computations that take nothing from it but its features."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from conftest import shared
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import UserError, fit_or_load, load_data
from bench.plugins import registry


def spade(**given: Any) -> Any:
    return registry.load("detectors", "spade").target(**{"backbone": "resnet18", "weights": "random", **given})


@pytest.fixture(scope="module")
def fitted() -> Any:
    torch.manual_seed(0)
    built = spade(neighbours=5)
    built.fit(DataLoader(load_data(category="brick", image_size=64).train, batch_size=32))
    return built.eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return load_data(category="brick", image_size=64).test.images([0, 1, 40, 41])


def test_the_score_is_the_mean_distance_to_the_nearest_images(fitted: Any, x: Tensor) -> None:
    """All distances, sorted: the mean of the smallest, and its gradient."""
    train = load_data(category="brick", image_size=64).train
    normal = torch.stack([train[i] for i in range(len(train))])
    pooled = F.adaptive_avg_pool2d(fitted.features(normal)[-1], 1).flatten(1)

    def by_table(images: Tensor) -> Tensor:
        own = F.adaptive_avg_pool2d(fitted.features(images)[-1], 1).flatten(1)
        table = torch.stack([(own - other).norm(dim=1) for other in pooled], dim=1)
        return table.sort(dim=1).values[:, :5].mean(1)

    assert torch.allclose(fitted.score(x), by_table(x), rtol=1e-4)
    gradients = []
    for score in (fitted.score, by_table):
        point = x.clone().requires_grad_(True)
        gradients.append(torch.autograd.grad(score(point).sum(), point)[0])
    assert F.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0) > 0.9999
    assert fitted.features(x)[-1].shape[1:] == (512, 2, 2)  # layer 4


def test_few_images_are_all_neighbours(x: Tensor) -> None:
    normal = load_data(category="brick", image_size=64).train
    few: DataLoader[Tensor] = DataLoader([normal[i] for i in range(3)], batch_size=2)  # type: ignore[arg-type]
    scores = []
    for neighbours in (3, 50):
        torch.manual_seed(0)
        built = spade(neighbours=neighbours)
        built.fit(few)
        scores.append(built.eval().score(x))
    assert torch.equal(scores[0], scores[1])


def test_a_training_image_has_a_finite_gradient(fitted: Any) -> None:
    """At distance 0 the root has an infinite slope: it must not make the gradient NaN."""
    image = load_data(category="brick", image_size=64).train[0][None].requires_grad_(True)
    fitted.score(image).sum().backward()
    assert image.grad is not None and image.grad.isfinite().all()


def test_the_map_is_the_distance_to_the_gallery_of_the_nearest_images(
    fitted: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A direct computation of section 3.3, without chunks, and before the smoothing."""

    def pyramid(images: Tensor) -> Tensor:
        maps = fitted.features(images)[:3]
        size = maps[0].shape[-2:]
        return torch.cat([F.interpolate(m, size, mode="bilinear") for m in maps], 1).flatten(2).mT  # (B, P, C)

    unsmoothed = spade(neighbours=5)
    unsmoothed.load_state_dict(fitted.state_dict())
    sides = []

    def unchanged(maps: Tensor, side: int, sigma: float) -> Tensor:
        sides.append((side, sigma))
        return maps

    monkeypatch.setattr(sys.modules[type(fitted).__module__], "gaussian_filter", unchanged)
    found = unsmoothed.eval().anomaly_map(x)
    assert sides == [(9, 1.0)]  # 4 sigma to each side
    for image, row in zip(x, found, strict=True):
        own = pyramid(image[None])[0]
        distances = (fitted.pooled - fitted.features(image[None])[-1].mean((2, 3))).norm(dim=1)
        gallery = pyramid(fitted.images[distances.argsort()[:5]]).flatten(0, 1)
        nearest = torch.stack([(gallery - patch).norm(dim=1).amin() for patch in own])
        expected = F.interpolate(nearest.view(1, 1, 16, 16), (64, 64), mode="bilinear")
        assert torch.allclose(row, expected[0], atol=1e-3 * float(expected.max()), rtol=1e-3)


def test_the_map_has_a_gradient(fitted: Any, x: Tensor) -> None:
    double = spade(neighbours=5)
    double.load_state_dict(fitted.state_dict())
    double.double().eval()
    point, step = x[:1].double().requires_grad_(True), 1e-6
    (gradient,) = torch.autograd.grad(double.anomaly_map(point).mean(), point)
    with torch.no_grad():
        change = double.anomaly_map(point + step * gradient.sign()) - double.anomaly_map(point - step * gradient.sign())
    assert (change.mean() / (2 * step)).item() == pytest.approx(gradient.abs().sum().item(), rel=0.05)


def test_parameters_are_checked() -> None:
    for given, says in (({"neighbours": 0}, "neighbours must be at least 1"), ({"layers": ()}, "at least one layer")):
        with pytest.raises(ValueError, match=says):
            spade(**given)
    with pytest.raises(UserError, match="cannot give layers"):
        spade(layers=(9,))
    assert spade().unranked == "random weights" and type(spade()).needs == "weights"


@pytest.mark.parametrize(
    "file",
    ["mobilenetv2_100.safetensors", "resnet50_v1_to_layer3.fp16.safetensors", "squeezenet1_1.safetensors"],
)
def test_real_bottles_are_told_apart(file: str) -> None:
    from sklearn.metrics import roc_auc_score

    data = load_data("folder", root=shared("data", "mvtec_bottle"), image_size=64)
    built = fit_or_load("spade", data, weights=str(shared("weights", file)))
    scores = built.score(data.test.images(range(len(data.test)))).detach().numpy()
    assert roc_auc_score(data.test.labels, scores) > 0.85
