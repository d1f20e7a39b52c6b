"""ADP, a purifier: noise, then adaptive steps along a learned score of the data (Yoon, Hwang, Lee 2021).

https://arxiv.org/abs/2106.06041. The score network is trained on normal images by denoising score matching over a
range of noise levels (Song & Ermon 2019, https://arxiv.org/abs/1907.05600) and, as theirs, asked at one fixed level.
The gradient that an attack meets is that of all steps, and of the step sizes, which depend on the image.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from bench import Detector, Purifier, Rng

from ._diffusion import PresetName, UNetDetector

LEVELS = 1000  # noise levels of the training
SIGMAS = (0.01, 0.5)  # the smallest and the largest of them, in [0, 1] pixels; geometric between
PROBE = 1e-3  # how far along the score the network is asked again
STEP_RANGE = (1e-5, 0.1)
STOP = 1e-3  # an image whose step is not longer than this moves no further


class ADP(UNetDetector, Purifier):
    """Purified image = image + noise, moved up the score with step sizes found from its curvature.

    The score is taken at unit scale, as the (negative) noise that the network sees: on Gaussian noise of standard
    deviation s a step is then rate * s, in the range to which the paper clips it.

    sigma: noise injected, standard deviation in [0, 1] pixels; the published configurations use 0.25 and 0.1. The
    network is asked at this level.
    rate: lambda of the paper, the share of the noise that one step removes.
    iterations: most steps of an image.
    runs: purifications whose scores are averaged (S of the paper, 10 there; reported scores average draws anyway).
    preset: of the network, as AdvRAD's. steps, batch_size, lr: of its training; the preset's where not given.
    """

    level = "sigma"
    scoring_parameters = frozenset({"sigma", "rate", "iterations", "runs"})
    toy_parameters: ClassVar = {"steps": 60, "batch_size": 16, "iterations": 3}

    def __init__(
        self,
        inner: Detector,
        *,
        sigma: float = 0.1,
        rate: float = 0.05,
        iterations: int = 10,
        runs: int = 1,
        preset: PresetName = "small",
        steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
    ):
        super().__init__(inner)
        if not SIGMAS[0] <= sigma <= SIGMAS[1]:
            raise ValueError(f"sigma must be a trained noise level from {SIGMAS[0]} to {SIGMAS[1]}, got {sigma}")
        if iterations < 1 or runs < 1 or not 0 < rate <= 1:
            raise ValueError(
                f"iterations and runs must be at least 1 and rate in (0, 1], got {iterations}, {runs} and {rate}"
            )
        self.sigma, self.rate, self.iterations, self.runs = sigma, rate, iterations, runs
        self._set_up(preset, steps, batch_size, lr)
        low, high = torch.tensor(SIGMAS, dtype=torch.float64).log10().tolist()
        self.register_buffer("sigmas", torch.logspace(low, high, LEVELS), persistent=False)
        self.sigmas: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self._train(normal, self._score_matching)

    def purify(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        x = (x + self.sigma * noise).clamp(0, 1)
        moving = torch.ones(len(x), 1, 1, 1, dtype=torch.bool, device=x.device)
        for _ in range(self.iterations):
            if x.requires_grad:
                x, moving = checkpoint(self._move, x, moving, use_reentrant=False, preserve_rng_state=False)
            else:
                x, moving = self._move(x, moving)
            if not moving.any():
                break
        return x

    def _move(self, x: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the images that still move, and which of them go on."""
        level = int((self.sigmas - self.sigma).abs().argmin())
        score = -self._noise(x, level)
        ahead = -self._noise(x + PROBE * score, level)
        inner = (score * ahead).flatten(1).sum(1)
        straight = inner / score.square().flatten(1).sum(1).clamp_min(1e-12)
        bend = 1 - straight
        bend = torch.where(bend.abs() < 1e-6, 1e-6, bend)  # where the score grows along itself: the shortest step
        length = (self.rate * PROBE / bend).clamp(*STEP_RANGE)[:, None, None, None]
        moved = torch.where(moving, (x + length * score).clamp(0, 1), x)
        return moved, moving & (length > STOP)

    def _noise(self, x: Tensor, level: int) -> Tensor:
        """The noise, of unit size, that the network sees in images in [0, 1]."""
        predicted: Tensor = self.network(2 * x - 1, torch.full((len(x),), level, device=x.device))
        return predicted

    def _score_matching(self, images: Tensor) -> Tensor:
        """Denoising score matching, each level weighted by its variance (Song & Ermon, equations 5 and 6)."""
        level = torch.randint(LEVELS, (len(images),), device=images.device)
        noise = torch.randn_like(images)
        noised = images + self.sigmas[level][:, None, None, None] * noise
        return F.mse_loss(self.network(2 * noised - 1, level).float(), noise)
