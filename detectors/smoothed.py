"""Randomized smoothing of any detector: the median, or the mean, of its score over Gaussian draws.

Median and other percentiles: Chiang et al. 2020, https://arxiv.org/abs/2007.03730. Mean: Kumar et al. 2020,
https://arxiv.org/abs/2009.08061. `bench certify` bounds the smoothed score over an l2 ball; n draws estimate it.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bench import Detector, Hints, Rng, Wrapper


class Smoothed(Wrapper):
    """Score = median over n draws of the inner score of x + sigma * noise; the noisy image is not clipped.

    sigma: standard deviation of the noise in [0, 1] pixels.
    n: draws, odd, so that the median is one of them, and the gradient that of the draw in the middle.
    center: `median`, `mean`, or a number p between 0 and 1 for the p-quantile.
    low, high: inner scores are clipped into them; the mean needs both, since only a bounded mean can be certified.
    precision: bfloat16 scores in half the bits (torch.autocast). It is another detector, smoothed and certified as it
    is: a bound holds for whatever function the noisy images go through.
    """

    scoring_parameters = frozenset({"sigma", "n", "center", "low", "high", "precision"})
    noise_parameter = "sigma"
    toy_parameters: ClassVar = {"n": 5}

    def __init__(
        self,
        inner: Detector,
        *,
        sigma: float = 0.1,
        n: int = 15,
        center: str = "median",
        low: float | None = None,
        high: float | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ):
        super().__init__(inner)
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {sigma:g}")
        if n < 1 or n % 2 == 0:
            raise ValueError(f"n must be an odd number of draws, got {n}")
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must be below high, got {low:g} and {high:g}")
        if center == "mean" and (low is None or high is None):
            raise ValueError("center=mean needs a bounded score: give low and high, into which scores are clipped")
        self.sigma, self.n, self.center, self.low, self.high, self.precision = sigma, n, center, low, high, precision
        self.percentile = _percentile(center)
        """p of the p-quantile, or None for the mean."""
        self.randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self._centre(self.draws(x, self.n, rng))

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        """The evidence (B, n) is the draws: the gradient of a quantile is that of one of them."""
        draws = self.draws(x, self.n, rng)
        return self._centre(draws), None if self.percentile is None else draws.mT

    def attack_hints(self) -> Hints:
        """The gradient of a quantile is that of one draw; the mean over draws has less noise."""
        hints = super().attack_hints()
        return hints._replace(objectives=(*hints.objectives, "mean"))

    def draws(self, x: Tensor, n: int, rng: Rng | None = None) -> Tensor:
        """(n, B): inner scores of n noisy copies of each image, clipped where there are limits."""
        found = []
        for _ in range(n):
            noisy = x + self.sigma * (torch.randn_like(x) if rng is None else rng.normal(x))
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                found.append(self.inner_score(noisy, rng))
        scores = torch.stack(found)
        scores = scores.float() if scores.dtype == torch.bfloat16 else scores
        return scores if self.low is None and self.high is None else scores.clamp(self.low, self.high)

    def _centre(self, draws: Tensor) -> Tensor:
        if self.percentile is None:
            return draws.mean(0)
        if self.percentile == 0.5:
            return draws.median(0).values
        return draws.kthvalue(max(math.ceil(self.percentile * len(draws)), 1), dim=0).values


def _percentile(center: str) -> float | None:
    if center in ("median", "mean"):
        return 0.5 if center == "median" else None
    try:
        p = float(center)
    except ValueError:
        p = math.nan
    if not 0 < p < 1:
        raise ValueError(f"center must be median, mean, or a number between 0 and 1, got {center}")
    return p
