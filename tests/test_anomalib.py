"""The models of anomalib behind our interface: its scores, and the gradient that it cuts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import module, shared
from torch import Tensor
from torch.utils.data import DataLoader

from bench import Detector, Progress, UserError, identity_backward, load_data
from bench.checks import of_detector as checks
from bench.checks.probe import toy_data
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec

pytest.importorskip("anomalib", reason="the library is not installed")
MEMBERS: dict[str, Any] = module("anomalib").MEMBERS

FAST = (
    "padim",
    "stfpm",
    "fastflow",
    "cflow",
    "cfa",
    "dfm",
    "reverse_distillation",
    "ganomaly",
    "uflow",
    "fre",
    "dfkde",
)
SLOW = (
    *(
        "csflow",
        "draem",
        "dinomaly",
        "efficient_ad",
        "anomaly_dino",
        "supersimplenet",
        "patchflow",
        "inp_former",
        "l2bt",
    ),
    *("uninet", "glass", "general_ad", "dsr", "foundad", "rad", "mh_patchcore", "super_add"),
)
UNTRAINED = ("draem", "efficient_ad", "supersimplenet", "general_ad", "dsr")
"""The few steps of a toy fit teach these nothing: that anomalies score higher is not to be seen."""


def member(name: str, **given: Any) -> Any:
    target = MEMBERS[name]
    return target(**{**target.toy_parameters, **given})


def candidate(name: str) -> DetectorSpec:
    return DetectorSpec(f"anomalib:{name}", MEMBERS[name].toy_parameters, device="cpu")


SQUASHED: dict[str, Callable[[Tensor], Tensor]] = {
    "supersimplenet": torch.sigmoid,
    "glass": torch.sigmoid,
    "dfkde": lambda surprise: 1 / (1 + torch.exp(-0.05 * (surprise + 12))),
}
"""What anomalib makes of our score: the same order, but flat where the score is extreme."""

_fitted: dict[str, Any] = {}


def fitted(name: str) -> Any:
    """A toy fit of each model serves all tests."""
    if name not in _fitted:
        _fitted[name] = candidate(name).fitted(toy_data())
    return _fitted[name]


def images() -> Tensor:
    data = toy_data()
    return data.test.images([0, 1, 8, 9])


def normal_loader(count: int = 16, size: int = 64) -> DataLoader[Tensor]:
    train, _ = load_data("textures", category="brick", image_size=size).train.split(0)
    return DataLoader([train[i] for i in range(count)], batch_size=8)  # type: ignore[arg-type]


def contract(name: str) -> None:
    fitted(name)  # kept, and found in the cache by the checks
    failed = [c for c in checks.check_detector(candidate(name)) if not c.passed]
    if name in UNTRAINED:
        failed = [c for c in failed if c.name != "direction"]
    assert not failed, failed


def equal_to_anomalib(name: str) -> None:
    """Our score against the library's own forward pass, on the images as it takes them."""
    detector = fitted(name)
    x = images()
    with torch.no_grad():
        own = detector.score(x)
        theirs = detector.model(detector._inner(x)).pred_score.flatten()
    own = SQUASHED[name](own) if name in SQUASHED else own
    torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_every_model_is_tested() -> None:
    assert sorted(FAST + SLOW) == sorted(MEMBERS)


