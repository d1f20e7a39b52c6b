"""What the minimum-norm attacks share: which side of the threshold an image is on, and the nearest image across it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bench import Attacked, Rng, Score, ThreatModel

from ._ascent import per_image

SLACK = 1e-6
"""By how much of the threshold a score must be across it: an image's float32 score is not the same in every batch."""
FARTHER = (1.0, 1.05, 1.2, 1.5, 2.0)
"""How far to go on along the ray of an image that noise made look as if it were across, before giving it up."""
HALVINGS = 10  # of the last interval: the radius along a ray is exact to a thousandth


class Side:
    """Where images are, seen from the threshold of a score.

    The score of a randomized detector is the mean over `draws`, as it is in pgd.
    """

    def __init__(self, score: Score, sign: Tensor, rng: Rng, draws: int, what: str, temperature: float = 0.0):
        self.score, self.sign, self.rng, self.temperature = score, sign, rng, temperature
        self.threshold = score.needed_threshold(what)
        self.draws = draws if score.randomized else 1

    def rows(self, keep: Tensor) -> Side:
        """Of some of the images."""
        part = object.__new__(Side)
        part.__dict__.update(self.__dict__, sign=self.sign[keep], rng=self.rng.rows(keep.tolist()))
        return part

    def child(self, *name: object) -> Side:
        """With noise of its own, fixed by `name`."""
        part = object.__new__(Side)
        part.__dict__.update(self.__dict__, rng=self.rng.child(*name))
        return part

    def smoothed(self, temperature: float) -> Side:
        """With another gradient (see `gradient`)."""
        part = object.__new__(Side)
        part.__dict__.update(self.__dict__, temperature=temperature)
        return part

    def excess(self, x: Tensor) -> Tensor:
        """(B,): sign * (score - threshold), above 0 where the decision is wrong."""
        return self.sign * (self.score.mean(x, self.rng, self.draws) - self.threshold)

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The excess (B,) and its gradient (B, 3, H, W); one draw in memory at a time.

        temperature: above 0, the gradient of a score that offers the local scores it is pooled from is that of their
        logsumexp, at this share of the distance between their largest value and their mean: every place near the
        largest pulls, not one alone.
        """
        total, slope = torch.zeros_like(self.sign), torch.zeros_like(x)
        for rng in self.rng.paired(self.draws):
            point = x.detach().requires_grad_(True)
            value, places = self.score.with_evidence(point, rng, wanted=self.temperature > 0)
            soft = value
            if places is not None:
                flat = places.detach()
                unit = self.temperature * (flat.amax(1) - flat.mean(1)).clamp_min(torch.finfo(flat.dtype).tiny)
                soft = unit * (places / unit[:, None]).logsumexp(1)
            (found,) = torch.autograd.grad((self.sign * soft).sum(), point)
            total += value.detach() / self.draws
            slope += found.nan_to_num(0, 0, 0) / self.draws
        return self.sign * (total - self.threshold), slope

    def crossed(self, excess: Tensor) -> Tensor:
        """(B,) bool: across, by enough for any batch to agree."""
        return excess > SLACK * abs(self.threshold)

    def wrong(self, excess: Tensor) -> Tensor:
        """(B,) bool: wrong as accuracy counts it, where a score equal to the threshold is normal."""
        return (excess > 0) | ((excess == 0) & (self.sign < 0))


class Nearest:
    """The nearest image across the threshold met so far, and the best one inside the ball, per image of a batch."""

    def __init__(self, x: Tensor, threat: ThreatModel, side: Side):
        self.x, self.threat, self.side = x, threat, side
        self.across, self.last = x.clone(), x.clone()
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        self.inside, self.value = x.clone(), torch.full_like(side.sign, -torch.inf)

    def meet(self, image: Tensor, excess: Tensor) -> Tensor:
        """Keep what is better; (B,) bool: which are across."""
        away = self.threat.distance(image, self.x)
        crossed = self.side.crossed(excess)
        nearer = crossed & (away < self.distance)
        self.across, self.distance = _pick(nearer, image, self.across), torch.where(nearer, away, self.distance)
        better = (away <= self.threat.radius) & (excess > self.value)
        self.inside, self.value = _pick(better, image, self.inside), torch.where(better, excess, self.value)
        self.last = image
        return crossed

    def finish(self) -> tuple[Tensor, Tensor]:
        """Images of the ball, and the radii (B,): inf where nothing was found.

        Along the segment from the image to the nearest one across, the crossing is found by halving, under one noise.
        """
        side, threat, x = self.side.child("finish"), self.threat, self.x

        def excess(image: Tensor) -> Tensor:
            return side.child("same").excess(image)  # the same draws at every call

        found = self.distance.isfinite()
        shift = torch.where(per_image(found), self.across - x, 0)
        low, high = torch.zeros_like(side.sign), torch.full_like(side.sign, torch.inf)
        for t in FARTHER:
            open_ = found & high.isinf()
            if not open_.any():
                break
            across = side.crossed(excess((x + t * shift).clamp(0, 1)))
            low, high = torch.where(open_ & ~across, t, low), torch.where(open_ & across, t, high)
        found = found & high.isfinite()
        high = torch.where(found, high, 0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            across = side.crossed(excess((x + per_image(middle) * shift).clamp(0, 1)))
            low, high = torch.where(across, low, middle), torch.where(across, middle, high)
        at = (x + per_image(high) * shift).clamp(0, 1)
        radius = torch.where(found, threat.distance(at, x), torch.inf)
        near = found & (radius <= threat.radius)
        if near.all():
            return at, radius
        # a search for the nearest crossing, which is far away, may have seen nothing good inside the ball
        uphill = threat.steepest(side.child("uphill").gradient(x)[1], x, threat.radius)
        candidates = [x, self.inside, threat.project(_pick(found, at, self.last), x)]
        candidates.append(threat.project(x + threat.radius * uphill, x))
        values = torch.stack([excess(image) for image in candidates])
        value, best = values.max(0)
        inside = torch.stack(candidates)[best, torch.arange(len(x), device=x.device)]
        radius = torch.where(~near & side.crossed(value), threat.distance(inside, x).clamp_max(threat.radius), radius)
        return _pick(near, at, inside), radius


class Problem(NamedTuple):
    """What a search is given: images on the right side, the ball, and the noise of the search."""

    x: Tensor
    side: Side
    threat: ThreatModel
    rng: Rng


def radii(
    x: Tensor, side: Side, threat: ThreatModel, name: str, search: Callable[[Problem, Nearest], None]
) -> Attacked:
    """Run `search` on the images that are on the right side; the others have the radius 0."""
    wrong = side.wrong(side.child("clean").excess(x))
    left = (~wrong).nonzero().flatten()
    images, radius = x.clone(), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if len(left):
        part = side.rows(left)
        nearest = Nearest(x[left], threat, part)
        search(Problem(x[left], part, threat, part.rng), nearest)
        images[left], radius[left] = nearest.finish()
    return Attacked({name: images}, {"radius": radius})


def _pick(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(per_image(chosen), a, b)
