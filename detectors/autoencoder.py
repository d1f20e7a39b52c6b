"""Convolutional autoencoder: what it cannot reconstruct is anomalous (Bergmann et al. 2019).

https://arxiv.org/abs/1807.02011 for the SSIM error; the undefended reconstruction baseline of the field.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng

from ._similarity import gaussian_filter, ms_ssim_error, ssim_error
from ._training import train

SMOOTHING = 1.0  # sigma of the Gaussian over the error map at 64 pixels: the 4 at 256 pixels that the field uses


class Autoencoder(Detector):
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
        steps: int = 4000,
        batch_size: int = 8,
        lr: float = 2e-3,
    ):
        super().__init__()
        self.error, self.width, self.latent = error, width, latent
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self.encoder = nn.Sequential(
            *_block(nn.Conv2d(3, width, 4, stride=2, padding=1)),
            *_block(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            *_block(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
            nn.Conv2d(4 * width, latent, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            *_block(nn.Conv2d(latent, 4 * width, 3, padding=1)),
            *_block(nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1)),
            *_block(nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

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

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.anomaly_map(x).flatten(1).amax(1)

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): the smoothed reconstruction error."""
        sigma = SMOOTHING * min(x.shape[-2:]) / 64
        return gaussian_filter(self._error(x), 2 * round(2 * sigma) + 1, sigma)

    def _error(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        padded = F.pad(x, (0, -size[1] % 8, 0, -size[0] % 8), mode="replicate")
        y = self.decoder(self.encoder(padded))[..., : size[0], : size[1]].float()
        if self.error == "l2":
            return (x - y).square().mean(1, keepdim=True)
        return ssim_error(x, y) if self.error == "ssim" else ms_ssim_error(x, y)


def _block(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(0.2)
