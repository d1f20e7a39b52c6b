"""Whether the score moves along steps as long as the ball in ways that its gradient does not tell.

A staircase with a smooth decoy has a right gradient at every point and another slope from stair to stair. An adversary
who asks for scores alone sees that one: differences over steps of the size of eps, along directions that mean something
to any detector of anomalies, and their sum, which estimates a gradient (SPSA, Spall 1992; natural evolution strategies,
Ilyas et al. 2018, https://arxiv.org/abs/1804.08598).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.rng import probe_lot
from ..engine.witness import looked_at
from .reattack import Reattack

FIRST = 2  # images of each class; the other first ones where it is about as far at one of these
NEAR = 0.9  # of the attack's gain at an image: as far as the attack, or about
MORE = 12  # images of each class, where it is ahead at one of the first
SMOOTHED = (3, 7)  # pixels, over which an image is averaged
BLOCKS, AGAIN = (1, 2, 4, 8, 16), (2, 4, 8)  # pixels: sides of squares of one random sign, twice
NORMS = ("linf", "l2")
AHEAD = 0.25  # of the attack's median gain: by how much the estimate must be ahead at an image to count
EXTRA = 0.25  # of that gain: what it may add in the mean over the images, if it is ahead at more than one


def long_steps_reach_no_further(reattack: Reattack) -> tuple[bool, str]:
    """An attack that estimates the gradient over the width of the ball must not outdo one that is given it."""
    if reattack.threat.norm not in NORMS:
        return True, f"not checked in {reattack.threat.norm}"
    if reattack.at_threshold:
        return True, "not checked: the attack aims at the threshold"
    if not (reattack.attack.needs_gradient or reattack.attack.parts):
        return True, "not checked: the attack is a black box itself"
    first = looked_at(len(reattack.rows))
    some = _chosen(reattack, 0, min(FIRST, first))
    gained, near = _gained(reattack, some)
    if near and (others := _chosen(reattack, FIRST, first)):
        some, gained = some + others, torch.cat([gained, _gained(reattack, others)[0]])
    if (gained > 0).sum() == 1 and (others := _chosen(reattack, first, first + MORE)):
        some, gained = some + others, torch.cat([gained, _gained(reattack, others)[0]])
    count, mean = int((gained > 0).sum()), float(gained.mean())
    return count <= 1 or mean <= EXTRA * reattack.unit, (
        f"a gradient estimated from scores at the rim of the ball leads further than the attack at {count} of "
        f"{len(some)} images, and adds {mean:.2g} in the mean (the attack gains {reattack.unit:.2g} in the median)"
    )


def _chosen(reattack: Reattack, first: int, last: int) -> list[int]:
    """Rows, of each class that is attacked those of these places by lot."""
    found = []
    for label in (0, 1):
        own = [i for i, attacked in enumerate(reattack.attacked_rows) if attacked and reattack.rows[i].label == label]
        found += sorted(own, key=lambda i: probe_lot(reattack.spec.seed, f"steps\t{reattack.rows[i].id}"))[first:last]
    return found


def _gained(reattack: Reattack, some: Sequence[int]) -> tuple[Tensor, bool]:
    """(N,): how much further the estimate ends than the rows; 0 where it is not ahead by more than the margin. And
    whether it is near at any."""
    worker = reattack.worker
    x = reattack.data.test.images(some).to(reattack.prepared.device)
    labels = [reattack.rows[i].label for i in some]
    sign = torch.tensor([1.0 - 2 * label for label in labels]).to(x)
    images = _Estimate(reattack, x, sign, labels, some).run()
    scores = worker.score.mean(images, worker.rng(some).for_evaluation(), worker.draws).double().cpu()
    clean, reached = (
        sign.double().cpu() * torch.tensor([getattr(reattack.rows[i], name) for i in some], dtype=torch.float64)
        for name in ("clean", "worst")
    )
    ends = sign.double().cpu() * scores
    open_ = ~worker.score.done(reached, sign.double().cpu())
    near = bool((open_ & (ends - clean >= NEAR * (reached - clean))).any())
    ahead = (ends - reached > max(AHEAD * reattack.unit, reattack.floor)) & open_
    return torch.where(ahead, ends - reached, 0), near


class _Estimate:
    """The best image that is met while the gradient of sign * score is estimated, from the image itself on."""

    def __init__(self, reattack: Reattack, x: Tensor, sign: Tensor, labels: Sequence[int], some: Sequence[int]):
        self.threat, self.x, self.sign, self.labels = reattack.threat, x, sign, labels
        score, self.rng = reattack.worker.score, reattack.worker.rng(some)
        self.score = score.with_known_noise() if score.randomized else score
        self.best, self.best_value = x.clone(), self._value(x)
        self.slope = torch.zeros_like(x)

    def run(self) -> Tensor:
        """(N, 3, H, W)"""
        generator = torch.Generator().manual_seed(0)
        for direction in (*self._towards(), *blocks(self.x, BLOCKS, generator)):
            self._differ(self.x, direction)
        self._look(self.slope)
        here = self.best
        for direction in blocks(self.x, AGAIN, generator):
            self._differ(here, direction)
        self._look(self.slope)
        return self.best

    def _differ(self, here: Tensor, direction: Tensor) -> None:
        """Both ends of the ball along this direction, through `here`."""
        step = self.threat.radius * self.threat.steepest(direction)
        up, down = (self.threat.project(here + way * step, self.x) for way in (1, -1))
        apart = up - down
        value, other = self._value(torch.cat([up, down])).chunk(2)
        self._keep(up, value)
        self._keep(down, other)
        change = value - other
        length = apart.flatten(1).square().sum(1).clamp_min(1e-12)
        self.slope += (change / length)[:, None, None, None] * apart

    def _look(self, slope: Tensor) -> None:
        """A full step along the estimate."""
        images = self.threat.project(self.x + self.threat.radius * self.threat.steepest(slope), self.x)
        self._keep(images, self._value(images))

    def _keep(self, images: Tensor, value: Tensor) -> None:
        """The best are kept."""
        better = value > self.best_value
        self.best = torch.where(better[:, None, None, None], images, self.best)
        self.best_value = torch.where(better, value, self.best_value)

    def _value(self, images: Tensor) -> Tensor:
        """sign * score of the images, once or several times."""
        times = len(images) // len(self.x)
        with torch.no_grad():
            return self.sign.repeat(times) * self.score(images, self.rng.rows([*range(len(self.x))] * times))

    def _towards(self) -> Iterator[Tensor]:
        """What makes an image smoother, and towards other images of both classes."""
        for side in SMOOTHED:
            yield F.avg_pool2d(F.pad(self.x, (side // 2,) * 4, mode="reflect"), side, 1) - self.x
        for label in (0, 1):
            of_class = [i for i, y in enumerate(self.labels) if y == label]
            for place in (0, -1):
                if of_class:
                    yield self.x[of_class[place]] - self.x


def blocks(x: Tensor, sides: Sequence[int], generator: torch.Generator) -> Iterator[Tensor]:
    """(N, 3, H, W) of 1 and -1, in squares."""
    height, width = x.shape[2:]
    for side in sides:
        shape = (len(x), x.shape[1], -(-height // side), -(-width // side))
        yield F.interpolate(torch.randn(shape, generator=generator).sign().to(x), scale_factor=side)[
            ..., :height, :width
        ]
