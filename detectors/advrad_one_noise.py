"""AdvRAD with one noise: the score of a noisy image and of nothing else, to be certified behind that noise.

AdvRAD (https://arxiv.org/abs/2408.04839) draws its noise itself and compares the reconstruction with the clean image.
It sees more than the noisy image, so its noise certifies nothing: a certificate that took it for smoothing noise would
be wrong. This variant is given the noisy image z, predicts the clean one from it at the diffusion step of that noise,
and compares with z. Behind `smoothed` it is a function of z alone, as a certificate needs it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from bench import Rng

from ._diffusion import PresetName, predicted_clean, step_of_noise
from ._training import seeded
from .advrad import AdvRAD

SIGMAS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
"""Noise under which the error of normal images is known after `fit`; in between it is interpolated."""


class AdvRADOneNoise(AdvRAD):
    """Score = max over pixels of |error map - mean error map of normal images|, both under noise that is in the image.

    sigma: standard deviation of the noise that it expects in an image, in [0, 1] pixels. `bench certify` sets it.
    The others as in AdvRAD.
    """

    randomized = False
    noise_parameter = "sigma"
    scoring_parameters = frozenset({"sigma"})
    toy_parameters: ClassVar = {"steps": 60, "batch_size": 16}

    def __init__(
        self,
        preset: PresetName = "small",
        *,
        sigma: float = 0.25,
        filter: int = 7,
        steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
    ):
        super().__init__(preset, filter=filter, steps=steps, batch_size=batch_size, lr=lr)
        self.sigma = sigma
        self.k = step_of_noise(sigma, self.alpha_bar)
        self.register_buffer("normal_errors", torch.zeros(len(SIGMAS), 1, 1, 1))  # (SIGMAS, 1, H, W) after fit
        self.normal_errors: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self._train_diffusion(normal)
        k, totals, count = self.k, [], 0
        with torch.no_grad(), seeded(torch.initial_seed()):
            for images in normal:
                batch = images.to(self.alpha_bar.device)
                count += len(batch)
                totals.append(torch.stack([self._noisy_error(batch, sigma).sum(0) for sigma in SIGMAS]))
        self.normal_errors, self.k = torch.stack(totals).sum(0) / count, k

    def anomaly_map(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B, 1, H, W): how far the reconstruction error of this noisy image is from that of normal ones."""
        return (self._error_map(x, x) - self._expected()).abs()

    def _reconstruct(self, x: Tensor, noise: Tensor) -> Tensor:
        """x in [-1, 1], with its noise -> the clean image predicted from it."""
        alpha_bar = self.alpha_bar[self.k - 1]
        return predicted_clean(self.network, alpha_bar.sqrt() * x, alpha_bar, self.k)

    def _noisy_error(self, images: Tensor, sigma: float) -> Tensor:
        self.k = step_of_noise(sigma, self.alpha_bar)
        noisy = images + sigma * torch.randn_like(images)
        return self._error_map(noisy, noisy)

    def _expected(self) -> Tensor:
        """(1, H, W): the error of normal images at this sigma; outside of what is known, that of the nearest."""
        above = next((i for i, known in enumerate(SIGMAS) if known >= self.sigma), len(SIGMAS) - 1)
        below = max(above - 1, 0)
        span = SIGMAS[above] - SIGMAS[below]
        share = min(max((self.sigma - SIGMAS[below]) / span, 0.0), 1.0) if span else 1.0
        return torch.lerp(self.normal_errors[below], self.normal_errors[above], share)
