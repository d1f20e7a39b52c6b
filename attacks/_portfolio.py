"""Many short ascents and a long one of the best, image by image: how passes are spent where they move a score.

The landscape of an anomaly score has many hills, and an ascent ends on the one it began at. So a number of *arms*
begin in several places and along several objectives; each image keeps those that brought it most, and the best along
each objective, and goes on with them alone (successive halving: Karnin, Koren & Somekh 2013; Jamieson & Talwalkar 2016,
https://arxiv.org/abs/1502.07943). Every arm is a run of Auto-PGD (`apgd`).

Raising a score that is the largest of many local ones is a choice among places; lowering it means lowering all of
them. A normal image has an arm for each of the places that a dozen coarse shifts raise most, an anomalous one ends on a
smooth maximum that becomes sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Rng, Score, ThreatModel

from ._ascent import SHARES, SMALLEST_SPREAD, TEMPERATURES, Climb, per_image
from .apgd import AT_REST, _Run, checkpoints

SCORE, LOGSUMEXP, TOP, MEAN, PLACE, COLD = range(6)
"""What an arm follows: the objectives of `Climb`; one local score; logsumexp at its last temperature and below."""
COLDEST = 0.005  # standard deviations of the local scores
BLOCKS = ((1.0, 0.0), (1.0, 0.25), (0.0, 0.0625), (0.0, 0.125), (0.0, 0.25), (0.25, 1.0), (0.0, 0.03), (1.0, 0.0625))
"""Height and width of the blocks of coarse shifts, as shares of the image's; 0 is square with the other, or a pixel."""
NEAR = 1 / 16  # of the map's side: two peaks are further apart

SETTLED, AT_REST_AT_LAST, SPENT = 1.0, 2.0, 3.0
"""Why the attack on an image ended: no pair could flip any more; its steps brought nothing; all passes were used."""


class Arm(NamedTuple):
    """What each of the images follows in one run, and from where."""

    kind: Tensor
    """(B,)"""
    place: Tensor
    """(B,): the index of the local score, of PLACE."""
    images: Tensor
    """(B, 3, H, W)"""


class _Weighted(Climb):
    """Each image climbs an objective of its own, which is a weighting of its local scores."""

    kind: Tensor
    place: Tensor
    span: tuple[float, float]
    cost: Tensor

    def gradient(self, here: Tensor, objective: str, progress: float) -> tuple[Tensor, Tensor]:
        self.cost[self.rows] += 2 * self.per_step
        return super().gradient(here, objective, progress)  # type: ignore[arg-type]

    def look(self, here: Tensor) -> Tensor:
        self.cost[self.rows] += self.draws
        return super().look(here)

    def _pooled(self, evidence: Tensor, objective: str, progress: float) -> Tensor:
        """(n, P) -> (n,), for its gradient. progress: of this run; the span is its part of the whole."""
        local, kind = evidence.detach(), self.kind[self.rows]
        assert self.spread is not None
        done = self.span[0] + (self.span[1] - self.span[0]) * progress
        warm = TEMPERATURES[0] * (TEMPERATURES[1] / TEMPERATURES[0]) ** done
        cold = TEMPERATURES[1] * (COLDEST / TEMPERATURES[1]) ** progress
        temperature = torch.where(kind == COLD, cold, warm).to(local) * self.spread[self.rows]
        weights = torch.softmax(local / temperature[:, None], 1)
        if (kind == TOP).any():
            count = max(round(SHARES[0] * (SHARES[1] / SHARES[0]) ** done * local.shape[1]), 1)
            highest = local.topk(count, 1).indices
            weights = torch.where(
                (kind == TOP)[:, None], torch.zeros_like(local).scatter(1, highest, 1 / count), weights
            )
        if (kind == MEAN).any():
            weights = torch.where((kind == MEAN)[:, None], 1 / local.shape[1], weights)
        if (kind == PLACE).any():
            one = torch.zeros_like(local).scatter(1, self.place[self.rows][:, None], 1.0)
            weights = torch.where((kind == PLACE)[:, None], one, weights)
        return (weights * evidence).sum(1)


class Schedule(NamedTuple):
    """Gradient steps; all arms of one line run for as many steps each."""

    places: tuple[int, int, int] = (0, 0, 0)
    """How many places, for how many steps each; how many of them go on beside the other arms."""
    arms: int = 12
    """Steps of each of the other arms."""
    further: tuple[int, int, float] = (1, 20, 1.0)
    """How many of the best go on, for how many steps; length of the first step, in eps."""
    last: tuple[tuple[int, int, float], ...] = ()
    """From the best image: what is followed, for how many steps, and the first step's length."""
    finalists: int = 1
    """From so many of the best arms the first of `last` is run."""

    def scaled(self, share: float) -> Schedule:
        """With this share of the steps, and one of each at least."""

        def of(steps: int) -> int:
            return max(round(share * steps), 1)

        count, steps, kept = self.places
        again, further, first = self.further
        return Schedule(
            (count, of(steps), kept),
            of(self.arms),
            (again, of(further), first),
            tuple((kind, of(steps), first) for kind, steps, first in self.last),
            self.finalists,
        )


