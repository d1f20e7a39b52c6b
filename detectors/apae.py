"""APAE: autoencoder whose latents are searched anew for every image it scores (Goodge et al., IJCAI 2020).

https://doi.org/10.24963/ijcai.2020/173. An attack that fools the encoder is undone by approximate projection: gradient
descent on the latents, from the encoder's, towards the decoder output nearest to the image. The errors of the features
(here pixel values) are then weighted by 1 / (epsilon + their median over the normal images). The score is a function
of the image through every step of that search, and so is its gradient.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench import Hints, Rng, UserError, bpda, identity_backward

from ._autoencoder import Reconstruction, smoothed
from ._training import train

EPSILON = 1e-3  # of the feature weights, from the authors' code


class ApproximateProjection(Reconstruction):
    """Score = mean over all pixel values of weight * (x - decoder(projected latents))^2 / 2.

    steps_projection, lr_projection: of the search; 20 steps of 0.5 go as far as the 1000 of 0.01 of the paper.
    gradient: `unrolled` differentiates the search itself; `bpda` lets the gradient pass the search unchanged, as if
    the latents were still the encoder's (Athalye et al. 2018): cheaper, and not the gradient of this score, to which
    check-detector may object.
    width, latent: of the network, as for `autoencoder`; its activations are smooth, so that the search is too.
    steps, batch_size, lr: of the training.
    """

    scoring_parameters: ClassVar[frozenset[str]] = frozenset({"steps_projection", "lr_projection", "gradient"})
    toy_parameters: ClassVar = {"steps": 200, "width": 16, "steps_projection": 5}

    def __init__(
        self,
        steps_projection: PositiveInt = 20,
        lr_projection: PositiveFloat = 0.5,
        gradient: Literal["unrolled", "bpda"] = "unrolled",
        *,
        width: int = 32,
        latent: int = 32,
        steps: PositiveInt = 4000,
        batch_size: PositiveInt = 8,
        lr: PositiveFloat = 2e-3,
    ):
        super().__init__()
        if steps_projection < 0:
            raise ValueError(f"steps_projection must not be negative, got {steps_projection}")
        if lr_projection <= 0:
            raise ValueError(f"lr_projection must be above 0, got {lr_projection}")
        self.steps_projection, self.lr_projection, self.gradient = steps_projection, lr_projection, gradient
        self.width, self.latent = width, latent
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self._build(width, latent, nn.SiLU)
        self.register_buffer("weights", torch.zeros(0))  # (3, H, W) after fit
        self.weights: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        train(
            self,
            self,
            lambda x: (x - self._reconstruct(x)).square().mean(),
            normal,
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
        )
        with torch.no_grad():
            batches = (images.to(self.weights) for images in normal)
            errors = torch.cat([_half_square(x - self._reconstruct(x)) for x in batches])
        self.weights = 1 / (EPSILON + errors.median(0).values)

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self._weighted(x).flatten(1).mean(1)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        """No evidence: the score is a mean, not a maximum."""
        return self.score(x), None

    def attack_hints(self) -> Hints:
        return Hints(bpda=True)

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): the smoothed weighted error."""
        return smoothed(self._weighted(x).mean(1, keepdim=True))

    def _weighted(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.weights.shape:
            height, width = self.weights.shape[1:]
            raise UserError(f"apae weights every pixel of {height} x {width} images; got {x.shape[-2]} x {x.shape[-1]}")
        return self.weights * _half_square(x - self._decode(self._project(x), x))

    def _project(self, x: Tensor) -> Tensor:
        """The latents after gradient descent on |x - decoder(latents)|^2 / 2, a sum per image, from the encoder's."""

        def search(latents: Tensor) -> Tensor:
            for _ in range(self.steps_projection):
                latents = _Step.apply(latents, x, self)
            return latents

        with identity_backward() if self.gradient == "bpda" else contextlib.nullcontext():
            return bpda(search, self._encode(x))

    def _step(self, latents: Tensor, x: Tensor, create_graph: bool) -> Tensor:
        error = _half_square(x - self._decode(latents, x)).sum()
        (gradient,) = torch.autograd.grad(error, latents, create_graph=create_graph)
        return latents - self.lr_projection * gradient


class _Step(torch.autograd.Function):
    """One step of the search; its graph is built again for the backward pass, so only the latents are remembered.

    Works under no_grad as well, where the search needs its own gradient nevertheless.
    """

    @staticmethod
    def forward(ctx: Any, latents: Tensor, x: Tensor, detector: ApproximateProjection) -> Tensor:
        ctx.detector = detector
        ctx.save_for_backward(latents, x)
        with torch.enable_grad():
            return detector._step(latents.detach().requires_grad_(True), x.detach(), create_graph=False).detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        latents, x = (saved.detach().requires_grad_(True) for saved in ctx.saved_tensors)
        with torch.enable_grad():
            moved = ctx.detector._step(latents, x, create_graph=True)
        by_latents, by_x = torch.autograd.grad(moved, (latents, x), gradients[0])
        return by_latents, by_x, None


def _half_square(difference: Tensor) -> Tensor:
    """The authors' smooth l1 error, which is this for differences below 1."""
    return difference.square() / 2
