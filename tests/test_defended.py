"""Autoencoders with a defence: their training attacks, their decompositions and their projections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Killed, KilledAt, detector, module, small_data
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bench import Detector, Progress, ThreatModel, UserError


def fitted(name: str, images: Dataset[Tensor] | None = None, progress: Progress | None = None, **given: Any) -> Any:
    built = detector(name, **{"steps": 3, "batch_size": 4, "width": 8, **given})
    built.progress = progress or Progress()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built.fit(DataLoader(images or small_data(size=16).train, batch_size=8))
    return built.eval()


@pytest.mark.parametrize("name", ["adv-autoencoder", "rae", "pls", "apae"])
def test_a_killed_training_resumes_to_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("_training"), "SAVE_EVERY_SECONDS", 0.0)
    given = {"rae": {"rounds": 4}, "pls": {"positions": 3}}.get(name, {})

    def fit(progress: Progress) -> Detector:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            built: Detector = detector(name, width=8, batch_size=4, steps=8, **given)
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
    for name in ("adv-autoencoder", "pls"):
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


# Principal latent space


def test_the_moving_pca_finds_the_leading_components() -> None:
    """Of rows with a known covariance, batch by batch; and its averages are plain ones until momentum is reached."""
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    rows = torch.randn(20, 200, 6) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.2, 0.1]) @ rotation + 2
    pca = module("pls")._MovingPCA()
    pca.start(6, 2)
    for batch in rows:
        pca.follow(batch, 0.05)
    assert torch.allclose(pca.mean, rows.flatten(0, 1).mean(0), atol=1e-5)
    assert torch.allclose(pca.covariance, torch.cov(rows.flatten(0, 1).mT, correction=0), atol=1e-4)
    leading = torch.linalg.eigh(pca.covariance).eigenvectors[:, -2:]
    assert torch.linalg.svdvals(leading.mT @ pca.components).min() > 0.999
    assert torch.allclose(pca.components.mT @ pca.components, torch.eye(2), atol=1e-5)
    restored = pca.restore(pca.reduce(rows[0]))
    assert torch.allclose(restored, pca.mean + (rows[0] - pca.mean) @ leading @ leading.mT, atol=0.1)


def test_pls_latents_have_as_many_degrees_of_freedom_as_components() -> None:
    """After the cascade, and not before: 2 vectors x 3 positions describe an image; a second pass changes nothing."""
    built = fitted("pls", vectors=2, positions=3, latent=8)
    latents = torch.randn(40, 8, 2, 2)
    principal = built._principal(latents)
    assert torch.allclose(built._principal(principal), principal, atol=1e-5)
    for rows, rank in ((latents, 32), (principal, 6)):
        assert torch.linalg.matrix_rank((rows - rows.mean(0)).flatten(1), atol=1e-4) == rank


def test_pls_says_which_sizes_it_takes() -> None:
    built = fitted("pls", positions=4)
    with pytest.raises(UserError, match="up to 16 x 16 pixels.*got 32 x 16"):
        built.score(torch.rand(1, 3, 32, 16))
    with pytest.raises(UserError, match="positions=5 is more than the 2 x 2"):
        fitted("pls", positions=5)
    with pytest.raises(ValueError, match="vectors"):
        detector("pls", vectors=33)


# Approximate projection


def test_apae_search_lowers_the_error_and_stops_at_the_best_latents() -> None:
    """On a linear decoder the nearest output has a closed form, which a long search must reach."""
    built = fitted("apae", latent=2, steps_projection=2000, lr_projection=0.05)
    torch.manual_seed(0)
    matrix = torch.randn(3 * 16 * 16, 2 * 2 * 2) / 16
    built.decoder = nn.Sequential(nn.Flatten(), Multiply(matrix), nn.Unflatten(1, (3, 16, 16)))
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        latents = built._project(x)
    best = torch.linalg.lstsq(matrix, x.flatten(1).mT).solution.mT
    assert torch.allclose(latents.flatten(1), best, atol=1e-3)
    assert not torch.allclose(built._encode(x).flatten(1), best, atol=0.1)


class Multiply(nn.Module):
    def __init__(self, matrix: Tensor):
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.mT


def test_apae_gradient_is_that_of_the_search_written_out() -> None:
    """Against autograd through a plain loop that keeps every step; `bpda` gives another gradient, same scores."""
    built = fitted("apae", steps_projection=4, lr_projection=0.5).double().requires_grad_(False)
    built.decoder[-2].weight *= 20  # a barely trained decoder does not care about its latents
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def written_out(images: Tensor) -> Tensor:
        latents = built.encoder(images)
        for _ in range(4):
            (step,) = torch.autograd.grad(
                (images - built.decoder(latents)).square().sum() / 2, latents, create_graph=True
            )
            latents = latents - 0.5 * step
        return (built.weights * (images - built.decoder(latents)).square() / 2).flatten(1).mean(1)

    def gradient(score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        point = x.clone().requires_grad_(True)
        value = score(point)
        return value.detach(), torch.autograd.grad(value.sum(), point)[0]

    expected, found = gradient(written_out), gradient(built.score)
    assert torch.allclose(found[0], expected[0])
    assert torch.allclose(found[1], expected[1])
    built.gradient = "bpda"
    bypassed = gradient(built.score)
    assert torch.equal(bypassed[0], found[0])
    assert (bypassed[1] - found[1]).norm() > 1e-3 * found[1].norm()  # the above agree to 1e-5


def test_apae_weights_are_the_inverse_median_errors() -> None:
    images = small_data(size=16).train
    built = fitted("apae", images)
    x = torch.stack([images[i] for i in range(len(images))])
    with torch.no_grad():
        errors = (x - built.decoder(built.encoder(x))).square() / 2
    median = 1 / built.weights - 1e-3
    assert (errors <= median + 1e-6).float().mean(0).min() >= 0.5
    assert (errors >= median - 1e-6).float().mean(0).min() >= 0.5
    with pytest.raises(UserError, match="every pixel of 16 x 16 images; got 24 x 16"):
        built.score(torch.rand(1, 3, 24, 16))