@dataclass
class Portfolio:
    """The images of one class of a batch under attack by a detector that draws no noise."""

    score: Score
    x: Tensor
    sign: Tensor
    threat: ThreatModel
    rng: Rng

    def __post_init__(self) -> None:
        self.best, self.value = self.x.clone(), torch.full_like(self.sign, -torch.inf)
        self.cost = torch.zeros_like(self.sign)
        """(B,): forward and backward passes of each image."""
        self.at_rest = torch.zeros_like(self.sign, dtype=torch.bool)
        self.potential: Tensor | None = None
        """(B, P): the largest that each local score was under a coarse shift."""
        self.spread: Tensor | None = None

    @property
    def stopped(self) -> Tensor:
        """(B,): one of SETTLED, AT_REST_AT_LAST, SPENT."""
        ended = torch.where(self.at_rest, AT_REST_AT_LAST, SPENT)
        return torch.where(self.score.done(self.value, self.sign), SETTLED, ended).to(self.value)

    def look_around(self, shifts: int, starts: Tensor | None) -> Tensor:
        """The best (B, 3, H, W) of the images, of so many coarse shifts and of `starts`; one forward pass each.

        A score with a kink at the image, as a distance to the nearest of many has, hides from the gradient there what a
        shift of half of the image shows.
        """
        self.source = self.x.repeat(1, 1, 1, 1)
        others = [starts] if starts is not None else []
        for image in (self.x, *others, *coarse(self.x, self.threat, self.rng, shifts)):
            with torch.no_grad():
                scores, local = self.score.with_evidence(image, self.rng)
            self.cost += 1
            self._keep(image, self.sign * scores)
            if local is not None:
                self._see(image, local)
        return self.best

    def _see(self, image: Tensor, local: Tensor) -> None:
        if self.potential is None:
            self.potential, self.shown_by = local.clone(), [self.x]
            self.which = torch.zeros_like(local, dtype=torch.long)
            self.spread = local.std(1, correction=0).clamp_min(SMALLEST_SPREAD)
            return
        better = local > self.potential
        self.which = torch.where(better, len(self.shown_by), self.which)
        self.potential = torch.where(better, local, self.potential)
        self.shown_by.append(image)

    def places(self, count: int) -> list[Arm]:
        """Arms at the highest peaks of the potential, each from the image that shows it highest."""
        if self.potential is None or not count:
            return []
        peaks = peaks_of(self.potential, count)
        rows, shown = torch.arange(len(self.x), device=self.x.device), torch.stack(self.shown_by)
        which = self.which.gather(1, peaks)
        kind = torch.full_like(peaks[:, 0], PLACE)
        return [Arm(kind, peaks[:, j], shown[which[:, j], rows]) for j in range(peaks.shape[1])]

    def arm(self, kind: int, images: Tensor) -> Arm:
        """All images follow the same."""
        kinds = torch.full((len(self.x),), kind, device=self.x.device)
        return Arm(kinds, torch.zeros_like(kinds), images)

    def run(self, arm: Arm, name: object, steps: int, first: float, span: tuple[float, float] = (0.0, 1.0)) -> Arm:
        """Where the arm is best, and by `value` how high; images whose goal is reached stay where they are."""
        open_ = (~self.score.done(self.value, self.sign)).nonzero().flatten()
        self.reached = torch.full_like(self.value, -torch.inf)
        if not len(open_):
            return arm
        climb = _Weighted(self.score, self.x[open_], self.sign[open_], 1)
        climb.kind, climb.place, climb.span = arm.kind[open_], arm.place[open_], span
        climb.cost, climb.direct = torch.zeros_like(climb.sign), arm.kind[open_] == SCORE
        climb.spread = None if self.spread is None else self.spread[open_]
        climb.begin(self.rng.rows(open_.tolist()).child(name))
        rested = self._climb(climb, arm.images[open_], open_, steps, first)
        self.cost[open_] += climb.cost
        self.at_rest[open_] = rested
        images = arm.images.index_copy(0, open_, climb.best)
        self.reached[open_] = climb.best_value
        self._keep(images, self.reached)
        return Arm(arm.kind, arm.place, images)

    def _climb(self, climb: _Weighted, here: Tensor, which: Tensor, steps: int, first: float) -> Tensor:
        """Auto-PGD's schedule; (n,) bool: who came to rest before the last step."""
        windows, last = checkpoints(steps), 0
        rested = torch.zeros_like(climb.direct)
        run = _Run(here, self.x[which], torch.full_like(climb.sign, first * self.threat.radius))
        for i in range(steps):
            run.meet(*climb.gradient(run.here, "weighted", i / steps))
            gone = climb.done()
            if i in windows:
                climb.direct[climb.rows[run.gained_nothing()]] = True
                still = run.end_window(i - last, AT_REST * self.threat.radius)
                rested[climb.rows[still]] = True
                gone, last = gone | still, i
            if gone.any():
                stay = climb.leave(gone)
                run.keep(stay)
                if not len(stay):
                    break
            run.move(self.threat)
        climb.end(run.here)
        return rested

    def best_of(
        self, arms: Sequence[Arm], values: Sequence[Tensor], count: int, kinds: Sequence[int] = ()
    ) -> tuple[list[Arm], list[Tensor]]:
        """Of each image the arms that reached most, best first; the best of each of the `kinds` before the others."""
        reached = torch.stack(list(values))
        favour = torch.zeros_like(reached)
        for kind in set(kinds):
            own = torch.tensor([k == kind for k in kinds], device=reached.device)[:, None]
            favour.scatter_(0, reached.where(own, -torch.inf).argmax(0, keepdim=True), 1.0)
        by_value = reached.argsort(dim=0, descending=True, stable=True)
        order = by_value.gather(0, favour.gather(0, by_value).argsort(dim=0, descending=True, stable=True))[:count]
        rows = torch.arange(len(self.x), device=self.x.device)
        followed, places, images = (torch.stack(parts) for parts in zip(*arms, strict=True))
        chosen = [Arm(followed[k, rows], places[k, rows], images[k, rows]) for k in order]
        return chosen, list(reached.gather(0, order))

    def spend(self, schedule: Schedule, arms: Sequence[Arm]) -> None:
        """Places and arms, the best of both for longer, and then from the best image of all."""
        _, steps, kept = schedule.places
        tried, values = self._all(self.places(schedule.places[0]), "places", steps, (0.0, 0.2))
        if tried:
            tried, values = self.best_of(tried, values, kept)
        others, reached = self._all(arms, "arms", schedule.arms, (0.0, 0.5))
        again, steps, first = schedule.further
        kinds = [PLACE] * len(tried) + [int(arm.kind[0]) for arm in others]
        best, _ = self.best_of([*tried, *others], [*values, *reached], again, kinds)
        best, reached = self._all(best, "further", steps, (0.5, 1.0), first)
        (kind, steps, first), *rest = schedule.last
        for j, arm in enumerate(self.best_of(best, reached, schedule.finalists)[0]):
            self.run(self.arm(kind, arm.images), f"last of {j}", steps, first)
        for j, (kind, steps, first) in enumerate(rest):
            self.run(self.arm(kind, self.best), f"last {j}", steps, first)

    def _all(
        self, arms: Sequence[Arm], name: str, steps: int, span: tuple[float, float], first: float = 2.0
    ) -> tuple[list[Arm], list[Tensor]]:
        done, values = [], []
        for j, arm in enumerate(arms):
            done.append(self.run(arm, f"{name} {j}", steps, first, span))
            values.append(self.reached)
        return done, values

    def _keep(self, images: Tensor, value: Tensor) -> None:
        better = value > self.value
        self.best = torch.where(per_image(better), images, self.best)
        self.value = torch.where(better, value, self.value)


