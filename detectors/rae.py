"""Robust autoencoder: X = L + S, the network fits L and leaves the sparse S out (Zhou & Paffenroth, KDD 2017).

https://doi.org/10.1145/3097983.3098052, robust PCA with an autoencoder in place of the low-rank matrix. It alternates
between the weights of D(E(.)), trained on L = X - S, and S = shrink(X - D(E(L))). What it withstands is strange
content among the training images; nothing in it is a defence against a perturbed test image.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ._autoencoder import Reconstruction
from ._training import train


class RobustAutoencoder(Reconstruction):
    """Score = max over pixels of the smoothed squared error of a test image, whose S is taken as 0.

    sparsity: what S is made of: `l1` single values (their RDA), `l21` whole images (their l2,1 norm on the transposed
    S, for outlying instances).
    weight: lambda, as the residual in pixel units that costs as much to explain by the network as by S: an l1
    residual below it, or an image whose root mean square residual is below it, leaves S at 0.
    rounds: outer iterations, after each of which S is computed anew; the steps of the training are divided among them.
    width, latent: of the network, as for `autoencoder`.
    steps, batch_size, lr: of the training.
    """

    toy_parameters: ClassVar = {"steps": 200, "width": 16, "rounds": 4}

    def __init__(
        self,
        sparsity: Literal["l1", "l21"] = "l1",
        weight: float = 0.1,
        rounds: int = 20,
        *,
        width: int = 32,
        latent: int = 32,
        steps: PositiveInt = 4000,
        batch_size: PositiveInt = 8,
        lr: PositiveFloat = 2e-3,
    ):
        super().__init__()
        if weight <= 0:
            raise ValueError(f"weight must be above 0, got {weight}")
        if not 1 <= rounds <= steps:
            raise ValueError(f"rounds must be from 1 to the number of steps ({steps}), got {rounds}")
        self.sparsity, self.weight, self.rounds = sparsity, weight, rounds
        self.width, self.latent = width, latent
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self._build(width, latent)
        # of the training alone, but a resumed one must find them: S (N, 3, H, W), empty after fit, and steps done
        self.register_buffer("sparse", torch.zeros(0))
        self.register_buffer("done", torch.zeros((), dtype=torch.long))
        self.sparse: Tensor
        self.done: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        images = normal.dataset
        self.sparse = torch.zeros(len(images), *images[0].shape, device=self.done.device)  # type: ignore[arg-type]
        self.done.zero_()

        def loss(batch: Tensor) -> Tensor:
            if self.done > 0 and self.done % -(-self.steps // self.rounds) == 0:
                self._shrink_residuals(images)
            self.done += 1
            return self._error(batch).mean()

        cleaned = DataLoader(_WithoutSparse(images, self), batch_size=normal.batch_size)
        train(self, self, loss, cleaned, steps=self.steps, batch_size=self.batch_size, lr=self.lr)
        self.sparse = self.sparse[:0]

    @torch.no_grad()
    def _shrink_residuals(self, images: Dataset[Tensor]) -> None:
        """S = shrink(X - D(E(X - S))) for each training image by itself: normalisation in eval mode."""
        self.eval()
        with torch.autocast(self.sparse.device.type, enabled=False):
            for i in range(len(self.sparse)):
                x = images[i].to(self.sparse)[None]
                self.sparse[i] = shrunk(x - self._reconstruct(x - self.sparse[i]), self.weight, self.sparsity)[0]
        self.train()


class _WithoutSparse(Dataset[Tensor]):
    """The training images as L = X - S, with the S of this moment."""

    def __init__(self, images: Dataset[Tensor], detector: RobustAutoencoder):
        self.images, self.detector = images, detector

    def __len__(self) -> int:
        return len(self.detector.sparse)

    def __getitem__(self, index: Any) -> Tensor:
        return self.images[index] - self.detector.sparse[index].cpu()


def shrunk(residual: Tensor, weight: float, sparsity: str) -> Tensor:
    """The proximal operator of `weight` times the norm: values (l1) or rows (l21, in root mean square) move to 0."""
    if sparsity == "l1":
        return residual.sign() * (residual.abs() - weight).clamp_min(0)
    size = residual.square().flatten(1).mean(1).sqrt().view(-1, *[1] * (residual.ndim - 1))
    return residual * (1 - weight / size.clamp_min(torch.finfo(residual.dtype).tiny)).clamp_min(0)
