"""The threat model: how far the adversary may move an image, which images, and the geometry of that ball."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError
from .rng import Rng

Norm = Literal["linf", "l2", "l1", "l0"]
Targets = Literal["both", "normal", "anomalous"]
NORMS: tuple[Norm, ...] = get_args(Norm)
TARGETS: tuple[Targets, ...] = get_args(Targets)

TOLERANCE = 1e-6
"""How far outside the ball or the pixel range float rounding may put an image."""


EXPECTED = {
    "l2": "a length over all values in pixel units, for example 0.5",
    "l1": "a sum over all values in pixel units, for example 12",
    "l0": "a whole number of pixels, for example 10",
}
"""What a budget is, where it is not the size of one value."""


def parse_eps(value: str | float | Fraction, norm: str = "") -> Fraction:
    """`2/255`, `0.2` or a number -> an exact fraction, or a UserError that says what was expected."""
    shape = EXPECTED.get(norm, "a number of pixel units in [0, 1], for example 2/255 or 0.2")
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
    if norm == "l0" and eps.denominator != 1:
        raise UserError(f"--eps {value} cannot be a budget in l0; expected {shape}")
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

    norm: `linf` (largest change of a value), `l2` (Euclidean length over all 3 x H x W values), `l1` (sum of the
    changes of all values) or `l0` (number of pixels that change; all three values of one may).
    eps: kept exact; text such as `2/255` and numbers are converted. In l0 a whole number.
    targets: the test images that the adversary controls: `both`, `normal` or `anomalous`.
    """

    norm: Norm
    eps: Fraction
    targets: Targets = "both"

    if TYPE_CHECKING:  # what the constructor takes is wider than what the fields hold

        def __init__(self, norm: str, eps: str | float | Fraction, targets: str = "both") -> None: ...

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"unknown norm {self.norm!r}; expected one of {', '.join(NORMS)}")
        if self.targets not in TARGETS:
            raise UserError(f"unknown targets {self.targets!r}; expected one of {', '.join(TARGETS)}")
        object.__setattr__(self, "eps", parse_eps(self.eps, self.norm))

    @property
    def radius(self) -> float:
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
        shift = x.double() - x0.double()
        if self.norm == "l0":
            return (shift != 0).any(1).flatten(1).sum(1).double()
        return torch.linalg.vector_norm(shift.flatten(1), ord={"linf": torch.inf, "l2": 2, "l1": 1}[self.norm], dim=1)

    def longest(self, shape: Sequence[int]) -> float:
        """The distance between the two images (3, H, W) that are furthest apart: a larger budget means nothing."""
        values = math.prod(shape)
        return {"linf": 1.0, "l2": values**0.5, "l1": float(values), "l0": float(values // shape[0])}[self.norm]

    def refuse_longer(self, image_size: int, option: str = "--eps") -> None:
        """UserError if the budget, given as `option`, is longer than any change of an image of so many pixels."""
        if self.radius > self.longest((3, image_size, image_size)):
            unit = "counts pixels" if self.norm == "l0" else "is in pixel units in [0, 1]"
            raise UserError(
                f"{option} {eps_text(self.eps)} is longer than any change of a {image_size} pixel image in "
                f"{self.norm}; {option[2:]} {unit}"
            )

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """The nearest image to x that is in the ball around x0 and in [0, 1]; x0 itself must be in [0, 1]."""
        if self.norm == "linf":
            return x.clamp(x0 - self.radius, x0 + self.radius).clamp_(0, 1)
        if self.norm == "l1":
            return self._shrunk_into_box(x, x0)
        if self.norm == "l0":
            return self._best_pixels(x, x0)
        return self._scaled_into_box(x - x0, x0)

    def _shrunk_into_box(self, x: Tensor, x0: Tensor) -> Tensor:
        """The l1 projection (Croce & Hein 2021, https://arxiv.org/abs/2103.01208): every value goes back towards x0
        by the same c, but not past x0, and then into [0, 1].

        The length left after c is a sum of hinges: a value begins to count where c falls below its shift, and stops
        to grow where c falls below what its shift has beyond the range. Between neighbouring bends it is linear.
        """
        shift = (x.double() - x0.double()).flatten(1)
        start = x0.double().flatten(1)
        size, room = shift.abs(), torch.where(shift > 0, 1 - start, start)
        bends, order = torch.cat([size, size - room], 1).sort(1, descending=True)
        slope = torch.where(order < size.shape[1], 1.0, -1.0).to(bends)
        count, offset = slope.cumsum(1), (slope * bends).cumsum(1)
        length = offset - count * bends  # (B, bends): at each of them, rising
        last = (length < self.radius).sum(1, keepdim=True).sub(1).clamp_min(0)  # the bend before c
        c = (offset.gather(1, last) - self.radius) / count.gather(1, last).clamp_min(1)
        moved = shift.sign() * torch.minimum((size - c.clamp_min(0)).clamp_min(0), room)
        exact = (start + moved).view_as(x0)
        found = exact.to(x0.dtype)
        # the roundings of all values add up: each goes towards x0
        beyond = (found.double() - x0.double()).abs() > moved.abs().view_as(x0)
        return torch.where(beyond, torch.nextafter(found, x0), found)

    def _best_pixels(self, x: Tensor, x0: Tensor) -> Tensor:
        """The l0 projection (Croce & Hein 2019, https://arxiv.org/abs/1909.05040): into [0, 1], and then only the
        pixels that come closest to x by changing."""
        inside = x.clamp(0, 1)
        closer = ((x - x0).square() - (x - inside).square()).sum(1, keepdim=True)  # (B, 1, H, W)
        return torch.where(self._top(closer), inside, x0)

    def _top(self, pixels: Tensor) -> Tensor:
        """(B, 1, H, W) -> which pixels are the `eps` largest of an image."""
        flat = pixels.flatten(1)
        chosen = flat.topk(min(int(self.eps), flat.shape[1]), dim=1).indices
        return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view_as(pixels)

    def _scaled_into_box(self, shift: Tensor, x0: Tensor) -> Tensor:
        """The l2 projection is clip(x0 + c * shift) for the largest c <= 1 that stays in the ball."""
        radius = self.radius * (1 - torch.finfo(shift.dtype).eps)
        length = _length(shift, 2)
        c = (radius / length.clamp_min(torch.finfo(shift.dtype).tiny)).clamp_max(1)
        there = torch.addcmul(x0, c.to(shift), shift)
        if not len(there):
            return there
        flat = there.flatten(1)
        clipped = ((flat.amin(1) < 0) | (flat.amax(1) > 1)).nonzero().flatten()
        if not len(clipped):
            return there
        few = (shift[clipped], x0[clipped], length.flatten()[clipped], c.flatten()[clipped])
        return there.index_copy_(0, clipped, _clipped_into_ball(*few, radius))

    def random_start(self, x0: Tensor, rng: Rng) -> Tensor:
        """A random image of the ball: uniform in the linf cube; in l2 and l1 a random direction, and a length up to
        half the budget, because steepest steps from the rim would be spent on walking around it; in l0 random pixels,
        up to half of the way to random values, because a pixel that changes much is the last to be given up."""
        if self.norm == "linf":
            return self.project(x0 + self.radius * (2 * rng.uniform(x0) - 1), x0)
        if self.norm == "l0":
            chosen, values = self._top(rng.uniform(x0[:, :1])), rng.uniform(x0)
            return torch.where(chosen, x0 + rng.uniform(x0[:, :1, :1, :1]) / 2 * (values - x0), x0)
        direction = rng.normal(x0)
        if self.norm == "l1":  # Laplace: as likely in every direction of that ball
            direction = direction.sign() * rng.uniform(x0).clamp_min(1e-6).log()
        length = rng.uniform(x0[:, :1, :1, :1])
        return self.project(x0 + self.radius / 2 * length * _unit(direction, 2 if self.norm == "l2" else 1), x0)

    def steepest(self, gradient: Tensor, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        """The step of length 1 in the norm along which a linear function with this gradient grows fastest.

        In l1 one value takes all of it. Where `x` and the `length` by which the caller multiplies the step are given,
        no value gets more than it can use in [0, 1] from x, and the next best ones get the rest.
        In l0, which is no norm, it is the gradient itself, and the projection chooses among its pixels; a step as long
        as the budget is as large as moves the best of them LEAP times across the range.
        """
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l2":
            return _unit(gradient, 2)
        if self.norm == "l0":
            best = gradient.abs().mean(1).flatten(1).amax(1).view(-1, 1, 1, 1)
            return LEAP / self.radius * gradient / best.clamp_min(torch.finfo(gradient.dtype).tiny)
        flat = gradient.flatten(1)
        room = torch.full_like(flat, length) if x is None else torch.where(flat > 0, 1 - x.flatten(1), x.flatten(1))
        room = torch.where(flat == 0, 0, room.clamp(0, length))
        order = flat.abs().argsort(1, descending=True)
        room = room.gather(1, order).double()
        taken = torch.minimum(room, (length - (room.cumsum(1) - room)).clamp_min(0)).to(flat)
        return (torch.zeros_like(flat).scatter_(1, order, taken) * flat.sign() / length).view_as(gradient)

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


# The larger, the more a projection chooses by what the pixels gain and the less by which of them have changed; the
# smaller, the finer the changes.
LEAP = 20
MAX_ACTIVE_SETS = 20  # the iteration has always ended before; stopping earlier would still be in the ball


def _clipped_into_ball(shift: Tensor, x0: Tensor, length: Tensor, c: Tensor, radius: float) -> Tensor:
    """clip(x0 + c * shift) for the largest c <= 1 that is at most radius away from x0, found from a smaller c (B,).

    Active sets: values that meet the pixel range keep what they have there, and the others share what is left of the
    budget. c only grows, so every iterate is inside. Only values that would leave the range at c = 1 can meet it: they
    are few, and the iteration sees no others. length: (B,) of the shifts, in double: single precision loses count.
    """
    whole = x0 + shift
    place = (whole.clamp(0, 1) != whole).nonzero(as_tuple=True)
    image, moved, start = place[0], shift[place].double(), x0[place].double()
    squares, room = moved.square(), torch.where(moved > 0, 1 - start, start).square()
    others = length.square().index_add(0, image, -squares).clamp_min(0)
    for _ in range(MAX_ACTIVE_SETS):
        inner = c[image].square() * squares <= room
        free = others.index_add(0, image, torch.where(inner, squares, 0))
        left = radius**2 - torch.zeros_like(c).index_add(0, image, torch.where(inner, 0, room))
        grown = (left.clamp_min(0) / free.clamp_min(torch.finfo(c.dtype).tiny)).sqrt().clamp_max(1)
        done = bool((grown <= c * (1 + 1e-7)).all())
        c = torch.maximum(c, grown)
        if done:
            break
    return torch.addcmul(x0, c.view(-1, *[1] * (shift.ndim - 1)).to(shift), shift).clamp_(0, 1)


def _length(shift: Tensor, order: int) -> Tensor:
    """(B, 1, 1, 1): in the norm of that order, in double precision."""
    length = torch.linalg.vector_norm(shift.flatten(1), ord=order, dim=1, dtype=torch.float64)
    return length.view(-1, *[1] * (shift.ndim - 1))


def _unit(shift: Tensor, order: int) -> Tensor:
    return shift / _length(shift, order).clamp_min(torch.finfo(shift.dtype).tiny).to(shift)
