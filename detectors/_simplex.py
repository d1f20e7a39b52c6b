"""Octaves of two-dimensional simplex noise (Perlin 2001), as random as a source of uniform numbers makes them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SKEW = (math.sqrt(3) - 1) / 2  # (x, y) + (x + y) SKEW: the triangular lattice becomes the square one
UNSKEW = (3 - math.sqrt(3)) / 6  # and back, with a minus
AREA = 1 / math.sqrt(3)  # of the plane per vertex
# E[noise^2] of one octave: per vertex a random unit gradient g at distance d, (1/2 - d^2)^4 <g, d>, over all the plane
VARIANCE = math.pi / (2 * AREA) * 0.5**10 / 90


def simplex_noise(
    like: Tensor,
    uniform: Callable[[Tensor], Tensor] = torch.rand_like,
    *,
    octaves: int = 6,
    persistence: float = 0.8,
    wavelength: float = 64.0,
) -> Tensor:
    """(B, C, H, W) shaped as `like`: zero mean and unit variance over draws, at every pixel.

    The first octave has its lattice vertices about `wavelength` pixels apart; each further one has half of that and
    `persistence` times the amplitude. Channels share the lattice and not the gradients. Row i depends on row i
    of what `uniform(tensor)` gives alone: U(0, 1), shaped as its argument.
    """
    batch, channels, height, width = like.shape
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    skewed = torch.stack([x, y]) + (x + y) * SKEW  # (2, H, W)
    total = torch.zeros_like(like)
    for octave in range(octaves):
        # a random place in the lattice's cell: else every image would be 0 at the same pixels
        place = uniform(like.new_empty(batch, 2))[:, :, None, None]
        points = skewed * (2**octave / wavelength) + place
        side = int(skewed.max() * (2**octave / wavelength)) + 4  # floor, plus 1 for the place, 1 for the far corner
        angles = 2 * math.pi * uniform(like.new_empty(batch, channels, side, side))
        total += persistence**octave * lattice_noise(angles, points)
    return total / math.sqrt(VARIANCE * sum(persistence ** (2 * octave) for octave in range(octaves)))


def lattice_noise(angles: Tensor, points: Tensor) -> Tensor:
    """Simplex noise (B, C, H, W) at skewed points (B, 2, H, W) >= 0, with a gradient angle (B, C, n, n) per vertex.

    A point lies in a triangle of three vertices. Each adds <gradient, offset> (1/2 - |offset|^2)^4, which has fallen
    to 0 with three derivatives where the triangle's other neighbours begin.
    """
    batch, channels, side, _ = angles.shape
    base = points.floor()
    inside = points - base  # (B, 2, H, W) in the cell, which has a lower and an upper triangle
    lower = (inside[:, 0] >= inside[:, 1]).to(points)
    gradients = torch.stack([angles.cos(), angles.sin()]).flatten(-2)  # (2, B, C, n * n)
    noise = angles.new_zeros(batch, channels, *points.shape[-2:])
    zero, one = torch.zeros_like(lower), torch.ones_like(lower)
    for corner in ((zero, zero), (lower, 1 - lower), (one, one)):
        step = torch.stack(corner, dim=1)
        offset = inside - step
        offset = offset - offset.sum(1, keepdim=True) * UNSKEW  # as seen in the plane
        fading = (0.5 - offset.square().sum(1)).clamp_min(0).pow(4)
        row, column = (base + step).long().unbind(1)
        vertex = (row * side + column).flatten(1)[:, None].expand(-1, channels, -1)  # (B, C, H * W)
        gx, gy = (g.gather(2, vertex).view_as(noise) for g in gradients)
        noise = noise + fading[:, None] * (gx * offset[:, :1] + gy * offset[:, 1:])
    return noise
