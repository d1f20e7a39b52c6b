"""What the diffusion detectors and purifiers share: schedule, training loss, presets (Ho et al. 2020).

https://arxiv.org/abs/2006.11239. Images are in [-1, 1] here, as diffusion models take them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

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


def kept_signal() -> Tensor:
    """(1000,): abar of the linear schedule 1e-4 .. 0.02; entry k - 1 belongs to step k."""
    betas = torch.linspace(1e-4, 0.02, DIFFUSION_STEPS, dtype=torch.float64)
    return (1 - betas).cumprod(0).float()


def denoising_loss(network: UNet, kept: Tensor, x: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise at random steps (equation 14); x and noise are (B, 3, H, W)."""
    step = torch.randint(DIFFUSION_STEPS, (len(x),), device=x.device)
    share = kept[step][:, None, None, None]
    predicted = network(share.sqrt() * x + (1 - share).sqrt() * noise, step)
    return F.mse_loss(predicted.float(), noise)


def add_noise(x: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
    """x_k = sqrt(abar) x + sqrt(1 - abar) noise (equation 4)."""
    return kept.sqrt() * x + (1 - kept).sqrt() * noise


def predicted_clean(network: UNet, noised: Tensor, kept: Tensor, k: int) -> Tensor:
    """The clean image that x_k and its predicted noise imply, in one network call (equation 15); kept is abar_k."""
    predicted = network(noised, torch.full((len(noised),), k - 1, device=noised.device))
    clean: Tensor = (noised - (1 - kept).sqrt() * predicted) / kept.sqrt()
    return clean
