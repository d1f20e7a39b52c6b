"""Convolutional autoencoder: what it cannot reconstruct is anomalous (Bergmann et al. 2019).

https://arxiv.org/abs/1807.02011 for the SSIM error; the undefended reconstruction baseline of the field.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from ._autoencoder import Reconstruction
from ._similarity import ms_ssim_error, ssim_error
from ._training import train


class Autoencoder(Reconstruction):
    """Score = max over pixels of the smoothed error map.

    error: `l2` (squared difference, mean over channels), `ssim` or `ms-ssim`; training minimises its mean.
    width: channels at half of the size, doubled at each halving below.
    latent: channels of the bottleneck, at 1/8 of the size.
    steps, batch_size, lr: of the training.
    """

    toy_parameters: ClassVar = {"steps": 200, "width": 16}

    def __init__(
        self,
        error: Literal["l2", "ssim", "ms-ssim"] = "l2",
        *,
        width: int = 32,
        latent: int = 32,
        steps: PositiveInt = 4000,
        batch_size: PositiveInt = 8,
        lr: PositiveFloat = 2e-3,
    ):
        super().__init__()
        self.error, self.width, self.latent = error, width, latent
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self._build(width, latent)

    def fit(self, normal: DataLoader[Tensor]) -> None:
        train(
            self,
            self,
            lambda x: self._error(x).mean(),
            normal,
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
        )

    def _error(self, x: Tensor) -> Tensor:
        if self.error == "l2":
            return super()._error(x)
        y = self._reconstruct(x)
        return ssim_error(x, y) if self.error == "ssim" else ms_ssim_error(x, y)
