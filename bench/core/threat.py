"""The threat model: how far the adversary may move an image, in which norm, and which images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError
from .exact import read_number
from .norms import NO_NORM, NORMS, SEMANTIC, Norm, budget_of
from .rng import Rng

Targets = Literal["both", "normal", "anomalous"]
TARGETS: tuple[Targets, ...] = get_args(Targets)

TOLERANCE = 1e-6
"""How far beyond eps or the pixel range float rounding may put an image."""

EXPECTED = "a number of pixel units in [0, 1], for example 2/255 or 0.2"
"""What eps is, where no norm says it."""


def parse_eps(value: str | float | Fraction, norm: str = "", option: str = "--eps") -> Fraction:
    """`2/255`, `0.2` or a number -> an exact fraction above 0 that may be an eps in the norm.

    Raises UserError, which names the `option` and says what was expected.
    """
    if isinstance(value, (str, Fraction)):
        return _parsed(value, norm, option)
    return _parsed.__wrapped__(value, norm, option)  # True is no 1


@lru_cache(maxsize=1024)  # a board of thousands of cells has a few
def _parsed(value: str | float | Fraction, norm: str, option: str) -> Fraction:
    budget = budget_of(norm)
    shape = budget.expected if budget else EXPECTED
    said = f"{option} {_shortened(str(value))}"
    eps = read_number(value)
    if eps is None:
        several = " (separate several with commas)" if re.search(r"[0-9][ \t]+[0-9]", str(value)) else ""
        raise UserError(f"{said} is not a number{several}; expected {shape}")
    if eps <= 0:
        raise UserError(f"{said} must be above 0; expected {shape}")
    if budget and (objection := budget.objection(eps)):
        raise UserError(f"{said} {objection}")
    return eps


def _shortened(text: str, to: int = 60) -> str:
    """On one line."""
    line = " ".join(text.split())
    return line if len(line) <= to else f"{line[:to]}..."


@lru_cache(maxsize=1024)
def eps_text(eps: Fraction) -> str:
    """The one way eps is written: `2/255` or `0.5/255`, `0.2`, and `p/q` where neither is exact."""
    if _is_decimal(eps):
        return f"{float(eps):.12g}"
    return f"{float(eps * 255):.12g}/255" if _is_decimal(eps * 255) else str(eps)


def _is_decimal(eps: Fraction) -> bool:
    rest = eps.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1 and Fraction(f"{float(eps):.12g}") == eps


@dataclass(frozen=True)
class ThreatModel:
    """An adversary who may move an image by at most `eps` in `norm`, on pixels in [0, 1].

    norm: `linf` (largest change of a value), `l2` (Euclidean length over all 3 x H x W values), `l1` (sum of the
    changes of all values) or `l0` (number of pixels that change; all three values of one may); or `semantic`, which
    no attack on pixels takes: eps is a share of a box of light and pose then (`bench.shift`).
    eps: kept exact; text such as `2/255` and numbers are converted. In l0 a whole number.
    targets: the test images that the adversary controls: `both`, `normal` or `anomalous`.
    """

    norm: str
    eps: Fraction
    targets: Targets = "both"

    if TYPE_CHECKING:  # what the constructor takes is wider than what the fields hold

        def __init__(self, norm: str, eps: str | float | Fraction, targets: str = "both") -> None: ...

    def __post_init__(self) -> None:
        if budget_of(self.norm) is None:
            raise UserError(f"unknown norm {self.norm!r}; expected one of {', '.join(NORMS)}")
        if self.targets not in TARGETS:
            raise UserError(f"unknown targets {self.targets!r}; expected one of {', '.join(TARGETS)}")
        object.__setattr__(self, "eps", parse_eps(self.eps, self.norm))

    @property
    def geometry(self) -> Norm:
        """Of the norm. UserError where there is none: in the box of light and pose."""
        if self.norm == SEMANTIC:
            raise UserError(NO_NORM)
        return NORMS[self.norm]

    @property
    def radius(self) -> float:
        """eps, as a float."""
        return float(self.eps)

    def __str__(self) -> str:
        return f"{self.norm} {eps_text(self.eps)}"

    def controls(self, labels: Tensor) -> Tensor:
        """Which images (B,) of these labels the adversary may change."""
        if self.targets == "both":
            return torch.ones_like(labels, dtype=torch.bool)
        return labels == (1 if self.targets == "anomalous" else 0)

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """(B,): how far x is from x0 in the norm, in double precision."""
        return self.geometry.distance(x.double() - x0.double())

    def longest(self, shape: Sequence[int]) -> float:
        """The distance between the two images (3, H, W) that are furthest apart: a larger eps means nothing."""
        return self.geometry.longest(shape)

    def refuse_longer(self, image_size: int, option: str = "--eps") -> None:
        """UserError if eps, given as `option`, is longer than any change of an image of so many pixels."""
        if self.radius > self.longest((3, image_size, image_size)):
            unit = "counts pixels" if self.geometry.counts else "is in pixel units in [0, 1]"
            raise UserError(
                f"{option} {eps_text(self.eps)} is longer than any change of a {image_size} pixel image in "
                f"{self.norm}; {option[2:]} {unit}"
            )

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """The nearest image to x that is within eps of x0 and in [0, 1]; x0 itself must be in [0, 1]."""
        return self.geometry.project(x, x0, self.radius)

    def random_start(self, x0: Tensor, rng: Rng) -> Tensor:
        """A random image within eps of x0; how it is spread, the norm says."""
        return self.geometry.random_start(x0, self.radius, rng)

    def steepest(self, gradient: Tensor, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        """The step of length 1 in the norm along which a linear function with this gradient grows fastest.

        x, length: the image it starts from and what the caller multiplies it by, where values that cannot use their
        part in [0, 1] may leave it to others (in l1). In l0 it is no unit step: see `L0.steepest`.
        """
        return self.geometry.steepest(gradient, self.radius, x, length)

    def violation(self, x: Tensor, x0: Tensor) -> str | None:
        """Why x is not an image that this adversary may show instead of x0; None if it is."""
        if x.shape != x0.shape:
            return f"has shape {tuple(x.shape)} instead of {tuple(x0.shape)}"
        if not torch.isfinite(x).all():
            return "holds values that are not finite"
        if x.min() < -TOLERANCE or x.max() > 1 + TOLERANCE:
            return f"leaves the pixel range [0, 1]: {x.min():.6g} to {x.max():.6g}"
        far = self.distance(x, x0).max().item()
        if far > self.radius + TOLERANCE:
            return f"is {far:.6g} away in {self.norm}, more than the budget {self.radius:.6g}"
        return None
