"""The norms an adversary may be bounded in, one class each: all that the rest of the house asks of one of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from .rng import Rng


class Budget:
    """What an eps is."""

    name: ClassVar[str]
    expected: ClassVar[str]
    """What eps is and an example, for whoever typed something else."""
    counts: ClassVar[bool] = False
    """Whether eps is a number of pixels; else it is in pixel units."""

    def objection(self, eps: Fraction) -> str | None:
        """Why this eps, which is above 0, can be none in the norm: what follows `--eps 2 `; None if it can."""
        return None


class Norm(Budget, ABC):
    """The geometry of the images at most eps away from an image x0 (B, 3, H, W), on pixels in [0, 1].

    A subclass in `NORMS` is all that a norm takes: the command line, records, boards and the attacks that know no
    norm by name (pgd, noise, worst) follow the table.
    """

    @abstractmethod
    def distance(self, shift: Tensor) -> Tensor:
        """(B, 3, H, W) in double precision -> (B,): the length of each shift."""

    @abstractmethod
    def longest(self, shape: Sequence[int]) -> float:
        """The distance between the two images (3, H, W) that are furthest apart: a larger eps means nothing."""

    @abstractmethod
    def project(self, x: Tensor, x0: Tensor, eps: float) -> Tensor:
        """The nearest image to x that is within eps of x0 and in [0, 1]; x0 itself must be in [0, 1]."""

    @abstractmethod
    def random_start(self, x0: Tensor, eps: float, rng: Rng) -> Tensor:
        """A random image within eps of x0."""

    @abstractmethod
    def steepest(self, gradient: Tensor, eps: float, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        """The step of length 1 along which a linear function with this gradient grows fastest.

        Where `x` and the `length` by which the caller multiplies the step are given, a step may be made that no value
        needs to be cut from at the edge of [0, 1].
        """


class Linf(Norm):
    """The largest change of a value."""

    name = "linf"
    expected = "a number of pixel units in [0, 1], for example 2/255 or 0.2"

    def objection(self, eps: Fraction) -> str | None:
        if eps <= 1:
            return None
        grey_levels = eps <= 255 and eps.denominator == 1
        near = f"did you mean {eps}/255?" if grey_levels else f"expected {self.expected}"
        return f"is wider than the pixel range [0, 1] in linf; {near}"

    def distance(self, shift: Tensor) -> Tensor:
        return torch.linalg.vector_norm(shift.flatten(1), ord=torch.inf, dim=1)

    def longest(self, shape: Sequence[int]) -> float:
        return 1.0

    def project(self, x: Tensor, x0: Tensor, eps: float) -> Tensor:
        return x.clamp(x0 - eps, x0 + eps).clamp_(0, 1)

    def random_start(self, x0: Tensor, eps: float, rng: Rng) -> Tensor:
        """Uniform in the cube."""
        return self.project(x0 + eps * (2 * rng.uniform(x0) - 1), x0, eps)

    def steepest(self, gradient: Tensor, eps: float, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        return gradient.sign()


class L2(Norm):
    """The Euclidean length over all 3 x H x W values."""

    name = "l2"
    expected = "a length over all values in pixel units, for example 0.5"

    def distance(self, shift: Tensor) -> Tensor:
        return torch.linalg.vector_norm(shift.flatten(1), ord=2, dim=1)

    def longest(self, shape: Sequence[int]) -> float:
        return math.prod(shape) ** 0.5

    def project(self, x: Tensor, x0: Tensor, eps: float) -> Tensor:
        """clip(x0 + c * shift) for the largest c <= 1 that stays within eps."""
        shift = x - x0
        eps = eps * (1 - torch.finfo(shift.dtype).eps)
        length = _length(shift, 2)
        c = (eps / length.clamp_min(torch.finfo(shift.dtype).tiny)).clamp_max(1)
        there = torch.addcmul(x0, c.to(shift), shift)
        if not len(there):
            return there
        flat = there.flatten(1)
        clipped = ((flat.amin(1) < 0) | (flat.amax(1) > 1)).nonzero().flatten()
        if not len(clipped):
            return there
        few = (shift[clipped], x0[clipped], length.flatten()[clipped], c.flatten()[clipped])
        return there.index_copy_(0, clipped, _scaled_into_box(*few, eps))

    def random_start(self, x0: Tensor, eps: float, rng: Rng) -> Tensor:
        """A random direction, and a length up to half of eps: steepest steps from the rim would be spent on walking
        around it."""
        direction = rng.normal(x0)
        length = rng.uniform(x0[:, :1, :1, :1])
        return self.project(x0 + eps / 2 * length * _unit(direction, 2), x0, eps)

    def steepest(self, gradient: Tensor, eps: float, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        return _unit(gradient, 2)


class L1(Norm):
    """The sum of the changes of all values."""

    name = "l1"
    expected = "a sum over all values in pixel units, for example 12"

    def distance(self, shift: Tensor) -> Tensor:
        return torch.linalg.vector_norm(shift.flatten(1), ord=1, dim=1)

    def longest(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape))

    def project(self, x: Tensor, x0: Tensor, eps: float) -> Tensor:
        """Every value goes back towards x0 by the same c, but not past x0, and then into [0, 1] (Croce & Hein 2021,
        https://arxiv.org/abs/2103.01208).

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
        last = (length < eps).sum(1, keepdim=True).sub(1).clamp_min(0)  # the bend before c
        c = (offset.gather(1, last) - eps) / count.gather(1, last).clamp_min(1)
        moved = shift.sign() * torch.minimum((size - c.clamp_min(0)).clamp_min(0), room)
        exact = (start + moved).view_as(x0)
        found = exact.to(x0.dtype)
        # the roundings of all values add up: each goes towards x0
        beyond = (found.double() - x0.double()).abs() > moved.abs().view_as(x0)
        return torch.where(beyond, torch.nextafter(found, x0), found)

    def random_start(self, x0: Tensor, eps: float, rng: Rng) -> Tensor:
        """A random direction, and a length up to half of eps, as in l2."""
        direction = rng.normal(x0).sign() * rng.uniform(x0).clamp_min(1e-6).log()  # Laplace: all are as likely
        length = rng.uniform(x0[:, :1, :1, :1])
        return self.project(x0 + eps / 2 * length * _unit(direction, 1), x0, eps)

    def steepest(self, gradient: Tensor, eps: float, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        """One value takes all of it. Given x, no value gets more than it can use in [0, 1], and the next best ones get
        the rest."""
        flat = gradient.flatten(1)
        room = torch.full_like(flat, length) if x is None else torch.where(flat > 0, 1 - x.flatten(1), x.flatten(1))
        room = torch.where(flat == 0, 0, room.clamp(0, length))
        order = flat.abs().argsort(1, descending=True)
        room = room.gather(1, order).double()
        taken = torch.minimum(room, (length - (room.cumsum(1) - room)).clamp_min(0)).to(flat)
        return (torch.zeros_like(flat).scatter_(1, order, taken) * flat.sign() / length).view_as(gradient)


class L0(Norm):
    """The number of pixels that change; all three values of one may."""

    name = "l0"
    expected = "a whole number of pixels, for example 10"
    counts = True

    LEAP = 20
    """How far across the pixel range a step of length eps moves the best pixel. The larger, the more a projection
    chooses by what the pixels gain and the less by which of them have changed; the smaller, the finer the changes."""

    def objection(self, eps: Fraction) -> str | None:
        return None if eps.denominator == 1 else f"cannot be a number of pixels in l0; expected {self.expected}"

    def distance(self, shift: Tensor) -> Tensor:
        return (shift != 0).any(1).flatten(1).sum(1).double()

    def longest(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape[1:]))

    def project(self, x: Tensor, x0: Tensor, eps: float) -> Tensor:
        """Into [0, 1], and then only the pixels that come closest to x by changing (Croce & Hein 2019,
        https://arxiv.org/abs/1909.05040)."""
        inside = x.clamp(0, 1)
        closer = ((x - x0).square() - (x - inside).square()).sum(1, keepdim=True)  # (B, 1, H, W)
        return torch.where(_largest(closer, int(eps)), inside, x0)

    def random_start(self, x0: Tensor, eps: float, rng: Rng) -> Tensor:
        """Random pixels, up to half of the way to random values: a pixel that changes much is the last given up."""
        chosen, values = _largest(rng.uniform(x0[:, :1]), int(eps)), rng.uniform(x0)
        return torch.where(chosen, x0 + rng.uniform(x0[:, :1, :1, :1]) / 2 * (values - x0), x0)

    def steepest(self, gradient: Tensor, eps: float, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        """The gradient itself, for l0 is no norm: the projection chooses among its pixels."""
        best = gradient.abs().mean(1).flatten(1).amax(1).view(-1, 1, 1, 1)
        return self.LEAP / eps * gradient / best.clamp_min(torch.finfo(gradient.dtype).tiny)


NORMS: dict[str, Norm] = {norm.name: norm for norm in (Linf(), L2(), L1(), L0())}

SEMANTIC = "semantic"


class Share(Budget):
    """The box of light and pose (`core/semantic.py`). No norm: from an image nobody can tell how far it was moved."""

    name = SEMANTIC
    expected = "a share of the box of light and pose, for example 0.5; 1 is the whole box"

    def objection(self, eps: Fraction) -> str | None:
        return None if eps <= 1 else f"is more than the whole box of light and pose; expected {self.expected}"


NO_NORM = "semantic is a box of light and pose, no norm of an attack on pixels: `bench shift --worst 1` searches it"


def budget_of(name: str) -> Budget | None:
    """Of a norm, or of the box; None of a name that is neither."""
    return Share() if name == SEMANTIC else NORMS.get(name)


MAX_ACTIVE_SETS = 20  # the iteration has always ended before; stopping earlier would still be within eps


def _scaled_into_box(shift: Tensor, x0: Tensor, length: Tensor, c: Tensor, eps: float) -> Tensor:
    """clip(x0 + c * shift) for the largest c <= 1 that is at most eps away from x0 in l2, found from a smaller c (B,).

    Active sets: values that meet the pixel range keep what they have there, and the others share what is left of eps.
    c only grows, so every iterate is inside. Only values that would leave the range at c = 1 can meet it: they are
    few, and the iteration sees no others. length: (B,) of the shifts, in double: single precision loses count.
    """
    whole = x0 + shift
    place = (whole.clamp(0, 1) != whole).nonzero(as_tuple=True)
    image, moved, start = place[0], shift[place].double(), x0[place].double()
    squares, room = moved.square(), torch.where(moved > 0, 1 - start, start).square()
    others = length.square().index_add(0, image, -squares).clamp_min(0)
    for _ in range(MAX_ACTIVE_SETS):
        inner = c[image].square() * squares <= room
        free = others.index_add(0, image, torch.where(inner, squares, 0))
        left = eps**2 - torch.zeros_like(c).index_add(0, image, torch.where(inner, 0, room))
        grown = (left.clamp_min(0) / free.clamp_min(torch.finfo(c.dtype).tiny)).sqrt().clamp_max(1)
        done = bool((grown <= c * (1 + 1e-7)).all())
        c = torch.maximum(c, grown)
        if done:
            break
    return torch.addcmul(x0, c.view(-1, *[1] * (shift.ndim - 1)).to(shift), shift).clamp_(0, 1)


def _largest(pixels: Tensor, count: int) -> Tensor:
    """(B, 1, H, W) -> which pixels are the `count` largest of an image."""
    flat = pixels.flatten(1)
    chosen = flat.topk(min(count, flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view_as(pixels)


def _length(shift: Tensor, order: int) -> Tensor:
    """(B, 1, 1, 1): in the norm of that order, in double precision."""
    length = torch.linalg.vector_norm(shift.flatten(1), ord=order, dim=1, dtype=torch.float64)
    return length.view(-1, *[1] * (shift.ndim - 1))


def _unit(shift: Tensor, order: int) -> Tensor:
    return shift / _length(shift, order).clamp_min(torch.finfo(shift.dtype).tiny).to(shift)
