"""What the autoencoder detectors share: the network, the score from its error map, and PGD for their training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Detector, Rng, ThreatModel, UserError

from ._similarity import gaussian_filter

SMOOTHING = 1.0  # sigma of the Gaussian over the error map at 64 pixels: the 4 at 256 pixels that the field uses
SHRINKS = 8  # the bottleneck is at 1/8 of the size


class Reconstruction(Detector):
    """Score = max over pixels of the smoothed squared error between an image and its reconstruction.

    A subclass calls `_build` in its constructor, and may change `_reconstruct`, `_error`, or `score_with_evidence`.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential

    def _build(self, width: int, latent: int, activation: Callable[[], nn.Module] = lambda: nn.LeakyReLU(0.2)) -> None:
        """`width` channels at half of the size, doubled at each halving below; `latent` channels at 1/8 of it."""
        for name, value in (("width", width), ("latent", latent)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

        def block(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
            return convolution, nn.BatchNorm2d(convolution.out_channels), activation()

        self.encoder = nn.Sequential(
            *block(nn.Conv2d(3, width, 4, stride=2, padding=1)),
            *block(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            *block(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
            nn.Conv2d(4 * width, latent, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            *block(nn.Conv2d(latent, 4 * width, 3, padding=1)),
            *block(nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1)),
            *block(nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        pixels = self.anomaly_map(x).flatten(1)
        return pixels.amax(1), pixels

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): the smoothed reconstruction error."""
        return smoothed(self._error(x))

    def _error(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): squared difference, mean over channels."""
        return (x - self._reconstruct(x)).square().mean(1, keepdim=True)

    def _reconstruct(self, x: Tensor) -> Tensor:
        return self._decode(self._encode(x), x)

    def _encode(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, latent, ceil(H / 8), ceil(W / 8))."""
        padding = (0, -x.shape[-1] % SHRINKS, 0, -x.shape[-2] % SHRINKS)
        latents: Tensor = self.encoder(F.pad(x, padding, mode="replicate"))
        return latents

    def _decode(self, latents: Tensor, like: Tensor) -> Tensor:
        """Latents -> images in [0, 1], of the size and type of `like`."""
        images: Tensor = self.decoder(latents)
        return images[..., : like.shape[-2], : like.shape[-1]].to(like)


def smoothed(error: Tensor) -> Tensor:
    sigma = SMOOTHING * min(error.shape[-2:]) / 64
    return gaussian_filter(error, 2 * round(2 * sigma) + 1, sigma)


def threat_model(norm: str, eps: str | float) -> ThreatModel:
    """The adversary of an adversarial training; its ValueError names the parameter."""
    try:
        return ThreatModel(norm, eps)
    except UserError as error:
        raise ValueError(str(error).replace("--eps", "eps")) from None


def worst_in_ball(loss: Callable[[Tensor], Tensor], x: Tensor, threat: ThreatModel, steps: int) -> Tensor:
    """Images of the ball around x that PGD finds to maximise `loss(images) -> ()`, a sum over images.

    Random start and steps of 2.5 eps / steps (Madry et al. 2018, https://arxiv.org/abs/1706.06083). Randomness is
    torch's global one.
    """
    rng = Rng(int(torch.randint(2**62, ())), [str(i) for i in range(len(x))])
    worst = threat.random_start(x, rng)
    for _ in range(steps):
        point = worst.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(point), point)
        worst = threat.project(worst + 2.5 * threat.radius / steps * threat.steepest(gradient), x)
    return worst.detach()
