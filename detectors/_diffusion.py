"""What the diffusion detectors and purifiers share: presets, training, schedule, steps (Ho et al. 2020).

https://arxiv.org/abs/2006.11239. Images are in [-1, 1] here, as diffusion models take them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng

from ._training import train
from ._unet import UNet

DIFFUSION_STEPS = 1000

PresetName = Literal["small", "paper"]


class Preset(NamedTuple):
    """A U-Net and its training."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    unshuffle: int
    steps: int
    batch_size: int
    lr: float
    ema: float

    def network(self) -> UNet:
        return UNet(self.width, self.multipliers, self.blocks, self.attention, self.unshuffle)


PRESETS: dict[str, Preset] = {
    # 64 to 128 pixels on a CPU: trained in minutes
    "small": Preset(32, (1, 2, 2), 1, (), 2, 600, 32, 2e-3, 0.99),
    # 256 pixels on a GPU; widths as in improved diffusion, attention at 8x8
    "paper": Preset(128, (1, 1, 2, 2, 4, 4), 2, (5,), 1, 30_000, 8, 1e-4, 0.999),
}


class UNetDetector(Detector):
    """Has a U-Net of a preset, trained on normal images. A subclass calls `_set_up` in its constructor."""

    network: UNet
    ema: float

    def _set_up(self, preset: PresetName, steps: int | None, batch_size: int | None, lr: float | None) -> None:
        """The network, and the settings of its training: the preset's where they are None."""
        chosen = PRESETS[preset]
        self.preset: PresetName = preset
        self.steps = chosen.steps if steps is None else steps
        self.batch_size = chosen.batch_size if batch_size is None else batch_size
        self.lr = chosen.lr if lr is None else lr
        self.ema = chosen.ema
        self.network = chosen.network()

    def _train(self, normal: DataLoader[Tensor], loss: Callable[[Tensor], Tensor]) -> None:
        train(self, self.network, loss, normal, steps=self.steps, batch_size=self.batch_size, lr=self.lr, ema=self.ema)
        self.network.requires_grad_(False)


class DiffusionDetector(UNetDetector):
    """Its network is a diffusion model of normal images: it predicts the noise in x_k."""

    alpha_bar: Tensor
    """(1000,): the share of an image's variance that is left in x_k, at k - 1."""

    def _set_up(self, preset: PresetName, steps: int | None, batch_size: int | None, lr: float | None) -> None:
        super()._set_up(preset, steps, batch_size, lr)
        self.register_buffer("alpha_bar", linear_schedule(), persistent=False)

    def _train_diffusion(
        self, normal: DataLoader[Tensor], noise: Callable[[Tensor], Tensor] = torch.randn_like
    ) -> None:
        """`noise` draws what is added, of the shape of its argument."""
        self._train(normal, lambda x: denoising_loss(self.network, self.alpha_bar, 2 * x - 1, noise(x)))


class DiffusionReconstruction(DiffusionDetector):
    """Score = max over pixels of `anomaly_map`, whose noise is drawn anew for every score."""

    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x, rng)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        pixels = self.anomaly_map(x, rng).flatten(1)
        return pixels.amax(1), pixels

    def anomaly_map(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B, 1, H, W), under noise from `rng`."""
        raise NotImplementedError


def linear_schedule() -> Tensor:
    """(1000,): alpha_bar of the linear schedule 1e-4 .. 0.02; entry k - 1 belongs to step k."""
    betas = torch.linspace(1e-4, 0.02, DIFFUSION_STEPS, dtype=torch.float64)
    return (1 - betas).cumprod(0).float()


def denoising_loss(network: UNet, alpha_bar: Tensor, x: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise at random steps (equation 14); x and noise are (B, 3, H, W)."""
    step = torch.randint(DIFFUSION_STEPS, (len(x),), device=x.device)
    share = alpha_bar[step][:, None, None, None]
    predicted = network(share.sqrt() * x + (1 - share).sqrt() * noise, step)
    return F.mse_loss(predicted.float(), noise)


def add_noise(x: Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
    """x_k = sqrt(alpha_bar) x + sqrt(1 - alpha_bar) noise (equation 4)."""
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise


def step_of_noise(sigma: float, alpha_bar: Tensor) -> int:
    """The step k at which an image with Gaussian noise of `sigma` in [0, 1] pixels is an x_k, up to a factor.

    In [-1, 1] that noise is 2 sigma, and x_k has sqrt((1 - alpha_bar) / alpha_bar) for each unit of the image (Carlini
    et al. 2023, https://arxiv.org/abs/2206.10550).
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma:g}")
    relative = ((1 - alpha_bar.double()) / alpha_bar.double()).sqrt()
    return int((relative - 2 * sigma).abs().argmin()) + 1


def predicted_clean(network: UNet, noised: Tensor, alpha_bar: Tensor, k: int) -> Tensor:
    """The clean image that x_k and its predicted noise imply, in one network call (equation 15); alpha_bar is x_k's."""
    predicted = network(noised, torch.full((len(noised),), k - 1, device=noised.device))
    clean: Tensor = (noised - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
    return clean


def spaced_steps(t: int, count: int) -> list[int]:
    """`count` diffusion steps, evenly spaced from t down, and the 0 at which the way back ends."""
    return [round(t * (count - i) / count) for i in range(count + 1)]


def ancestral_step(noised: Tensor, clean: Tensor, alpha_bar: Tensor, later: Tensor, noise: Tensor) -> Tensor:
    """x_k -> x_after: the posterior given the predicted clean image (equations 6 and 7).

    alpha_bar and later are those of the two steps, which make one step of a shorter chain without those between.
    """
    alpha = alpha_bar / later
    mean = (later.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - later) * noised) / (1 - alpha_bar)
    return mean + ((1 - later) / (1 - alpha_bar) * (1 - alpha)).sqrt() * noise
