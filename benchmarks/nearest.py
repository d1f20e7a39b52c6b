"""A plug-in for measurements: the distance of patches to the nearest training patch at their place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng


class Nearest(Detector):
    """The largest of the distances, each in root mean square and standardised on leave-one-out distances."""

    def __init__(self, side: int = 8, stride: int = 4):
        super().__init__()
        self.side, self.stride = side, stride
        self.register_buffer("bank", torch.zeros(1, 1, 1))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))

    def patches(self, x: Tensor) -> Tensor:
        """(P, B, D), divided so that a distance is a root mean square."""
        flat = F.unfold(x, self.side, stride=self.stride)
        return flat.permute(2, 0, 1) / flat.shape[1] ** 0.5

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self.bank = torch.cat([self.patches(images) for images in normal], 1).contiguous()
        apart = torch.cdist(self.bank, self.bank)
        apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        least = apart.amin(2)
        self.mean, self.scale = least.mean(1), least.std(1).clamp_min(1e-6)

    def local(self, x: Tensor) -> Tensor:
        """(B, P)"""
        return ((torch.cdist(self.patches(x), self.bank).amin(2).T - self.mean) / self.scale).to(x)

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.local(x).amax(1)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        local = self.local(x)
        return local.amax(1), local
