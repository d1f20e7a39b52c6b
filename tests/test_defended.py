"""Autoencoders with a defence: their training attacks, their decompositions and their projections."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_data
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench import Detector, Progress, ThreatModel, registry


def detector(name: str, **given: Any) -> Any:
    return registry.load("detectors", name).target(**given)


def module(name: str) -> Any:
    return importlib.import_module(
        f"{registry.load('detectors', 'autoencoder').target.__module__.rpartition('.')[0]}.{name}"
    )


def fitted(name: str, images: Dataset[Tensor] | None = None, progress: Progress | None = None, **given: Any) -> Any:
    built = detector(name, **{"steps": 3, "batch_size": 4, "width": 8, **given})
    built.progress = progress or Progress()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built.fit(DataLoader(images or small_data(size=16).train, batch_size=8))
    return built.eval()


class Killed(Exception):
    pass


class KilledAt(Progress):
    def __init__(self, step: int, checkpoint: Path):
        self.step, self.checkpoint = step, checkpoint

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        if step == self.step:
            raise Killed


@pytest.mark.parametrize("name", ["adv-autoencoder", "rae"])
def test_a_killed_training_resumes_to_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("_training"), "SAVE_EVERY_SECONDS", 0.0)
    given = {"steps": 8, "rounds": 4} if name == "rae" else {"steps": 8}

    def fit(progress: Progress) -> Detector:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            built: Detector = detector(name, width=8, batch_size=4, **given)
            built.progress = progress
            built.fit(DataLoader(small_data(size=16).train, batch_size=8))
        return built

    whole = fit(Progress())
    for step in (4, 6):
        with pytest.raises(Killed):
            fit(KilledAt(step, tmp_path / "training.pt"))
    resumed = fit(KilledAt(0, tmp_path / "training.pt"))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


# Adversarial training


@pytest.mark.parametrize(("norm", "eps"), [("linf", "8/255"), ("l2", "0.5")])
def test_the_training_attack_reaches_the_worst_of_a_linear_loss(norm: str, eps: str) -> None:
    """<w, x> grows most by eps |w|_1 in linf and eps |w|_2 in l2; the images stay in the ball and in [0, 1]."""
    torch.manual_seed(0)
    x, w = torch.full((3, 3, 8, 8), 0.5), torch.randn(3, 8, 8)
    threat = ThreatModel(norm, eps)
    worst = module("_autoencoder").worst_in_ball(lambda images: (images * w).sum(), x, threat, 10)
    assert threat.violation(worst, x) is None
    gained = ((worst - x) * w).flatten(1).sum(1)
    most = threat.radius * (w.abs().sum() if norm == "linf" else w.norm())
    assert torch.allclose(gained, most.expand(3), rtol=0.02)


def test_adversarial_training_meets_attacked_images_and_the_clean_target(monkeypatch: pytest.MonkeyPatch) -> None:
    built = detector("adv-autoencoder", eps="8/255", width=8)
    seen: list[tuple[bool, Tensor]] = []
    honest = built._distance

    def spy(images: Tensor, target: Tensor) -> Tensor:
        seen.append((built.training, (images - target).detach()))
        return honest(images, target)

    monkeypatch.setattr(built, "_distance", spy)
    built.train()
    x = torch.rand(2, 3, 16, 16)
    running = built.encoder[1].running_mean.clone()
    built._loss(x)
    assert [training for training, _ in seen] == [False] * built.attack_steps + [True]
    assert not torch.equal(built.encoder[1].running_mean, running)
    for _, shift in seen:
        assert 0 < shift.abs().max() <= 8 / 255 + 1e-6


def test_training_attacks_refuse_impossible_budgets() -> None:
    for name in ("adv-autoencoder",):
        for given in ({"eps": "8"}, {"eps": "two"}, {"eps": -1}, {"attack_steps": 0}):
            with pytest.raises(ValueError, match=next(iter(given))):
                detector(name, **given)
    assert detector("adv-autoencoder", eps=0.5).parameters_record["eps"] == "0.5"


# Robust autoencoder


@pytest.mark.parametrize("sparsity", ["l1", "l21"])
def test_shrinking_is_the_proximal_operator(sparsity: str) -> None:
    """No small change lowers |S - R|^2 / 2 + weight |S|; in l21 both are counted in root mean square."""
    shrunk = module("rae").shrunk
    torch.manual_seed(0)
    residual, weight = torch.randn(6, 3, 4, 4, dtype=torch.float64) * torch.arange(6).view(-1, 1, 1, 1) / 3, 0.7
    found = shrunk(residual, weight, sparsity)

    def objective(s: Tensor) -> Tensor:
        close = (s - residual).square().flatten(1)
        if sparsity == "l1":
            return close.sum(1) / 2 + weight * s.abs().flatten(1).sum(1)
        return close.mean(1) / 2 + weight * s.square().flatten(1).mean(1).sqrt()

    assert (found == 0).any() and (found != 0).any()
    for _ in range(50):
        assert (objective(found + 1e-3 * torch.randn_like(found)) >= objective(found) - 1e-12).all()


class Fixed(Dataset[Tensor]):
    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Tensor:
        return self.images[index]


def test_rae_finds_the_planted_outlier_among_the_training_images() -> None:
    """One training image has a white square: S must hold it, and hardly anything else."""
    torch.manual_seed(0)
    images = (0.4 + 0.02 * torch.randn(24, 3, 16, 16)).clamp(0, 1)
    images[5, :, 4:8, 4:8] = 1
    kept: list[Tensor] = []

    class Watch(Progress):
        def update(self, step: int, total: int, loss: float | None = None) -> None:
            kept[:] = [built.sparse.clone()]

    built = detector("rae", weight=0.2, rounds=8, steps=80, width=8, latent=2, batch_size=8)
    built.progress = Watch()
    torch.manual_seed(0)
    built.fit(DataLoader(Fixed(images), batch_size=8))
    size = kept[0].abs().sum(1)
    assert size[5, 4:8, 4:8].mean() > 0.2
    size[5, 4:8, 4:8] = 0
    assert size.mean() < 1e-3
    assert built.sparse.numel() == 0