@pytest.mark.parametrize("name", FAST)
def test_the_contract_holds(name: str) -> None:
    contract(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_contract_holds_for_large_models(name: str) -> None:
    contract(name)


@pytest.mark.parametrize("name", [name for name in FAST if name != "cflow"])
def test_the_score_is_that_of_anomalib(name: str) -> None:
    equal_to_anomalib(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_score_of_large_models_is_that_of_anomalib(name: str) -> None:
    equal_to_anomalib(name)


def test_cflow_is_anomalibs_when_the_maxima_are_those_of_the_batch() -> None:
    detector = member("cflow")
    detector.load_state_dict(fitted("cflow").state_dict())
    x = detector._inner(images())
    with torch.no_grad():
        layers = detector._log_likelihoods(x)
        detector.peaks = torch.stack([layer.max() for layer in layers])
        detector.top = detector._sum(layers, x.shape[-2:]).max()
        own = detector.score(images())
        theirs = detector.model(x).pred_score
    torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6)
    with torch.no_grad():  # what the constants are for: their score of an image depends on the other images
        alone = detector.model(x[:1]).pred_score
    assert float((alone - theirs[:1]).abs()) > 1e-4


def test_the_maxima_of_cflow_come_from_the_training_images() -> None:
    detector = fitted("cflow")
    train, _ = toy_data().train.split(0)
    x = torch.stack([train[i] for i in range(len(train))])
    with torch.no_grad():
        layers = detector._log_likelihoods(detector._inner(x))
        assert float(detector._map(detector._inner(x)).min()) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(detector.peaks, torch.stack([layer.max() for layer in layers]))


@pytest.mark.parametrize("name", ["padim", "stfpm"])
def test_anomalibs_own_gradient_is_missing_or_wrong(name: str) -> None:
    """What the rewritten forward pass is for: if this fails, anomalib has mended it."""
    detector = fitted(name)
    extractors = [m for m in detector.model.modules() if hasattr(m, "requires_grad") and hasattr(m, "out_dims")]
    kept = [m.requires_grad for m in extractors]
    x = images()
    point = detector._inner(x).requires_grad_(True)
    (true,) = torch.autograd.grad(detector._map(point).flatten(1).amax(1).sum(), point)
    try:
        for extractor in extractors[:1]:  # the teacher, as anomalib makes it
            extractor.requires_grad = False
        theirs = detector.model(point).pred_score.sum()
    finally:
        for extractor, flag in zip(extractors, kept, strict=True):
            extractor.requires_grad = flag
    if theirs.requires_grad:
        (gradient,) = torch.autograd.grad(theirs, point)
        assert float(torch.cosine_similarity(gradient.flatten(), true.flatten(), dim=0)) < 0.999
    assert float(true.abs().max()) > 0


def test_padim_is_the_mahalanobis_distance() -> None:
    detector = fitted("padim")
    model = detector.model
    x = detector._inner(images())
    with torch.no_grad():
        train, _ = toy_data().train.split(0)
        normal = detector._inner(torch.stack([train[i] for i in range(len(train))]))
        at = model.generate_embedding(model.feature_extractor(normal))[..., 3, 5]
        covariance = torch.cov(at.T) + (0.01 + 1e-5) * torch.eye(at.shape[1])
        delta = model.generate_embedding(model.feature_extractor(x))[0, :, 3, 5] - at.mean(0)
        expected = (delta @ torch.linalg.solve(covariance, delta)).sqrt()
        embedding = model.generate_embedding(model.feature_extractor(x))
        found = (embedding.flatten(2)[0, :, 3 * 16 + 5] - model.gaussian.mean[:, 3 * 16 + 5])[None]
        distance = (found @ model.gaussian.inv_covariance[3 * 16 + 5] @ found.T).sqrt()
    assert float(distance) == pytest.approx(float(expected), rel=1e-3)


class TextTable(Progress):
    def __init__(self) -> None:
        self.calls: list[tuple[int, int, float | None]] = []

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        self.calls.append((step, total, loss))


def test_training_shows_its_loss_and_keeps_its_number_of_steps() -> None:
    detector = member("stfpm", steps=5, batch_size=8)
    detector.progress = TextTable()
    detector.fit(normal_loader())
    assert [call[:2] for call in detector.progress.calls] == [(i, 5) for i in range(1, 6)]
    assert all(call[2] is not None and call[2] > 0 for call in detector.progress.calls)


def test_training_is_silent_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    member("cfa", steps=2).fit(normal_loader())
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_fit_repeats_and_leaves_the_generators_of_others_alone() -> None:
    import numpy as np

    np.random.seed(5)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        detector = member("fastflow", steps=2)
        detector.fit(normal_loader())
        states.append(detector.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_a_training_that_diverges_stops() -> None:
    detector = member("stfpm", steps=3)
    images = [torch.full((3, 64, 64), float("nan"))] * 8
    with pytest.raises(UserError, match="diverged at step 1 of 3: the loss is nan"):
        detector.fit(DataLoader(images, batch_size=8))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("reverse_distillation", 48, "multiples of 32, at least 32, not 48x48"), ("dinomaly", 60, "multiples of 14")],
)
def test_a_size_that_a_model_cannot_take_is_refused(name: str, size: int, message: str) -> None:
    detector = member(name, resize=None)
    with pytest.raises(UserError, match=message):
        detector.fit(normal_loader(4, size))


def test_images_are_resized_inside() -> None:
    detector: Detector = member("padim", resize=32)
    detector.fit(normal_loader(size=64))
    x = images()
    assert detector.anomaly_map(x).shape == (4, 1, 64, 64)  # type: ignore[misc]
    (gradient,) = torch.autograd.grad(detector.score(x.requires_grad_(True)).sum(), x)
    assert gradient.shape == x.shape and float(gradient.abs().amax()) > 0


