"""The models of anomalib behind our interface: its scores, and the gradient that it cuts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from anomalib_members import MEMBERS, fitted, images, member, spec
from torch import Tensor

from bench import identity_backward
from bench.checks import of_detector as checks
from bench.checks.probe import toy_data
from bench.plugins import registry

FAST = (
    "padim", "stfpm", "fastflow", "cflow", "cfa", "dfm", "reverse_distillation", "ganomaly", "uflow", "fre", "dfkde",
)  # fmt: skip
SLOW = (
    "csflow", "draem", "dinomaly", "efficient_ad", "anomaly_dino", "supersimplenet", "patchflow", "inp_former", "l2bt",
    "uninet", "glass", "general_ad", "dsr", "foundad", "rad", "mh_patchcore", "super_add",
)  # fmt: skip
UNTRAINED = ("draem", "efficient_ad", "supersimplenet", "general_ad", "dsr")
"""The few steps of a toy fit teach these nothing: that anomalies score higher is not to be seen."""

SQUASHED: dict[str, Callable[[Tensor], Tensor]] = {
    "supersimplenet": torch.sigmoid,
    "glass": torch.sigmoid,
    "dfkde": lambda surprise: 1 / (1 + torch.exp(-0.05 * (surprise + 12))),
}
"""What anomalib makes of our score: the same order, but flat where the score is extreme."""


def contract(name: str) -> None:
    fitted(name)  # kept, and found in the cache by the checks
    failed = [c for c in checks.check_detector(spec(name)) if not c.passed]
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SLOW if name not in ("supersimplenet", "mh_patchcore")])
def test_the_evidence_of_large_models_is_what_the_score_is_pooled_from(name: str) -> None:
    hundredth, thousandth = ("anomaly_dino", "dinomaly", "inp_former", "rad"), ("l2bt", "super_add")
    with torch.no_grad():
        score, evidence = fitted(name).score_with_evidence(images())
    size = evidence.shape[1]
    highest = {"foundad": 10, "general_ad": 10, "csflow": size}
    highest |= dict.fromkeys(hundredth, max(1, size // 100)) | dict.fromkeys(thousandth, max(1, size // 1000))
    pooled = evidence.topk(highest.get(name, 1)).values.mean(1)
    torch.testing.assert_close(score, pooled)


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


@pytest.mark.parametrize("name", ["padim", "cfa"])
def test_the_library_cuts_the_gradient(name: str) -> None:
    """What switching its cuts off is for: if this fails, anomalib has mended it."""
    detector = fitted(name)
    x = images().requires_grad_(True)
    (true,) = torch.autograd.grad(detector.score(x).sum(), x)
    assert bool((true.flatten(1).abs().amax(1) > 0).all())
    assert not detector.model(detector._inner(x)).pred_score.requires_grad


def test_the_library_lets_the_gradient_of_the_student_pass_alone() -> None:
    detector = fitted("stfpm")
    x = images().requires_grad_(True)
    (true,) = torch.autograd.grad(detector.score(x).sum(), x)
    (theirs,) = torch.autograd.grad(detector.model(detector._inner(x)).pred_score.sum(), x)
    assert float(torch.cosine_similarity(theirs.flatten(), true.flatten(), dim=0)) < 0.999


def test_a_forward_pass_that_fails_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = fitted("padim")

    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(detector.model.feature_extractor.feature_extractor, "forward", fails)  # called within no_grad
        with pytest.raises(RuntimeError, match="out of luck"):
            detector.score(images())
    x = torch.ones(2, requires_grad=True)
    assert torch.is_grad_enabled() and not x.detach().requires_grad
    assert not any(m._forward_hooks for m in detector.model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["csflow", "general_ad", "inp_former"])
def test_what_was_scored_can_be_copied(name: str) -> None:
    """A model that kept the graph of a batch could not; one of torch.fx is in training mode once it is copied."""
    detector = fitted(name)
    score = detector.score(images().requires_grad_(True))
    torch.testing.assert_close(copy.deepcopy(detector).score(images()), score.detach())


def test_a_listing_knows_of_every_member_what_its_class_says() -> None:
    listed = [row for row in registry.listing("detectors") if row.name.startswith("anomalib:")]
    rows = {row.name.partition(":")[2]: row for row in listed}
    assert {name: row.needs for name, row in rows.items()} == {name: m.needs for name, m in MEMBERS.items()}
    assert all(row.summary == MEMBERS[name].__doc__.splitlines()[0] for name, row in rows.items())
    assert [name for name, row in rows.items() if not row.differentiable] == ["dsr"]
