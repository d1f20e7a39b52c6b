"""A finished cell under reattack: a few of its images, attacked once more, and by other attacks.

What the checks of `bench.checks.of_attack` are made of. Nothing here changes a row, and its passes are counted apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core.attack import Attack, Attacked, Trace
from ..core.data import Data
from ..core.rng import Rng, probe_lot
from ..core.score import Passes, Score
from ..core.threat import TOLERANCE, ThreatModel
from ..engine.warm_starts import WarmStarts
from ..engine.witness import Call, Witness
from ..engine.worker import Prepared, Worker
from ..stats.measured import Measured
from ..stats.metrics import accuracy, auroc_of
from ..system.memory import free_memory
from .of_detector import generator_states

PROBE = 4  # images of each class at most; half of them meet what costs as much as the attack itself
IMAGES_PER_PROBE = 32  # of a cell, for each image of each class, so that the checks of a small cell stay small
MARGIN = 0.05  # of the attack's median gain: by how much another attack must be ahead at an image to count
POINT = 0.01  # of AUROC: the least that counts, and what is left when nothing is left
FEWEST_DRAWS = 8  # of a randomized detector
ERRORS = 3  # standard errors that a difference of means must exceed to count
ROUNDING = 2e-6  # of the largest score: float32
UNUSED_SEED = 20240809  # so that a seed that something sets is seen to change the state
MORE = {"steps": ("steps", "iterations", "queries"), "draws": ("draws",)}  # fields of an attack that `replace` doubles

T = TypeVar("T")


class Watched(Score):
    """The score, remembering at each image the best point of the ball that was ever scored."""

    def __init__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, ids: Sequence[str]):
        super().__init__(score.detector, score.name, score.threshold, score.goal, score.differentiable)
        self.passes, self.observer, self.threat = score.passes, score.observer, threat
        self.settled = score.settled
        self.clean = {name: (x[i], float(sign[i])) for i, name in enumerate(ids)}
        self.best: dict[str, tuple[float, Tensor]] = {}
        self.history: dict[str, list[float]] = {name: [] for name in ids}
        """By id, after each scoring: the best sign * score so far."""

    def with_evidence(self, x: Tensor, rng: Rng | None = None, wanted: bool = True) -> tuple[Tensor, Tensor | None]:
        scores, evidence = super().with_evidence(x, rng, wanted)
        if rng is not None and len(rng.ids) == len(x):
            self._note(x.detach(), scores.detach().tolist(), rng.ids)
        return scores, evidence

    def _note(self, x: Tensor, scores: list[float], ids: Sequence[str]) -> None:
        x0 = torch.stack([self.clean[name][0] for name in ids])
        allowed = self.threat.distance(x, x0) <= self.threat.radius + TOLERANCE
        allowed &= ((x >= -TOLERANCE) & (x <= 1 + TOLERANCE)).flatten(1).all(1)
        for i, (name, inside) in enumerate(zip(ids, allowed.tolist(), strict=True)):
            value = self.clean[name][1] * scores[i]
            if inside and value > self.best.get(name, (-math.inf, x))[0]:
                self.best[name] = value, x[i].clone()
            self.history[name].append(self.best.get(name, (-math.inf, x))[0])


class _InHand(WarmStarts):
    """Keeps attacked images in memory; starts from the same smaller eps as the cell."""

    def __init__(self, cell: WarmStarts):
        super().__init__(None, cell.smaller_folder)
        self.images: dict[str, Tensor] = {}

    def put(self, ids: Sequence[str], images: Tensor) -> None:
        self.images |= dict(zip(ids, images, strict=True))


class _Again(Worker):
    """Repeats rows of a cell, and keeps what the cell does not."""

    def __init__(self, reattack: Reattack):
        self.in_hand = _InHand(reattack.warm_starts)
        clean = [row.clean for row in reattack.rows]
        super().__init__(reattack.spec, reattack.data, reattack.prepared, reattack.attack, self.in_hand, clean=clean)
        self.gradient = False  # the column of the known draw would double the cost
        self.raw: dict[str, list[Tensor]] = {}
        self.watched: dict[str, Watched] = {}

    def attacked(
        self, score: Score, x: Tensor, sign: Tensor, rng: Rng, starts: Tensor | None, trace: Trace | None = None
    ) -> Attacked:
        watched = Watched(score, x, sign, self.spec.threat, rng.ids)
        found = super().attacked(watched, x, sign, rng, starts, trace)
        for i, name in enumerate(rng.ids):
            self.raw[name], self.watched[name] = [image[i] for image in found.images.values()], watched
        return found


class Again(NamedTuple):
    """The probe after the cell's own attack, once more."""

    rows: list[Row]
    images: Tensor
    """What the rows' `worst` is the score of."""
    raw: list[Tensor]
    """What the attack itself returned, part by part, (P, 3, H, W) each."""
    seen: Tensor
    """The best points that it has scored on the way."""
    history: list[list[float]]
    moved_generators: list[str]