def test_weights_from_a_file_reach_the_model() -> None:
    path = shared("weights", "mobilenetv2_100.safetensors")
    features = module("_features")
    detector = member("stfpm", backbone=None, weights=path, steps=1)
    detector.fit(normal_loader())
    assert detector.backbone == "mobilenetv2_100" and not detector.unranked
    expected = features.read_weights(path)["conv_stem.weight"]
    state = detector.state_dict()
    assert torch.equal(state["model.teacher_model.feature_extractor.model.conv_stem.weight"], expected)
    assert not torch.equal(state["model.student_model.feature_extractor.conv_stem.weight"], expected)


def test_padim_finds_the_defects_of_real_bottles() -> None:
    from sklearn.metrics import roc_auc_score

    path = shared("weights", "mobilenetv2_100.safetensors")
    data = load_data("folder", root=shared("data"), category="mvtec_bottle", image_size=64)
    train, _ = data.train.split(0)
    detector = MEMBERS["padim"](weights=path)
    detector.fit(DataLoader(train, batch_size=32))
    with torch.no_grad():
        scores = detector.score(data.test.images(range(len(data.test))))
    assert roc_auc_score(data.test.labels, scores.numpy()) > 0.95


def test_a_version_without_a_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MEMBERS["padim"], "source", ("perfection", "Perfection"))
    with pytest.raises(UserError, match=r"anomalib 2\.\d+\.\d+ has no model perfection .*; pip install 'anomalib>=2.7"):
        member("padim").fit(normal_loader(4))
    with pytest.raises(UserError, match="has no model"):
        module("_anomalib").part_of("anomalib.models.image.padim.lightning_model", "Nothing")


@pytest.mark.slow
def test_an_attack_may_pass_the_quantisation_of_dsr() -> None:
    detector = fitted("dsr")
    assert detector.attack_hints().bpda
    x = images().requires_grad_(True)
    plain = detector.score(x)
    assert not plain.requires_grad
    with identity_backward():
        score = detector.score(x)
    torch.testing.assert_close(score.detach(), plain)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())


@pytest.mark.parametrize("name", [name for name in FAST if name not in ("ganomaly", "dfkde")])
def test_the_evidence_is_what_the_score_is_pooled_from(name: str) -> None:
    with torch.no_grad():
        score, evidence = fitted(name).score_with_evidence(images())
    pooled = evidence.sum(1) if name in ("dfm", "fre") else evidence.amax(1)
    torch.testing.assert_close(score, pooled)


def test_only_the_quantised_model_has_no_gradient() -> None:
    rows = [row for row in registry.listing("detectors") if row.name.startswith("anomalib:")]
    assert [row.name for row in rows if not row.differentiable] == ["anomalib:dsr"]


def test_the_score_of_dfkde_is_the_density_of_its_kernels() -> None:
    detector = fitted("dfkde")
    kde, pca = detector.model.classifier.kde_model, detector.model.classifier.pca_model
    features = detector.model.feature_extractor(detector._inner(images()))[detector.layer].mean((2, 3))
    point = ((features - pca.mean) @ pca.singular_vectors / detector.model.classifier.max_length).double()
    whitened = torch.linalg.inv(kde.bw_transform.double())
    kernels = torch.distributions.MultivariateNormal(
        kde.dataset.double() @ whitened, precision_matrix=kde.bw_transform.double() @ kde.bw_transform.double().T
    )
    density = kernels.log_prob(point[:, None]).exp().mean(1)
    torch.testing.assert_close(detector.score(images()).double(), -density.log(), rtol=1e-3, atol=1e-3)


def test_bad_parameters_are_refused() -> None:
    for name, given in (
        ("dfkde", {"scaling": "none"}),
        ("anomaly_dino", {"backbone": "vit_small_patch16_224"}),
        ("anomaly_dino", {"coreset": 2.0}),
        ("uninet", {"backbone": "resnet18"}),
        ("general_ad", {"top": 0}),
        ("mh_patchcore", {"variance": 1.0}),
        ("rad", {"backbone": "resnet18"}),
    ):
        with pytest.raises(ValueError, match=f"{next(iter(given))} must be"):
            member(name, **given)
    with pytest.raises(UserError, match="choose fewer components"):
        member("dfkde", components=6).fit(normal_loader(4))
    with pytest.raises(UserError, match="narrower than pooling=40"):
        member("fre", pooling=40).fit(normal_loader(4))
    with pytest.raises(ValueError, match="backbone must be one of resnet18"):
        member("reverse_distillation", backbone="mobilenetv2_100")
    with pytest.raises(ValueError, match="condition must be a multiple of 4"):
        member("cflow", condition=6)
    with pytest.raises(UserError, match="fewer than fibers=100000"):
        member("cflow", fibers=100000).fit(normal_loader(4))
    with pytest.raises(UserError, match="less than pooling=40"):
        member("dfm", pooling=40).fit(normal_loader(4))
