"""Median smoothing of any detector: the median score over Gaussian draws (Chiang et al. 2020).

https://arxiv.org/abs/2007.03730. The smoothed score is what their percentile bounds certify; n draws estimate it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from bench import Detector, Rng, Wrapper


class Smoothed(Wrapper):
    """Score = median over n draws of the inner score of x + sigma * noise; the noisy image is not clipped.

    sigma: standard deviation of the noise in [0, 1] pixels.
    n: draws, odd, so that the median is one of them, and the gradient that of the draw in the middle.
    """

    scoring_parameters = frozenset({"sigma", "n"})
    toy_parameters: ClassVar = {"n": 5}

    def __init__(self, inner: Detector, *, sigma: float = 0.1, n: int = 15):
        super().__init__(inner)
        if sigma <= 0:
            raise ValueError(f"sigma must be above 0, got {sigma}")
        if n < 1 or n % 2 == 0:
            raise ValueError(f"n must be an odd number of draws, got {n}")
        self.sigma, self.n = sigma, n
        self.randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.draws(x, self.n, rng).median(0).values

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        """The evidence (B, n) is the draws: the gradient of their median is that of one of them."""
        draws = self.draws(x, self.n, rng)
        return draws.median(0).values, draws.mT

    def draws(self, x: Tensor, n: int, rng: Rng | None = None) -> Tensor:
        """(n, B): inner scores of n noisy copies of each image."""
        found = []
        for _ in range(n):
            noisy = x + self.sigma * (torch.randn_like(x) if rng is None else rng.normal(x))
            found.append(self.inner_score(noisy, rng))
        return torch.stack(found)
