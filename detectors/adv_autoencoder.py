"""Autoencoder trained on attacked normal images: PGD inside every training step (after Madry et al. 2018).

https://arxiv.org/abs/1706.06083, with the reconstruction error as the loss: only normal images are needed, so this
is the adversarial training that every one-class detector can have. One min-max problem over the weights w,

    min_w  E_x  max_{|d| <= eps}  |f_w(x + d) - x|^2,

in which both players see the same target, the clean image. With the attacked image as the target, the network
would be rewarded for copying the perturbation, which is what lets it copy an anomaly as well.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from bench.core.threat import eps_text

from ._autoencoder import Reconstruction, threat_model, worst_in_ball
from ._training import train


class AdversarialAutoencoder(Reconstruction):
    """Score = max over pixels of the smoothed squared error, as that of `autoencoder`.

    eps, norm: the ball of the training attack in pixel units, such as `2/255` in `linf` or `0.2` in `l2`.
    attack_steps: gradient steps of the training attack; a training step costs 1 + attack_steps plain ones.
    width, latent: of the network, as for `autoencoder`.
    steps, batch_size, lr: of the training.

    The attack meets the network in eval mode: it is then an attack on the function that will be scored, and the
    running statistics of the normalisation follow attacked images only where the weights learn from them.
    """

    toy_parameters: ClassVar = {"steps": 150, "width": 16, "attack_steps": 2}

    def __init__(
        self,
        eps: str | float = "2/255",
        norm: Literal["linf", "l2"] = "linf",
        attack_steps: int = 3,
        *,
        width: int = 32,
        latent: int = 32,
        steps: PositiveInt = 2000,
        batch_size: PositiveInt = 8,
        lr: PositiveFloat = 2e-3,
    ):
        super().__init__()
        if attack_steps < 1:
            raise ValueError(f"attack_steps must be at least 1, got {attack_steps}")
        self.threat = threat_model(norm, eps)
        self.eps, self.norm, self.attack_steps = eps_text(self.threat.eps), norm, attack_steps
        self.width, self.latent = width, latent
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self._build(width, latent)

    def fit(self, normal: DataLoader[Tensor]) -> None:
        train(self, self, self._loss, normal, steps=self.steps, batch_size=self.batch_size, lr=self.lr)

    def _loss(self, x: Tensor) -> Tensor:
        self.eval()
        attacked = worst_in_ball(lambda images: self._distance(images, x).sum(), x, self.threat, self.attack_steps)
        self.train()
        return self._distance(attacked, x).mean()

    def _distance(self, images: Tensor, target: Tensor) -> Tensor:
        """(B, 3, H, W): squared difference of the reconstruction of `images` from the clean `target`."""
        return (self._reconstruct(images) - target).square()
