"""The contract of a detector: every built-in one meets every check, and planted violations are caught."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng
from bench.checks import of_detector as checks
from bench.checks.probe import TOY_IMAGES, Probe, toy_data
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec

ROWS = [row for row in registry.listing("detectors") if ":" not in row.name]  # a family has a test of its own
WHOLE = [f"{row.name}+autoencoder" if row.wraps else row.name for row in ROWS]


MINUTES = {"adp+autoencoder"}
"""Which take them; another of their kind is always tried."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in MINUTES), id=name) for name in WHOLE]
)
def test_every_detector_keeps_the_contract(name: str) -> None:
    candidate = DetectorSpec(name, DetectorSpec(name).toy, device="cpu")
    found = list(checks.check_detector(candidate))
    assert {c.name for c in found} == {"fit", *checks.CHECKS}
    assert [f"{c.name}: {c.sentence}" for c in found if not c.passed] == []


class Honest(Detector):
    """Distance to the mean normal image after a small fixed convolution: nothing is wrong with it."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.width = width
        kernel = torch.randn(width, 3, 5, 5, generator=torch.Generator().manual_seed(0)) / 5
        self.register_buffer("kernel", kernel)
        self.register_buffer("mean", torch.zeros(1))
        self.kernel: Tensor
        self.mean: Tensor

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(F.conv2d(x, self.kernel))

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self.mean = torch.cat([self.features(x) for x in normal]).mean(0, keepdim=True)

    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return (self.features(x) - self.mean).square().flatten(1).sum(1)


class NoPath(Honest):
    def features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().features(x)


class HalfDetached(Honest):
    """As a student-teacher pair whose teacher was detached: the gradient is there, and wrong."""

    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        teacher = self.features(x).detach()
        student = torch.tanh(1.1 * F.conv2d(x, self.kernel))
        return (student - teacher).square().flatten(1).sum(1) + super().score(x).detach() * 0.01


class WrongAtAnomalies(Honest):
    """The gradient of one class is masked, and that of the other is right."""

    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        score, anomalous = super().score(x), torch.arange(len(x)) >= len(x) // 2  # as the checks order them
        return torch.where(anomalous, score.detach() + 0.01 * x.flatten(1).sum(1), score)


class FlatAtAnomalies(Honest):
    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        score, anomalous = super().score(x), torch.arange(len(x)) >= len(x) // 2
        return torch.where(anomalous, (score.detach() * 4).round(), score)


class Rounded(Honest):
    def features(self, x: Tensor) -> Tensor:
        return super().features((x * 255).round() / 255)


class ThroughNumpy(Honest):
    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        features = self.features(x).detach().numpy()
        return torch.from_numpy(((features - self.mean.numpy()) ** 2).sum((1, 2, 3))).to(x)


class BatchDependent(Honest):
    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        score = super().score(x)
        return score / score.max()


class HiddenNoise(Honest):
    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().score(x) * (1 + 0.01 * torch.rand(len(x)))


class NotRandom(Honest):
    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x)


class FrozenNoise(Honest):
    """Ignores its source when there is one."""

    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) + torch.rand(len(x))


class UpsideDown(Honest):
    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return -super().score(x)


class Drifting(Honest):
    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        self.mean = 0.999 * self.mean + 0.001 * self.features(x.detach()).mean(0, keepdim=True)
        return super().score(x)


class Forgetful(Honest):
    """Keeps what it learned where no state dict sees it."""

    def fit(self, normal: DataLoader[Tensor]) -> None:
        super().fit(normal)
        self.level = float(self.mean.mean())

    def score(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().score(x) + getattr(self, "level", 3.0)


class Unrecorded(Honest):
    def __init__(self, depth: int = 2):
        super().__init__()


class WrongMap(Honest):
    def anomaly_map(self, x: Tensor) -> Tensor:
        return self.features(x).mean(1)


class AnothersEvidence(Honest):
    """Inherits the local scores of a maximum, and is a mean."""

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        local = (self.features(x) - self.mean).square().flatten(1)
        return local.amax(1), local


class WithEvidence(Honest):
    def local(self, x: Tensor) -> Tensor:
        return (self.features(x) - self.mean).square().flatten(1)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        return self.score(x), self.local(x)


class DetachedEvidence(WithEvidence):
    def local(self, x: Tensor) -> Tensor:
        return super().local(x).detach()


class BatchEvidence(WithEvidence):
    def local(self, x: Tensor) -> Tensor:
        return super().local(x) / super().local(x).max()


class MisplacedEvidence(WithEvidence):
    def local(self, x: Tensor) -> Tensor:
        return super().local(x).roll(1, 0)


class InfiniteEvidence(WithEvidence):
    def local(self, x: Tensor) -> Tensor:
        return super().local(x).log() - torch.inf


class EvidenceAsMap(WithEvidence):
    def local(self, x: Tensor) -> Tensor:
        return (self.features(x) - self.mean).square().sum(1)


PLANTED = {
    NoPath: "gradient", HalfDetached: "gradient", WrongAtAnomalies: "gradient", FlatAtAnomalies: "gradient",
    Rounded: "gradient", ThroughNumpy: "gradient",
    BatchDependent: "rows", HiddenNoise: "randomness", NotRandom: "randomness", FrozenNoise: "randomness",
    UpsideDown: "direction", Drifting: "state", Forgetful: "round trip", Unrecorded: "parameters", WrongMap: "map",
    AnothersEvidence: "evidence", DetachedEvidence: "evidence", BatchEvidence: "evidence",
    MisplacedEvidence: "evidence", InfiniteEvidence: "evidence", EvidenceAsMap: "evidence",
}  # fmt: skip


def probe_of(kind: Callable[[], Detector]) -> Probe:
    data = toy_data(32)
    detector = kind()
    detector.fit(DataLoader(data.train, batch_size=16))
    return Probe(detector.eval(), data.test.images(range(len(data.test))), data.test.ids, data)


@pytest.mark.parametrize("kind", [Honest, WithEvidence])
def test_an_honest_detector_passes_every_check(kind: type[Honest]) -> None:
    probe = probe_of(kind)
    assert {name: check(probe) for name, check in checks.CHECKS.items() if not check(probe)[0]} == {}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda k: k.__name__)
def test_a_planted_violation_is_caught(kind: type[Honest]) -> None:
    passed, sentence = checks.CHECKS[PLANTED[kind]](probe_of(kind))
    assert not passed
    assert sentence


def test_the_toy_task_is_what_it_says() -> None:
    data = toy_data()
    assert np.bincount(data.test.labels).tolist() == [TOY_IMAGES, TOY_IMAGES]
    assert data.test.labels == sorted(data.test.labels)
    assert copy.deepcopy(data).test.fingerprint == data.test.fingerprint
