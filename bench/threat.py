"""The threat model: how far the adversary may move an image, which images, and the geometry of that ball."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from .errors import UserError
from .rng import Rng

Norm = Literal["linf", "l2"]
Targets = Literal["both", "normal", "anomalous"]
NORMS: tuple[Norm, ...] = get_args(Norm)
TARGETS: tuple[Targets, ...] = get_args(Targets)

TOLERANCE = 1e-6
"""How far outside the ball or the pixel range float rounding may put an image."""


def parse_eps(value: str | float | Fraction, norm: str = "") -> Fraction:
    """`2/255`, `0.2` or a number -> an exact fraction, or a UserError that says what was expected."""
    shape = "a number of pixel units in [0, 1], for example 2/255 or 0.2"
    try:
        over, _, under = str(value).replace(" ", "").partition("/")  # 0.5/255 as well
        eps = Fraction(over) / Fraction(under or 1)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"--eps {value} is not a number; expected {shape}") from None
    if eps <= 0:
        raise UserError(f"--eps {value} must be above 0; expected {shape}")
    if norm == "linf" and eps > 1:
        near = f"did you mean {eps}/255?" if eps <= 255 and eps.denominator == 1 else f"expected {shape}"
        raise UserError(f"--eps {value} is wider than the pixel range [0, 1] in linf; {near}")
    return eps


def eps_text(eps: Fraction) -> str:
    """The one way a budget is written: `2/255` or `0.5/255`, `0.2`, and `p/q` where neither is exact."""
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

    norm: `linf` (largest change of a value) or `l2` (Euclidean length over all 3 x H x W values).
    eps: kept exact; text such as `2/255` and numbers are converted.
    attacks: the test images that the adversary controls: `both`, `normal` or `anomalous`.
    """

    norm: Norm
    eps: Fraction
    attacks: Targets = "both"

    if TYPE_CHECKING:  # what the constructor takes is wider than what the fields hold

        def __init__(self, norm: str, eps: str | float | Fraction, attacks: str = "both") -> None: ...

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"unknown norm {self.norm!r}; expected one of {', '.join(NORMS)}")
        if self.attacks not in TARGETS:
            raise UserError(f"unknown targets {self.attacks!r}; expected one of {', '.join(TARGETS)}")
        object.__setattr__(self, "eps", parse_eps(self.eps, self.norm))

    @property
    def radius(self) -> float:
        return float(self.eps)

    def __str__(self) -> str:
        return f"{self.norm} {eps_text(self.eps)}"

    def controls(self, labels: Tensor) -> Tensor:
        """Which images (B,) of these labels the adversary may change."""
        if self.attacks == "both":
            return torch.ones_like(labels, dtype=torch.bool)
        return labels == (1 if self.attacks == "anomalous" else 0)

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """(B,): how far x is from x0 in the norm, in double precision."""
        shift = (x.double() - x0.double()).flatten(1)
        return shift.abs().amax(1) if self.norm == "linf" else shift.norm(dim=1)

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """The nearest image to x that is in the ball around x0 and in [0, 1]; x0 itself must be in [0, 1]."""
        if self.norm == "linf":
            return x.clamp(x0 - self.radius, x0 + self.radius).clamp(0, 1)
        return x0 + self._scaled_into_box(x - x0, x0)

    def _scaled_into_box(self, shift: Tensor, x0: Tensor) -> Tensor:
        """The l2 projection is clip(x0 + c * shift) for the largest c <= 1 that stays in the ball.

        c is found by an active-set iteration: entries that meet the pixel range keep the value they have there,
        the others share what is left of the budget. c only grows, so every iterate is already inside.
        """
        low, high = -x0, 1 - x0
        c = torch.zeros((len(shift), *[1] * (shift.ndim - 1)), dtype=shift.dtype, device=shift.device)
        for _ in range(MAX_ACTIVE_SETS):
            scaled = c * shift
            inner = (scaled >= low) & (scaled <= high)
            free = _length(torch.where(inner, shift, 0))
            fixed = _length(torch.where(inner, 0, scaled.clamp(low, high)))
            left = (self.radius**2 - fixed**2).clamp_min(0).sqrt()
            grown = (left / free.clamp_min(torch.finfo(shift.dtype).tiny)).clamp_max(1).to(c).view_as(c)
            done = bool((grown <= c * (1 + 1e-7)).all())
            c = torch.maximum(c, grown)
            if done:
                break
        return (c * shift).clamp(low, high)

    def random_start(self, x0: Tensor, rng: Rng) -> Tensor:
        """A random image of the ball: uniform in the linf cube; in l2 a uniform direction, and a length up to
        half the budget, because steepest steps from the rim would be spent on walking around the sphere."""
        if self.norm == "linf":
            return self.project(x0 + self.radius * (2 * rng.uniform(x0) - 1), x0)
        direction = self.steepest(rng.normal(x0))
        length = rng.uniform(x0[:, :1, :1, :1])
        return self.project(x0 + self.radius / 2 * length * direction, x0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length 1 in the norm along which a linear function with this gradient grows fastest."""
        if self.norm == "linf":
            return gradient.sign()
        length = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        return gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny)

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


def _length(shift: Tensor) -> Tensor:
    """(B,): l2, in double precision: the sum of 200,000 rounded squares would miss the budget."""
    return torch.linalg.vector_norm(shift.flatten(1), dim=1, dtype=torch.float64)


MAX_ACTIVE_SETS = 20  # the iteration has always ended before; stopping earlier would still be in the ball