def coarse(x: Tensor, threat: ThreatModel, rng: Rng, count: int) -> list[Tensor]:
    """Images at the rim of the ball: lighter, darker, and in blocks of random sign per colour."""
    height, width = x.shape[2:]
    shifts = [torch.ones_like(x), -torch.ones_like(x)][:count]
    for j in range(count - len(shifts)):
        down, across = (
            max(round(share * side), 1) for share, side in zip(BLOCKS[j % len(BLOCKS)], (height, width), strict=True)
        )
        down, across = (max(down, across),) * 2 if BLOCKS[j % len(BLOCKS)][0] == 0 else (down, across)
        chance = rng.child("coarse", j).uniform(
            x.new_empty(len(x), x.shape[1], -(-height // down), -(-width // across))
        )
        signs = torch.where(chance < 0.5, -1.0, 1.0).to(x)
        shifts.append(F.interpolate(signs, scale_factor=(down, across))[..., :height, :width])
    return [threat.project(x + threat.radius * threat.steepest(shift), x) for shift in shifts]


def peaks_of(local: Tensor, count: int) -> Tensor:
    """(B, P) -> (B, k): the highest peaks, no two next to each other where the local scores are a square map."""
    side = round(local.shape[1] ** 0.5)
    if side**2 == local.shape[1] and side >= 8:
        radius = max(int(side * NEAR), 1)
        around = F.max_pool2d(local.view(-1, 1, side, side), 2 * radius + 1, 1, radius).flatten(1)
        lowest = local.amin(1, keepdim=True) - local.amax(1, keepdim=True)
        local = torch.where(around == local, local, local + lowest)
    return local.topk(min(count, local.shape[1]), 1).indices
