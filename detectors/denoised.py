"""Denoised smoothing with a diffusion model, a purifier: one network call removes noise of a known size.

Carlini et al. 2023, https://arxiv.org/abs/2206.10550 (after Salman et al. 2020, https://arxiv.org/abs/2003.01908): an
image with Gaussian noise is, up to a factor, a diffusion model's x_k, and the clean image that it predicts goes to the
detector. What is behind the noise may be any function, so `smoothed+denoised+D` is certified like `smoothed+D`; but D
sees an image without noise, and keeps its score. The model is trained on normal images, with the network and loss of
AdvRAD.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from bench import Detector, Purifier, Rng

from ._diffusion import DiffusionDetector, PresetName, predicted_clean, step_of_noise


class Denoised(DiffusionDetector, Purifier):
    """Purified image = the clean image that one network call predicts; it draws no noise of its own.

    sigma: standard deviation of the noise that it expects in an image, in [0, 1] pixels. `bench certify` sets it.
    preset: of the network, as AdvRAD's. steps, batch_size, lr: of its training; the preset's where not given.
    """

    noise_parameter = "sigma"
    scoring_parameters = frozenset({"sigma"})
    toy_parameters: ClassVar = {"steps": 60, "batch_size": 16}

    def __init__(
        self,
        inner: Detector,
        *,
        sigma: float = 0.25,
        preset: PresetName = "small",
        steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
    ):
        super().__init__(inner)
        self.sigma = sigma
        self.randomized = inner.randomized
        self._set_up(preset, steps, batch_size, lr)
        self.k = step_of_noise(sigma, self.alpha_bar)

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self._train_diffusion(normal)

    def purify(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        alpha_bar = self.alpha_bar[self.k - 1]
        clean = predicted_clean(self.network, alpha_bar.sqrt() * (2 * x - 1), alpha_bar, self.k)
        return ((clean + 1) / 2).clamp(0, 1)
