"""A box of light and pose: what a lamp, and a part that lies a little askew, may do to an image, all of it at once.

Six numbers, each within its own range around 0, where nothing changes. Light: exposure, gamma and hue. Pose: a rotation
and a translation, the edge repeated. Unlike a ball of a norm the box cannot be told from an image, so the numbers are
kept, and whoever doubts an image makes it again of them. Everything is differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .shifts import LINE

SEVERITY = 3  # of the line's set, where the box ends in exposure and gamma


class Axis(NamedTuple):
    """One side of the box."""

    name: str
    """Its column."""
    most: float
    """It goes from -most to most."""
    unit: str


AXES = (
    Axis("exposure", LINE["exposure"][1][SEVERITY - 1], "stops"),
    Axis("gamma", LINE["gamma"][1][SEVERITY - 1], "logarithm of the exponent"),
    Axis("hue", 10.0, "degrees around the grey axis"),
    Axis("angle", 5.0, "degrees"),
    Axis("right", 2.0, "pixels of the image that the detector is given"),
    Axis("down", 2.0, "pixels"),
)
NAMES = tuple(axis.name for axis in AXES)
MOST = torch.tensor([axis.most for axis in AXES], dtype=torch.float64)
LIGHT, POSE = (0, 1, 2), (3, 4, 5)
"""The two halves that are searched in turn."""


def share_of(parameters: Tensor) -> Tensor:
    """(B, 6) -> (B,) in double precision: the smallest share of the box that holds each."""
    return (parameters.double().cpu() / MOST).abs().amax(-1)


def transformed(x: Tensor, parameters: Tensor, smooth: bool = False) -> Tensor:
    """The images (B, 3, S, S) under these numbers (B, 6), in [0, 1]. Where all are 0, the image itself.

    smooth: for gradients; an image that is not moved is resampled as well, which changes it by a rounding.
    """
    exposure, gamma, hue, angle, right, down = parameters.to(x).view(-1, 6, 1, 1, 1).unbind(1)
    posed = _moved(x, angle, right, down)
    if not smooth:
        still = (parameters[:, POSE] == 0).all(1).to(x.device)
        posed = torch.where(still[:, None, None, None], x, posed)
    coloured = _turned(posed, hue * math.pi / 180) * torch.exp2(exposure)
    positive = coloured > 0  # at 0 a power has no gradient
    powered = coloured.where(positive, torch.ones_like(coloured)) ** torch.exp(gamma)
    return powered.where(positive, torch.zeros_like(coloured)).clamp(0, 1)


def grid(half: Sequence[int], count: int, share: float) -> Tensor:
    """(count^3, 6): evenly spaced points of one half of the box, the other half being 0; an odd `count` has the
    middle."""
    ticks = torch.linspace(-share, share, count, dtype=torch.float64)
    points = torch.zeros(count ** len(half), len(AXES), dtype=torch.float64)
    points[:, list(half)] = torch.cartesian_prod(*[ticks] * len(half))
    return points * MOST


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """Colours, turned around the axis of greys: what is grey stays."""
    red, green, blue = x.unbind(1)
    across = torch.stack([blue - green, red - blue, green - red], 1) / 3**0.5
    return x + (torch.cos(angle) - 1) * (x - x.mean(1, keepdim=True)) + torch.sin(angle) * across


def _moved(x: Tensor, angle: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """angle in degrees; right, down in pixels."""
    turn = angle.flatten() * math.pi / 180
    cos, sin = torch.cos(turn), torch.sin(turn)
    halves = 2 / x.shape[-1]
    rows = [cos, -sin, -right.flatten() * halves, sin, cos, -down.flatten() * halves]
    sampled = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, sampled, mode="bilinear", padding_mode="border", align_corners=False)
