"""AnoDDPM: partial diffusion with simplex noise, and the way back (Wyatt, Leach, Schmon, Willcocks, CVPR-W 2022).

https://doi.org/10.1109/CVPRW56347.2022.00080. Gaussian noise hides an anomaly only where it is small; noise with low
frequencies hides large ones as well. A diffusion model is trained on normal images with octaves of simplex noise
(six, from 64 pixels down, each 0.8 times the one before), an image is noised to step t of 1000, far from pure noise,
and denoised step by step: what does not come back was not normal.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from bench import Rng

from ._autoencoder import smoothed
from ._diffusion import (
    DIFFUSION_STEPS,
    DiffusionReconstruction,
    PresetName,
    add_noise,
    ancestral_step,
    predicted_clean,
    spaced_steps,
)
from ._simplex import simplex_noise


class AnoDDPM(DiffusionReconstruction):
    """Score = max over pixels of the smoothed squared reconstruction error; noise drawn per score.

    preset: `small` (0.6 M parameters, 64 to 128 pixels, minutes on a CPU) or `paper` (256 pixels, a GPU).
    t: diffusion step to which images are noised, of 1000; the paper takes 250.
    reverse_steps: network calls on the way back, at evenly spaced steps; the paper makes all t. With 1 the clean
    image is predicted in one shot.
    steps, batch_size, lr: of the training; the preset's where not given.

    Noise has unit variance here, where the authors add octaves up without scaling, and each colour has its own.
    """

    scoring_parameters: ClassVar[frozenset[str]] = frozenset({"t", "reverse_steps"})
    toy_parameters: ClassVar = {"steps": 60, "batch_size": 16, "reverse_steps": 2}

    def __init__(
        self,
        preset: PresetName = "small",
        *,
        t: int = 250,
        reverse_steps: int = 5,
        steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
    ):
        super().__init__()
        if not 1 <= t <= DIFFUSION_STEPS:
            raise ValueError(f"t must be a diffusion step from 1 to {DIFFUSION_STEPS}, got {t}")
        if not 1 <= reverse_steps <= t:
            raise ValueError(f"reverse_steps must be from 1 to t ({t}), got {reverse_steps}")
        self.t, self.reverse_steps = t, reverse_steps
        self._set_up(preset, steps, batch_size, lr)

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self._train_diffusion(normal, simplex_noise)

    def anomaly_map(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B, 1, H, W): squared reconstruction error in [0, 1] pixel units, mean over channels, smoothed."""
        uniform = torch.rand_like if rng is None else rng.uniform
        noises = [simplex_noise(x, uniform) for _ in range(self.reverse_steps)]
        difference = x - (self._reconstruct(2 * x - 1, noises) + 1) / 2
        return smoothed(difference.square().mean(1, keepdim=True))

    def _reconstruct(self, x: Tensor, noises: list[Tensor]) -> Tensor:
        """x in [-1, 1] -> noised to step t and denoised; the first noise is for the way there."""
        stops = spaced_steps(self.t, self.reverse_steps)
        noised = add_noise(x, self.alpha_bar[self.t - 1], noises[0])
        for step, after, noise in zip(stops[:-1], stops[1:], [*noises[1:], None], strict=True):
            # the backward pass runs each network call again: only one is in memory at a time
            noised = checkpoint(
                self._denoise, noised, step, after, noise, use_reentrant=False, preserve_rng_state=False
            )
        return noised

    def _denoise(self, noised: Tensor, step: int, after: int, noise: Tensor | None) -> Tensor:
        """x_step -> x_after; the last step, which has no noise, ends at the predicted clean image."""
        alpha_bar = self.alpha_bar[step - 1]
        clean = predicted_clean(self.network, noised, alpha_bar, step)
        if noise is None:
            return clean
        return ancestral_step(noised, clean, alpha_bar, self.alpha_bar[after - 1], noise)