class Ahead(NamedTuple):
    """sign * (score - what it is compared with) at each image (B,): mean over draws, and its standard error."""

    mean: Tensor
    error: Tensor

    @property
    def sure(self) -> Tensor:
        """The mean where it cannot be luck, else 0."""
        return torch.where(self.mean > ERRORS * self.error, self.mean.clamp_min(0), 0)

    @property
    def overall(self) -> tuple[float, float]:
        return float(self.mean.mean()), float(self.error.square().sum().sqrt()) / len(self.mean)


@dataclass
class Reattack:
    """A cell's rows, its detector and its attack, and a few of its images to try them on."""

    spec: RunSpec
    data: Data
    prepared: Prepared
    attack: Attack
    rows: Sequence[Row]
    warm_starts: WarmStarts = field(default_factory=WarmStarts)
    witness: Witness | None = None
    """Of the run that made the rows."""

    def __post_init__(self) -> None:
        self.worker = _Again(self)
        self.threat = self.spec.threat
        self.labels = np.array([row.label for row in self.rows])
        self.clean_rows = np.array([row.clean for row in self.rows])
        self.worst_rows = np.array([row.worst for row in self.rows])
        self.attacked_rows = self.threat.controls(torch.from_numpy(self.labels)).numpy()
        self.probe, self.few = _probe(self.rows, self.attacked_rows, self.spec.seed)
        self.ids = [self.rows[i].id for i in self.probe]
        self.whole = list(range(len(self.probe)))
        self.x = self.data.test.images(self.probe).to(self.prepared.device)
        self.sign = torch.tensor([1.0 - 2 * self.rows[i].label for i in self.probe]).to(self.x)

    @property
    def passes(self) -> Passes:
        return self.worker.score.passes

    @property
    def draws(self) -> int:
        """On which images are compared: those asked for, and never so few that they have no standard error."""
        return max(self.spec.draws or 0, FEWEST_DRAWS) if self.worker.score.randomized else 1

    @property
    def at_threshold(self) -> bool:
        """The attack aims across the threshold and no further, so the rank of a score says nothing of it."""
        return self.spec.goal == "threshold" or (self.attack.needs_threshold and not self.attack.parts)

    @property
    def decides(self) -> bool:
        """The metric is of decisions at the threshold: the attack aims at it, or all images are normal, which leaves
        nothing to rank."""
        return self.at_threshold or len(set(self.labels.tolist())) == 1

    @property
    def calls(self) -> list[Call]:
        """Of the attack while it made the rows; else, of the same attack on the probe."""
        if self.witness is not None and self.witness.calls:
            return self.witness.calls
        _ = self.again
        return self.worker.witness.calls

    @cached_property
    def attacked_images(self) -> dict[int, tuple[Tensor, float]]:
        """Row -> the image that it is the score of, and that score; of a few rows."""
        if self.witness is not None and self.witness.images:
            return {i: (image, self.rows[i].worst) for i, image in self.witness.images.items()}
        again = zip(self.probe, self.again.images, self.again.rows, strict=True)
        return {i: (image, row.worst) for i, image, row in again}

    @cached_property
    def gains(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """How far the attack moved each row's score, in the adversary's direction."""
        return ((1 - 2 * self.labels) * (self.worst_rows - self.clean_rows))[self.attacked_rows]

    @property
    def unit(self) -> float:
        return float(np.median(self.gains))

    @property
    def spread(self) -> float:
        return max(float(np.ptp(self.clean_rows)), 1e-12)

    @property
    def floor(self) -> float:
        """A difference of scores below this is rounding."""
        return ROUNDING * float(np.abs(self.clean_rows).max())

    @cached_property
    def robust(self) -> Measured:
        """AUROC after the attack; accuracy, where the metric is of decisions."""
        return self.measured(self.worst_rows, self.decides)

    def measured(self, scores: np.ndarray[Any, np.dtype[np.float64]], decides: bool) -> Measured:
        """AUROC of such scores of all rows, or accuracy."""
        if decides:
            return accuracy(scores, self.labels, self.prepared.threshold.value)
        return auroc_of(scores, self.labels)

    @property
    def metric(self) -> str:
        return "accuracy" if self.decides else "AUROC"

    @property
    def interval(self) -> float:
        """By how much another attack may lower the metric."""
        return max(self.robust.value - self.robust.estimate().low, POINT)

    @property
    def _threshold(self) -> float | None:
        """At which the metric decides; None where it ranks."""
        return self.prepared.threshold.value if self.decides else None

    def standing(self, score: float, label: int) -> float:
        """An image's share in the metric."""
        return standing(score, label, self.worst_rows[self.labels != label], self._threshold)

    def fall(self, positions: Sequence[int], gained: Tensor) -> float:
        """By how much the metric would fall if all rows moved as these images of the probe did."""
        some = [self.rows[self.probe[position]] for position in positions]
        moves = [
            (r.label, r.worst, r.worst + (1 - 2 * r.label) * g) for r, g in zip(some, gained.tolist(), strict=True)
        ]
        return fall_of(moves, self.rows, self._threshold)

    def rng(self, positions: Sequence[int]) -> Rng:
        return Rng.of_run(self.spec.seed, [self.ids[p] for p in positions])

    def each(self, images: Tensor, positions: Sequence[int]) -> Tensor:
        """(draws, B): scores under draws that are the same for every attack, and that none has seen."""
        scores = self.worker.score.each(images, self.rng(positions).for_check(), self.draws)
        return scores.double()

    @cached_property
    def again(self) -> Again:
        torch.manual_seed(UNUSED_SEED)  # the checks run in a fork of the generator
        before = generator_states(self.prepared.device)
        rows = [row for part in _in_memory(self.worker.batch, self.probe) for row in part]
        after = generator_states(self.prepared.device)
        worker = self.worker
        seen = [worker.watched[name].best.get(name, (0.0, self.x[i]))[1] for i, name in enumerate(self.ids)]
        raw = [torch.stack(images) for images in zip(*(worker.raw[name] for name in self.ids), strict=True)]
        return Again(
            rows,
            torch.stack([worker.in_hand.images[name] for name in self.ids]),
            raw,
            torch.stack(seen),
            [worker.watched[name].history[name] for name in self.ids],
            [name for name in before if before[name] != after[name]],
        )

    @cached_property
    def base(self) -> Tensor:
        """(draws, P): the probe after the cell's attack."""
        return self.each(self.again.images, self.whole)

    @cached_property
    def settled(self) -> Tensor:
        """(P,) bool: images of the probe that the cell's attack needs to move no further."""
        return self.worker.score.done(self.sign * self.base.mean(0), self.sign)

    @cached_property
    def clean(self) -> Tensor:
        """(draws, P): the probe before it."""
        return self.each(self.x, self.whole)

    def ahead(self, images: Tensor, positions: Sequence[int] | None = None, of: Tensor | None = None) -> Ahead:
        """Of these images against the cell's own attack, or against `of` (draws, P)."""
        where = list(self.whole if positions is None else positions)
        return self.compared(self._each_once(images, where), where, of)

    def _each_once(self, images: Tensor, where: list[int]) -> Tensor:
        """What the attack has returned has been scored."""
        return self.base if where == self.whole and torch.equal(images, self.again.images) else self.each(images, where)

    def compared(self, scores: Tensor, positions: Sequence[int], of: Tensor | None = None) -> Ahead:
        """Scores (draws, B) at these images against those after the cell's own attack, or against `of` (draws, P).
        Nothing is ahead of an image that the attack has left because it is settled."""
        where = list(positions)
        difference = self.sign[where] * (scores - (self.base if of is None else of)[:, where])
        if of is None:
            difference = difference.where(~self.settled[where], 0)
        draws = len(difference)
        error = difference.std(0) / draws**0.5 if draws > 1 else torch.zeros_like(difference[0])
        return Ahead(difference.mean(0), error)

    @cached_property
    def gained(self) -> Ahead:
        """What the cell's attack gained at the probe."""
        return self.ahead(self.again.images, of=self.clean)

    @cached_property
    def own(self) -> Worker:
        """Runs the cell's attack on other terms; prepared once."""
        return self._worker(self.attack)

    def _worker(self, attack: Attack) -> Worker:
        clean = [row.clean for row in self.rows]
        return Worker(self.spec, self.data, self.prepared, attack, clean=clean, survey=False)

    def attacked_by(
        self,
        attack: Attack,
        positions: Sequence[int],
        threat: ThreatModel | None = None,
        again: bool = False,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Images of the probe after another attack; of its parts, the best by draws of their own.

        again: from other random starts than the cell's own attack. starts: from these as well, one for each position.
        """
        worker = self.own if attack is self.attack else self._worker(attack)
        worker.spec, worker.score.passes = self.spec.within(threat or self.threat), self.passes

        def work(some: Sequence[int]) -> Tensor:
            rng, where = self.rng(some), list(some)
            source = rng.for_another_attack() if again else rng.for_attack()
            begin = None if starts is None else starts[[list(positions).index(p) for p in where]]
            found = worker.attacked(worker.score, self.x[where], self.sign[where], source, begin).images
            images = torch.stack(list(found.values()))
            means = [worker.score.mean(image, rng.for_choice(), worker.draws) for image in images]
            best = torch.stack([self.sign[where] * mean for mean in means]).argmax(0)
            return images[best, torch.arange(len(where), device=best.device)]

        return torch.cat(_in_memory(work, positions))

    def more(self, kind: str) -> Attack | None:
        """The attack with more of `kind` (steps, draws); None where it has none to give."""
        if kind in (offered := self.attack.stronger()):
            return offered[kind]
        given = self.attack.parameters_record
        doubled = {name: 2 * given[name] for name in MORE[kind] if isinstance(given.get(name), int)}
        return self.altered(**doubled) if any(doubled.values()) else None

    def scaled_to(self, threat: ThreatModel, share: float = 1) -> Attack:
        """The attack with a step size, if it was given one, in proportion to eps; and with this share of its steps."""
        given = self.attack.parameters_record
        fields: dict[str, Any] = {}
        if size := given.get("step_size"):
            fields["step_size"] = size * threat.radius / self.threat.radius
        if share != 1:
            fields |= {n: max(round(share * given[n]), 1) for n in MORE["steps"] if isinstance(given.get(n), int)}
        return (self.altered(**fields) if fields else None) or self.attack

    def altered(self, **fields: float) -> Attack | None:
        """The attack with other values in these fields; None if it is no dataclass."""
        attack: Any = self.attack
        if not dataclasses.is_dataclass(attack) or isinstance(attack, type):
            return None
        return cast("Attack", dataclasses.replace(attack, **fields))

    def counts(self, ahead: Ahead) -> int:
        """On how many images another attack is ahead by more than the margin."""
        return int((ahead.sure > max(MARGIN * self.unit, self.floor)).sum())


def _probe(rows: Sequence[Row], attacked: Any, seed: int) -> tuple[list[int], list[int]]:
    """Rows to try, spread over the ranks of each class and chosen by the seed; positions of the dear checks."""
    classes = [label for label in (0, 1) if any(r.label == label and a for r, a in zip(rows, attacked, strict=True))]
    wanted = min(max(len(rows) // IMAGES_PER_PROBE, 3 - len(classes)), PROBE)
    chosen: list[int] = []
    few: list[int] = []
    for label in classes:
        ranked = sorted((i for i, r in enumerate(rows) if r.label == label), key=lambda i: (rows[i].worst, rows[i].id))
        count = min(wanted, len(ranked))
        strata = [ranked[k * len(ranked) // count : (k + 1) * len(ranked) // count] for k in range(count)]
        step = 2 if count > 3 - len(classes) else 1
        few += range(len(chosen) + seed % step, len(chosen) + count, step)
        chosen += [min(stratum, key=lambda i: probe_lot(seed, rows[i].id)) for stratum in strata]
    return chosen, few


def _in_memory(work: Callable[[Sequence[int]], T], indices: Sequence[int]) -> list[T]:
    """The work in one batch, or in as few as the GPU's memory takes."""
    try:
        return [work(indices)]
    except torch.OutOfMemoryError:
        if len(indices) == 1:
            raise
    free_memory()
    half = len(indices) // 2
    return _in_memory(work, indices[:half]) + _in_memory(work, indices[half:])


def fall_of(moves: Iterable[tuple[int, float, float]], rows: Sequence[Row], threshold: float | None) -> float:
    """By how much the metric would fall if all rows moved as some did: AUROC, or accuracy at the threshold, if that is
    what the attack aims at.

    moves: label, and the score before and after.
    """
    worst, labels = (np.array([getattr(row, name) for row in rows]) for name in ("worst", "label"))
    falls: dict[int, list[float]] = {}
    for label, *scores in moves:
        before, after = (standing(score, label, worst[labels != label], threshold) for score in scores)
        falls.setdefault(label, []).append(before - after)
    if threshold is not None:
        return float(np.mean([value for of_class in falls.values() for value in of_class]))
    return float(sum(np.mean(of_class) for of_class in falls.values()))


def standing(score: float, label: int, others: np.ndarray[Any, np.dtype[np.float64]], threshold: float | None) -> float:
    """An image's share in the metric: of the other class, what it is still on the right side of."""
    if threshold is not None:
        return float((score > threshold) == bool(label))
    above = float((others > score).mean() + (others == score).mean() / 2)
    return 1 - above if label else above
