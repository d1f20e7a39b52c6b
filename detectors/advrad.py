"""AdvRAD: one-shot diffusion reconstruction as purifier and detector in one (Cao, Lin, Chen 2024).

https://arxiv.org/abs/2408.04839. A diffusion model is trained on normal images (Ho et al. 2020,
https://arxiv.org/abs/2006.11239). An image is noised to one step k, the clean image is predicted from it in a
single network call (their Algorithm 1), and the multi-scale reconstruction error is compared with that of normal
images. Whatever the perturbation was, the noise of step k drowns it; that noise is drawn anew for every score.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Rng

from ._diffusion import DIFFUSION_STEPS, DiffusionReconstruction, PresetName, add_noise, predicted_clean
from ._training import as_many_threads_as_pay, seeded

SCALES = (1, 2, 4, 8)  # the error is averaged over the image at 1, 1/2, 1/4 and 1/8 of its size


class AdvRAD(DiffusionReconstruction):
    """Score = max over pixels of |error map - mean error map of normal images|; noise drawn per score.

    preset: `small` (0.6 M parameters, 64 to 128 pixels, minutes on a CPU) or `paper` (256 pixels, a GPU).
    k: diffusion step to which images are noised; 50 of 1000 is Gaussian noise of sigma 0.086 in [0, 1] pixels.
    filter: side of the mean filter over the error map, in pixels, odd.
    steps, batch_size, lr: of the training; the preset's where not given.
    """

    toy_parameters: ClassVar = {"steps": 60, "batch_size": 16}

    def __init__(
        self,
        preset: PresetName = "small",
        *,
        k: int = 50,
        filter: int = 7,
        steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
    ):
        super().__init__()
        if not 1 <= k <= DIFFUSION_STEPS:
            raise ValueError(f"k must be a diffusion step from 1 to {DIFFUSION_STEPS}, got {k}")
        if filter < 1 or filter % 2 == 0:
            raise ValueError(f"filter must be an odd number of pixels, got {filter}")
        self.k, self.filter = k, filter
        self._set_up(preset, steps, batch_size, lr)
        self.register_buffer("normal_error", torch.zeros(1, 1, 1, 1))  # (1, 1, H, W) after fit
        self.normal_error: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self._train_diffusion(normal)
        total, count = torch.zeros((), device=self.alpha_bar.device), 0
        threads = as_many_threads_as_pay(self, normal, self.batch_size)
        with torch.no_grad(), seeded(torch.initial_seed()), threads:
            for images in normal:
                batch = images.to(self.alpha_bar.device)
                total = total + self._error_map(batch, torch.randn_like(batch)).sum(0, keepdim=True)
                count += len(batch)
        self.normal_error = total / count

    def anomaly_map(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B, 1, H, W): how far the reconstruction error is from that of normal images."""
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return (self._error_map(x, noise) - self.normal_error).abs()

    def _reconstruct(self, x: Tensor, noise: Tensor) -> Tensor:
        """x in [-1, 1] -> the clean image predicted from x noised to step k, in one network call."""
        alpha_bar = self.alpha_bar[self.k - 1]
        return predicted_clean(self.network, add_noise(x, alpha_bar, noise), alpha_bar, self.k)

    def _error_map(self, images: Tensor, noise: Tensor) -> Tensor:
        """(B, 1, H, W): squared reconstruction error in [0, 1] pixel units, mean over channels and scales."""
        difference = images - (self._reconstruct(2 * images - 1, noise) + 1) / 2
        height, width = images.shape[-2:]
        maps = [difference.square().mean(1, keepdim=True)]
        for scale in SCALES[1:]:
            size = (max(height // scale, 1), max(width // scale, 1))
            # resizing is linear, so the difference of the resized images is the resized difference
            small = F.interpolate(difference, size, mode="bilinear", antialias=True, align_corners=False)
            error = small.square().mean(1, keepdim=True)
            maps.append(F.interpolate(error, (height, width), mode="bilinear", align_corners=False))
        return mean_filter(torch.stack(maps).mean(0), self.filter)


def mean_filter(maps: Tensor, side: int) -> Tensor:
    """Each pixel (B, 1, H, W) becomes the mean over side x side around it; borders average what is inside."""
    return F.avg_pool2d(maps, side, stride=1, padding=side // 2, count_include_pad=False)
