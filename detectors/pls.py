"""Principal latent space: an adversarially trained autoencoder with few latent directions (Lo, Oza, Patel 2022).

https://arxiv.org/abs/2108.11168 (PrincipaLS). From the paper: the latents pass a cascade of two PCAs and back, vector
PCA over channels and then spatial PCA over positions, whose means and components are learned incrementally from the
batches of an adversarial training; the score is the reconstruction error through the cascade.

Decided here: how many components are kept (1 and 8); moving averages of the mean and the covariance, from which the
components follow by one orthogonal iteration per training step (no sign or order of eigenvectors can flip between
batches, and they stay orthonormal); no gradient flows into them; the network, the training attack with the clean
image as its target, and the error map are those of `adv-autoencoder`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from bench import UserError

from ._autoencoder import SHRINKS
from .adv_autoencoder import AdversarialAutoencoder


class PrincipalLatentSpace(AdversarialAutoencoder):
    """Score = max over pixels of the smoothed squared error of the reconstruction from the principal latents.

    vectors, positions: components kept by the vector and by the spatial PCA; vectors * positions numbers describe
    an image.
    momentum: weight of a new batch in the moving averages.
    eps, norm, attack_steps, width, latent, steps, batch_size, lr: as for `adv-autoencoder`.
    """

    toy_parameters: ClassVar = {"steps": 150, "width": 16, "attack_steps": 2}

    def __init__(
        self,
        vectors: int = 1,
        positions: int = 8,
        *,
        momentum: float = 0.1,
        eps: str | float = "2/255",
        norm: Literal["linf", "l2"] = "linf",
        attack_steps: int = 3,
        width: int = 32,
        latent: int = 32,
        steps: PositiveInt = 2000,
        batch_size: PositiveInt = 8,
        lr: PositiveFloat = 2e-3,
    ):
        super().__init__(eps, norm, attack_steps, width=width, latent=latent, steps=steps, batch_size=batch_size, lr=lr)
        if not 1 <= vectors <= latent:
            raise ValueError(f"vectors must be from 1 to the latent channels ({latent}), got {vectors}")
        if positions < 1:
            raise ValueError(f"positions must be at least 1, got {positions}")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be above 0 and at most 1, got {momentum}")
        self.vectors, self.positions, self.momentum = vectors, positions, momentum
        self.over_channels = _MovingPCA()
        self.over_positions = _MovingPCA()
        self.register_buffer("grid", torch.zeros(2, dtype=torch.long))  # positions of the latents: rows, columns
        self.grid: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        height, width = (-(-side // SHRINKS) for side in normal.dataset[0].shape[-2:])
        if self.positions > height * width:
            raise UserError(
                f"pls: positions={self.positions} is more than the {height} x {width} positions of the latents; "
                "give fewer, or larger images"
            )
        self.grid = torch.tensor([height, width], device=self.grid.device)
        self.over_channels.start(self.latent, self.vectors)
        self.over_positions.start(height * width, self.positions)
        super().fit(normal)

    def _reconstruct(self, x: Tensor) -> Tensor:
        latents = self._encode(x)
        if latents.shape[-2:] != tuple(self.grid.tolist()):
            height, width = (SHRINKS * self.grid).tolist()
            raise UserError(
                f"pls was fitted on images of up to {height} x {width} pixels, and its spatial components fit "
                f"no other size; got {x.shape[-2]} x {x.shape[-1]}"
            )
        with torch.autocast(x.device.type, enabled=False):
            principal = self._principal(latents.to(self.over_channels.mean))
        return self._decode(principal, x)

    def _principal(self, latents: Tensor) -> Tensor:
        """(B, latent, h, w) -> the same, on the principal space; while training, its components follow the latents."""
        vectors = latents.flatten(2).mT  # (B, positions, channels)
        if self.training:
            self.over_channels.follow(vectors.detach().flatten(0, 1), self.momentum)
        maps = self.over_channels.reduce(vectors).mT  # (B, vectors, positions)
        if self.training:
            self.over_positions.follow(maps.detach().flatten(0, 1), self.momentum)
        maps = self.over_positions.restore(self.over_positions.reduce(maps))
        return self.over_channels.restore(maps.mT).mT.reshape(latents.shape)


class _MovingPCA(torch.nn.Module):
    """The leading principal components (d, k) of rows (n, d) that keep changing."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "covariance", "components", "batches"):
            self.register_buffer(name, torch.zeros(0))
        self.mean: Tensor
        self.covariance: Tensor
        self.components: Tensor
        self.batches: Tensor

    def start(self, size: int, count: int) -> None:
        like = self.mean
        self.mean, self.covariance = like.new_zeros(size), like.new_zeros(size, size)
        self.components = torch.linalg.qr(torch.randn(size, count)).Q.to(like)
        self.batches = like.new_zeros(())

    @torch.no_grad()
    def follow(self, rows: Tensor, momentum: float) -> None:
        """One batch: moving averages, plain ones until they reach `momentum`, and one orthogonal iteration."""
        self.batches += 1
        share = max(momentum, 1 / float(self.batches))
        shift = rows.mean(0) - self.mean
        centred = rows - rows.mean(0)
        found = centred.mT @ centred / len(rows) + (1 - share) * torch.outer(shift, shift)
        self.covariance.lerp_(found, share)
        self.mean += share * shift
        reached = self.covariance @ self.components
        # where the batches span fewer directions, the old ones must not be lost
        floor = 1e-6 * self.covariance.diagonal().mean()
        self.components.copy_(torch.linalg.qr(reached + floor * self.components).Q)

    def reduce(self, rows: Tensor) -> Tensor:
        """(..., d) -> (..., k)."""
        return (rows - self.mean) @ self.components

    def restore(self, scores: Tensor) -> Tensor:
        """(..., k) -> (..., d)."""
        return scores @ self.components.mT + self.mean
