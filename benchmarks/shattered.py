"""How steady the gradients of fitted detectors are, and of the same detectors with a planted ripple.

    python benchmarks/shattered.py autoencoder patchcore advrad ocr-gan diffpure+autoencoder

Prints the table that the threshold of the check `shattered` rests on (docs/checks.md). Detectors are fitted on
textures/brick, or taken from the cache; untrained backbones are good enough for this.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Data, Detector, Rng, Score, fit_or_load, load_data
from bench.checks.of_gradient import NEARBY

IMAGES = 4  # of each class
FREQUENCY = 3e4  # of the ripple, per pixel unit


class Rippled(Detector):
    """A detector whose score has a fine sine of each pixel on top, as high as half the spread of its scores."""

    def __init__(self, inner: Detector, height: float):
        super().__init__()
        self.inner, self.height, self.randomized = inner, height, inner.randomized

    def fit(self, normal: Any) -> None:
        pass

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        score = self.inner.score(x, rng) if self.randomized else self.inner.score(x)
        weight = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
        return score + self.height * (weight * torch.sin(FREQUENCY * x)).flatten(1).mean(1)


def gradient(detector: Detector, x: Tensor, ids: list[str]) -> tuple[Tensor, Tensor]:
    point = x.clone().requires_grad_(True)
    scores = Score(detector)(point, Rng(0, ids))
    return scores.detach(), torch.autograd.grad(scores.sum(), point)[0].flatten(1)


def cosines(detector: Detector, x: Tensor, ids: list[str]) -> list[float]:
    """The lowest over the images, for each distance."""
    _, here = gradient(detector, x, ids)
    generator = torch.Generator().manual_seed(0)
    noise = [level * (2 * torch.rand(x.shape, generator=generator).to(x) - 1) for level in NEARBY]
    return [float(F.cosine_similarity(here, gradient(detector, (x + n).clamp(0, 1), ids)[1]).min()) for n in noise]


def line(name: str, detector: Detector, data: Data) -> str:
    """One row of the table: the detector as it is, and rippled."""
    some = data.test.of_each_class(IMAGES)
    x, ids = data.test.images(some).to(detector.device), [data.test.ids[i] for i in some]
    scores, _ = gradient(detector, x, ids)
    planted = Rippled(detector, float(scores.max() - scores.min()) / 2)
    return (
        " | ".join([f"| {name}", *(f"{value:.2f}" for d in (detector, planted) for value in cosines(d, x, ids))]) + " |"
    )


if __name__ == "__main__":
    bricks = load_data("textures", category="brick")
    print("| detector | " + " | ".join(f"{kind}, {n:g}" for kind in ("as it is", "rippled") for n in NEARBY) + " |")
    print("| --- |" + " --- |" * 2 * len(NEARBY))
    for given in sys.argv[1:]:
        print(line(given, fit_or_load(given, bricks), bricks), flush=True)
