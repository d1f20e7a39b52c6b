"""Whether the gradient is that of the score, and leads somewhere: what gradient attacks rest on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.detector import Detector
from ..core.rng import Rng
from ..core.score import Score
from .probe import NO_PATH, NOT_DIFFERENTIABLE, Probe

ATTACK_STEPS = 3  # to the point of the attacked images at which the gradient is checked
ATTACK_RADIUS = 2 / 255
DIRECTIONS = 8
GRADIENT_TOLERANCE = {"double": 0.02, "single": 0.1}  # median relative disagreement with finite differences
SAME_OBJECT = 0.25  # the same of the detector that is attacked, beside its copy in double precision
MIXING_TOLERANCE = 1e-6  # of an image's own gradient: that of its score at another image
NEARBY = (1e-4, 3e-4)  # uniform noise, in [0, 1] pixels, at which a gradient should still be about the same
ALIGNED = 0.5  # cosine between both, in the median over images; docs/checks.md says what real detectors have
ALL_ZERO = 0.9995  # of the entries of a gradient: what is left is no direction
REACH = 1e-4  # of the spread of scores: what a full step along the gradient must promise
LOOKED_AHEAD = (1e-3, 1 / 255)  # of a gradient that is said not to be there, in [0, 1] pixels
STEPS = (1e-6, 1e-8, 1e-9)  # of the finite differences in double precision, in [0, 1] pixels
SINGLE_STEPS = (1e-3, 1e-4, 2.5e-5)  # and in single: rounding blurs shorter ones, kinks longer ones


class Slope(NamedTuple):
    """The score of a detector as a function of the images, with its gradient."""

    detector: Detector
    ids: Sequence[str]

    @property
    def what(self) -> str:
        """What it is the slope of."""
        return "the score"

    def scores(self, images: Tensor) -> Tensor:
        """(B,), under noise that is the same at every call."""
        return Score(self.detector)(images, Rng(0, self.ids))

    def gradient(self, images: Tensor) -> Tensor | None:
        """(B, 3, H, W); None where no gradient reaches the images."""
        point = images.clone().requires_grad_(True)
        value = self.scores(point)
        return torch.autograd.grad(value.sum(), point, allow_unused=True)[0] if value.requires_grad else None


def has_gradient(detector: Detector, images: Tensor, ids: Sequence[str]) -> bool:
    """Whether attacks may follow the gradient of the score: what a detector declares, unless it declares that there is
    none, and there is."""
    try:
        return detector.differentiable or leads_somewhere(detector, images, ids)
    except Exception:  # of a plug-in that has no gradient
        return False


def leads_somewhere(detector: Detector, images: Tensor, ids: Sequence[str]) -> bool:
    """Whether autograd gives a gradient along which the score moves as it promises, at most of these images
    (N, 3, H, W). Raises what the detector raises."""
    slope = Slope(detector, ids)
    gradient = slope.gradient(images)
    if gradient is None or not gradient.isfinite().all():
        return False
    with torch.no_grad():
        return any(_promise_is_kept(slope, images, gradient, step) for step in LOOKED_AHEAD)


def _promise_is_kept(slope: Slope, x: Tensor, gradient: Tensor, step: float) -> bool:
    """Within a factor of 2, at most images."""
    claimed = 2 * step * gradient.flatten(1).abs().sum(1)
    measured = slope.scores(x + step * gradient.sign()) - slope.scores(x - step * gradient.sign())
    kept = (claimed > 0) & (measured > claimed / 2) & (measured < 2 * claimed)
    return bool(kept.double().mean() > 0.5)


def gradient_is_the_gradient(probe: Probe) -> tuple[bool, str]:
    """Autograd against central finite differences: in double precision, of a copy, where the detector allows it, and of
    the very detector that is attacked, as coarsely as single precision sees.

    Along random sign directions and along the gradient itself, at normal and anomalous images and where an attack takes
    them. A branch that was detached leaves a gradient that is not zero, and wrong; this finds it.
    """
    if not probe.differentiable:
        return True, NOT_DIFFERENTIABLE
    slope, x, steps = in_double_precision(probe)
    precision = "double" if x.dtype == torch.float64 else "single"
    passed, said = agrees(slope, x, steps, precision, GRADIENT_TOLERANCE[precision])
    if not passed or precision == "single":
        return passed, said
    itself = Slope(probe.detector, probe.ids)
    passed, also = agrees(itself, probe.images, SINGLE_STEPS, "single", SAME_OBJECT, ("clean",))
    return (
        passed,
        f"{said}; {also}" if passed else f"{also}, and in a copy of the detector in double precision it agrees",
    )


def agrees(
    slope: Slope,
    x: Tensor,
    steps: Sequence[float],
    precision: str,
    tolerance: float,
    places: Sequence[str] = ("clean", "attacked"),
) -> tuple[bool, str]:
    """Whether the gradient is that of the score at these images, and where an attack takes them."""
    # Half a grey level of noise: in a saturated background, filters meet exact ties, where no gradient is defined
    dither = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).to(x) - 0.5
    x = x.clamp(0.01, 0.99) + dither / 255
    worst: dict[str, float] = {}
    for place in places:
        gradient = slope.gradient(x)
        if gradient is None:
            return False, NO_PATH
        if blind := _blind(gradient, place):
            return False, blind
        worst[place] = _least_disagreement(slope, x, gradient, steps, tolerance / 10)
        if worst[place] > tolerance:
            return False, (
                f"the gradient is not that of {slope.what}: at {place} images it disagrees with finite differences by "
                f"{worst[place]:.0%} ({precision} precision)"
            )
        if place != places[-1]:
            x = _attacked(slope, x)
    at = " and ".join(f"{off:.1e} at {place}" for place, off in worst.items())
    return True, f"the gradient agrees with finite differences to {at} images ({precision} precision)"


def in_double_precision(probe: Probe) -> tuple[Slope, Tensor, tuple[float, ...]]:
    """A copy in double precision, its images and the steps of the differences; as it is where it insists on single."""
    try:
        double = copy.deepcopy(probe.detector).double()
        double.score(probe.images[:1].double())
    except Exception:  # float32 inside: constants, or a library that insists
        return Slope(probe.detector, probe.ids), probe.images, (1e-3,)
    return Slope(double, probe.ids), probe.images.double(), STEPS


def _blind(gradient: Tensor, place: str) -> str | None:
    """What is wrong with a gradient (N, 3, H, W) that nothing can be compared with; None if nothing is."""
    if not gradient.isfinite().all():
        return f"the gradient is not finite at {place} images"
    flat = gradient.flatten(1).abs().amax(1) == 0
    for kind, half in (("normal", flat[: len(flat) // 2]), ("anomalous", flat[len(flat) // 2 :])):
        if half.sum() > len(half) / 2:
            return (
                f"the gradient is zero at {int(half.sum())} of {len(half)} {place} {kind} images: the score is "
                "rounded or saturated"
            )
    return None


def _attacked(slope: Slope, x: Tensor) -> Tensor:
    """Where a few steps of an attack take the images: normal ones up, anomalous ones down."""
    sign = torch.ones(len(x), 1, 1, 1).to(x)
    sign[len(x) // 2 :] = -1
    for _ in range(ATTACK_STEPS):
        ascent = slope.gradient(x)
        if ascent is not None:
            x = x + sign * ATTACK_RADIUS / ATTACK_STEPS * ascent.nan_to_num(0, 0, 0).sign()
    return x


def _least_disagreement(
    slope: Slope, x: Tensor, gradient: Tensor, steps: Sequence[float], close_enough: float
) -> float:
    """A wrong gradient is wrong at every step; a right one may need a short one, between the kinks of a network."""
    least = math.inf
    for step in steps:
        least = min(least, _disagreement(slope.scores, x, gradient, step))
        if least < close_enough:
            break
    return least


def _disagreement(scores: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor, step: float) -> float:
    """Relative to the larger of the two derivatives: the median over directions at each image, its median over the
    images of a class, and the larger of both classes, so that a gradient masked at one class cannot hide.

    An image without any gradient has nothing to compare.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    with torch.no_grad():
        for k in range(DIRECTIONS):
            direction = torch.randn(x.shape, generator=generator).to(x).sign() if k else gradient.sign()
            claimed = (gradient * direction).flatten(1).sum(1)
            measured = (scores(x + step * direction) - scores(x - step * direction)) / (2 * step)
            scale = torch.maximum(claimed.abs(), measured.abs())
            found.append((claimed - measured).abs() / scale)  # 0 / 0 is nan, and left out
    per_image = torch.stack(found).nanquantile(0.5, dim=0)
    halves = per_image[: len(x) // 2], per_image[len(x) // 2 :]
    return max(float(half.nanquantile(0.5).nan_to_num(torch.inf)) for half in halves)


def images_do_not_mix(probe: Probe) -> tuple[bool, str]:
    """d s_i / d x_j = 0: what an attack follows at one image is of that image alone."""
    if not probe.differentiable:
        return True, NOT_DIFFERENTIABLE
    x = probe.images.clone().requires_grad_(True)
    scores = Score(probe.detector)(x, Rng(0, probe.ids))
    if not scores.requires_grad:
        return True, NO_PATH
    for i in (0, len(x) - 1):
        found: Sequence[Tensor | None] = torch.autograd.grad(scores[i], x, retain_graph=True, allow_unused=True)
        gradient = found[0]
        if gradient is None:
            return True, NO_PATH
        size = gradient.flatten(1).abs().amax(1)
        others = float(torch.cat([size[:i], size[i + 1 :]]).max())
        if others > MIXING_TOLERANCE * float(size[i]):
            return False, (
                f"the gradient of one image's score is {others:.1e} at another image of the batch "
                f"({float(size[i]):.1e} at its own): images are mixed"
            )
    return True, "no gradient flows between the images of a batch"


def gradient_can_be_followed(probe: Probe) -> tuple[bool, str]:
    """Neither vanishing nor shattered: it promises a change that counts, and is about the same a little further on."""
    if not probe.differentiable:
        return True, NOT_DIFFERENTIABLE
    slope, x = Slope(probe.detector, probe.ids), probe.images
    gradient = slope.gradient(x)
    if gradient is None:
        return False, NO_PATH
    flat = gradient.nan_to_num(0, 0, 0).flatten(1)
    zeros = float((flat == 0).double().mean(1).median())
    if zeros > ALL_ZERO:
        return False, f"{zeros:.2%} of the gradient's entries are exactly zero: nothing can be followed"
    with torch.no_grad():
        reach = float((flat.abs().sum(1) * ATTACK_RADIUS).median()) / probe.spread(slope.scores(x))
    if reach < REACH:
        return False, (
            f"the gradient vanishes: a step of {ATTACK_RADIUS * 255:.0f}/255 along it promises {reach:.1e} of the "
            "spread of scores"
        )
    aligned, same_sign = _beside(slope, x, flat)
    said = f"the gradient's cosine with the one {NEARBY[0]:g} away is {aligned[0]:.2f} ({same_sign[0]:.0%} same signs)"
    if max(aligned) < ALIGNED:
        return False, f"{said}: it is shattered"
    return True, f"{said}; {zeros:.0%} of its entries are zero"


def _beside(slope: Slope, x: Tensor, flat: Tensor) -> tuple[list[float], list[float]]:
    """Of the gradient (N, P) and those a little further on: cosine, and share of equal signs, medians over images."""
    generator = torch.Generator().manual_seed(0)
    aligned, same_sign = [], []
    for level in NEARBY:
        noise = 2 * torch.rand(x.shape, generator=generator).to(x) - 1
        beside = slope.gradient((x + level * noise).clamp(0, 1))
        assert beside is not None
        beside = beside.nan_to_num(0, 0, 0).flatten(1)
        aligned.append(float(F.cosine_similarity(flat, beside).median()))
        same_sign.append(float((flat.sign() == beside.sign()).double().mean(1).median()))
    return aligned, same_sign
