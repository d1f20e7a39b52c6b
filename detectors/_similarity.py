"""Structural similarity as an error map (Wang et al. 2004, SSIM; Wang et al. 2003, MS-SSIM)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5
STABILITY = (0.01**2, 0.03**2)  # C1 and C2 for pixels in [0, 1]
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales of MS-SSIM


def gaussian_filter(maps: Tensor, side: int, sigma: float) -> Tensor:
    """Each channel of (B, C, H, W) blurred separately, at the same size; borders are reflected."""
    side = min(side, 2 * min(maps.shape[-2:]) - 1)  # reflection needs less padding than pixels
    offsets = torch.arange(side, dtype=maps.dtype, device=maps.device) - side // 2
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(maps.shape[1], 1, 1, -1)
    pad = side // 2
    maps = F.pad(maps, (pad, pad, pad, pad), mode="reflect")
    maps = F.conv2d(maps, kernel, groups=maps.shape[1])
    return F.conv2d(maps, kernel.mT, groups=maps.shape[1])


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure per pixel, (B, 1, H, W) each, mean over channels."""
    c1, c2 = STABILITY
    mean_x, mean_y = gaussian_filter(x, WINDOW, SIGMA), gaussian_filter(y, WINDOW, SIGMA)
    var_x = gaussian_filter(x * x, WINDOW, SIGMA) - mean_x.square()
    var_y = gaussian_filter(y * y, WINDOW, SIGMA) - mean_y.square()
    covariance = gaussian_filter(x * y, WINDOW, SIGMA) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return luminance.mean(1, keepdim=True), contrast.mean(1, keepdim=True)


def ssim_error(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM per pixel: (B, 3, H, W) twice -> (B, 1, H, W), 0 where equal, at most 2."""
    luminance, contrast = _terms(x, y)
    return 1 - luminance * contrast


def ms_ssim_error(x: Tensor, y: Tensor) -> Tensor:
    """1 - MS-SSIM per pixel: the coarser scales are resized back to the first before the product.

    Of the five scales those are used on which the window still fits; their weights are rescaled to sum to 1.
    """
    size = x.shape[-2:]
    scales = [i for i in range(len(SCALE_WEIGHTS)) if min(size) // 2**i >= WINDOW] or [0]
    total = sum(SCALE_WEIGHTS[i] for i in scales)
    similarity = torch.ones((), dtype=x.dtype, device=x.device)
    for i in scales:
        luminance, contrast = _terms(x, y)
        term = contrast if i < scales[-1] else luminance * contrast
        # a negative structure term has no real power; as in public implementations it counts as no similarity
        term = term.clamp_min(1e-4) ** (SCALE_WEIGHTS[i] / total)
        similarity = similarity * F.interpolate(term, size, mode="bilinear", align_corners=False)
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return 1 - similarity
