"""The standard evaluation: what every detector meets, so that figures compare. Version standard-v4.

Whoever publishes a robust AUROC of this benchmark runs this. A change that can change a number is a new version.

v2: another temperature and gradient of the smooth maximum; a shorter l2 projection.
v3: against detectors that draw noise, gradients are means over opposite draws, and l2 steps have no momentum.
v4: passes go where they move a pair: many short ascents and a long one of the best, image by image; images that have
    lost every pair are left alone; the black box is tried on a few images, and on all where it gains anything there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from bench import Attack, Attacked, Context, Rng, Score, ThreatModel
from bench.core.attack import Tried
from bench.core.protocol import STANDARD

from ._ascent import EOT_DRAWS, Climb, Objective, ascend, positive
from ._portfolio import COLD, LOGSUMEXP, MEAN, SCORE, SETTLED, SPENT, TOP, Arm, Portfolio, Schedule, coarse
from .apgd import NOISY_MOMENTUM
from .bpda_pgd import BPDAPGD
from .square import Square
from .transfer import Transfer
from .worst import one_after_another, prepared

SOURCES = {"autoencoder": "", "patchcore": "backbone=cifar_resnet18;layers=3;coreset=0.02;neighbours=1"}
"""Undefended detectors that need no download, and their parameters."""

STEPS = 150  # for which the schedules are written
RAISE = Schedule((12, 2, 3), 12, (4, 10, 2.0), ((SCORE, 25, 1.0),), finalists=2)
LOWER = Schedule((0, 0, 0), 12, (1, 20, 1.0), ((COLD, 45, 0.5), (COLD, 20, 0.125)))
"""Of images to be raised, and to be lowered."""
SHIFTS, LOOKS = 12, 4  # coarse shifts that are looked at, under so many draws of a randomized detector
NOISY: tuple[tuple[Objective, int, float], ...] = (
    ("logsumexp", 75, 2.0),
    ("logsumexp", 75, 0.5),
    ("top", 75, 2.0),
    ("score", 60, 1.0),
)
"""Of a randomized detector: what is followed, for how many steps of two opposite draws, and the first step's length.
They begin at the best of the coarse shifts; at the best image under one draw that is held, which the schedules above
find; at a random point; and at the best image so far."""
SOURCE_STEPS = 100  # of the attack on a source of transfer
BLIND_START = frozenset({"square"})
"""Begins at the best image so far."""
AHEAD = 0.05  # of the median gain of the gradient on the probe: what a black box must gain more to count there
SURE, PROBE_DRAWS = 3, 32  # standard errors of the same, of a randomized detector, and draws
FEW = 1  # images of the probe at which it may be ahead by chance


@dataclass(frozen=True)
class Standard(Attack):
    """Many short gradient ascents and a long one of the best, image by image; and a black box to see that they lead.

    `gradient`: of a detector that draws no noise a dozen coarse shifts are looked at; then arms begin at the best of
    them and at random points, along smooth maxima of the local scores, and for normal images at the places that the
    shifts raise most. The best go on. Normal images end along the score, anomalous ones along a maximum that becomes
    sharp. Of a detector that draws noise: the same under one draw that is held, then ascents along means of opposite
    draws, from there and from elsewhere; and once more with the draw known to the adversary (the column `known_noise`,
    by the harness).
    `bpda`: where a detector declares a block to go around.
    `square`, `transfer ...`: queries alone, and images made for undefended detectors. They are tried on the probe, a
    few images of each class; on all images if they are ahead there at more than one, or if there is no gradient.

    An image that has lost every pair, and is beyond the threshold, is left alone. The column `passes` says what was
    spent on it, forward and backward, and `stopped` why it ended: 1 settled, 2 its steps brought nothing more, 3 all
    passes were used.

    steps: gradient evaluations of an image, about (of a randomized detector twice as many more, of two draws each).
    queries: of square, where all images meet it.
    draws: noise draws over which a score is averaged where images are chosen; one where there is no noise.
    transfer: False leaves out the attacks by transfer, which fit their sources first.
    probe: images of each class on which the black box is tried; 0 tries it on all.
    version: of all this; the one before is the attack `standard-v3`.
    """

    norms = ("linf", "l2")
    needs_gradient = False
    knows_noise = True
    takes_starts = True
    settles = True
    numbers = ("passes", "stopped")

    steps: int = STEPS
    queries: int = 1000
    draws: int = EOT_DRAWS
    transfer: bool = True
    probe: int = 4
    version: Literal["standard-v4"] = STANDARD

    sources: dict[str, Any] = field(default_factory=dict, init=False, compare=False)
    """Of transfer attacks, for the record."""
    _blind: dict[str, Attack] = field(default_factory=dict, init=False, compare=False, repr=False)
    _found: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        positive(steps=self.steps, queries=self.queries, draws=self.draws)
        if self.probe < 0:
            raise ValueError(f"probe must not be negative, got {self.probe}")
        object.__setattr__(self, "surveyed", self.probe)

    def prepare(self, context: Context) -> None:
        """Chooses what this detector can meet, and fits the sources of transfer."""
        if self._found.get("detector") is context.score.detector and self._found["data"] is context.data:
            return  # what the survey has found is still true
        self._blind.clear()
        self._found.clear()
        self._found.update(detector=context.score.detector, data=context.data)
        if self.transfer:
            for source, given in SOURCES.items():
                if source != context.detector:
                    self._blind[f"transfer {source}"] = Transfer(source=source, source_params=given, steps=SOURCE_STEPS)
        prepared(self._blind, context, self.sources)
        self._blind["square"] = Square(queries=self.queries, draws=self.draws)
        self._try_blind(not (context.score.differentiable and self.probe), context.score)

    def _try_blind(self, everywhere: bool, score: Score) -> None:
        self._found["everywhere"] = everywhere
        sighted = ["gradient"] * score.differentiable + ["bpda"] * bool(score.hints.bpda)
        object.__setattr__(self, "parts", (*sighted, *(self._blind if everywhere else ())))

    def survey(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tried | None:
        """Whether a black box is ahead of the gradient on these images."""
        if "tried" in self._found:
            found: Tried = self._found["tried"]
            return found
        if self._found.get("everywhere"):
            return None
        sighted = self._sighted(score, x, sign, threat, rng, None)
        self._found["made"] = rng.purpose, {name: _row(sighted, i) for i, name in enumerate(rng.ids)}
        best = self._best(sighted.images, score, x, sign, rng)
        square = Square(queries=self._queries_of_probe(score), draws=self.draws)
        blind = self._blind | {"square": square}
        images = {"best": best, **one_after_another(blind, score, x, sign, threat, rng, best, BLIND_START).images}
        ahead = _ahead(score, best, self._best(images, score, best, sign, rng), x, sign, rng.child("probe"))
        self._found["tried"] = tried = Tried(tuple(blind), ahead, FEW, len(x))
        if ahead > FEW:
            self._try_blind(True, score)
        return tried

    def _queries_of_probe(self, score: Score) -> int:
        """A quarter of the queries; of a randomized detector, where each takes 2 x `draws` passes, a tenth."""
        return max(self.queries // (10 if score.randomized else 4), 1)

    def __call__(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None = None
    ) -> Attacked:
        """Candidates (B, 3, H, W) by the name of their part, and the columns `passes` and `stopped`."""
        images, columns = self._fresh(score, x, sign, threat, rng, starts)
        if not self._found.get("everywhere") or score.fixed:
            return Attacked(images, columns)
        spent = _spent(score)
        best = self._best({**images, **({} if starts is None else {"starts": starts})}, score, x, sign, rng)
        found = one_after_another(self._blind, score, x, sign, threat, rng, best, BLIND_START).images
        passes = columns["passes"] + (_spent(score) - spent) / len(x)
        return Attacked({**images, **found}, {**columns, "passes": passes})

    def _fresh(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None
    ) -> Attacked:
        """What follows a gradient; images that the survey has made are taken from it, once."""
        purpose, made = self._found.get("made", ("", {}))
        if starts is not None or purpose != rng.purpose or made.keys().isdisjoint(rng.ids):
            return self._sighted(score, x, sign, threat, rng, starts)
        rows = [made.pop(name, None) for name in rng.ids]
        rest = [i for i, row in enumerate(rows) if row is None]
        if rest:
            found = self._sighted(score, x[rest], sign[rest], threat, rng.rows(rest), None)
            for j, i in enumerate(rest):
                rows[i] = _row(found, j)
        return Attacked(*({k: torch.stack([row[of][k] for row in rows]) for k in rows[0][of]} for of in (0, 1)))

    def _sighted(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None
    ) -> Attacked:
        """What follows a gradient."""
        images: dict[str, Tensor] = {}
        passes, stopped = torch.zeros_like(sign), torch.full_like(sign, SPENT)
        if score.differentiable:
            climbed = self._noisy if score.randomized else self._exact
            images["gradient"], passes, stopped = climbed(score, x, sign, threat, rng.child("gradient"), starts)
        if score.hints.bpda and not score.fixed:
            spent = _spent(score)
            around = BPDAPGD(steps=max(self.steps * 5 // 7, 1), draws=self.draws)
            images["bpda"] = around(score, x, sign, threat, rng.child("bpda"), starts)
            passes = passes + (_spent(score) - spent) / len(x)
        return Attacked(images, {"passes": passes, "stopped": stopped})

    def _exact(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of a detector that draws no noise: each class by its schedule."""
        best, passes, stopped = x.clone(), torch.zeros_like(sign), torch.full_like(sign, SPENT)
        for way, schedule in ((1, RAISE), (-1, LOWER)):
            rows = (sign == way).nonzero().flatten()
            if not len(rows):
                continue
            part = Portfolio(score, x[rows], sign[rows], threat, rng.rows(rows.tolist()))
            first = part.look_around(SHIFTS, None if starts is None else starts[rows])
            part.spend(schedule.scaled(self.steps / STEPS), self._arms(part, first))
            best, passes, stopped = (
                whole.index_copy(0, rows, of_class)
                for whole, of_class in ((best, part.best), (passes, part.cost), (stopped, part.stopped))
            )
        return best, passes, stopped

    def _arms(self, part: Portfolio, first: Tensor) -> list[Arm]:
        """From the best of the shifts, from random points, and what the detector's own hints ask for."""
        hints = part.score.hints
        kinds = (LOGSUMEXP, LOGSUMEXP, LOGSUMEXP, TOP, TOP)
        begin = [first, *(part.threat.random_start(part.x, part.rng.child("start", j)) for j in range(4))]
        arms = [part.arm(kind, image) for kind, image in zip(kinds, begin, strict=True)]
        arms += [part.arm(MEAN, first) for objective in hints.objectives if objective == "mean"]
        if hints.starts is not None:
            arms.append(part.arm(LOGSUMEXP, part.threat.project(hints.starts(part.x, part.sign).to(part.x), part.x)))
        return arms

    def _noisy(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of a detector that draws noise."""
        spent = _spent(score)
        climb = Climb(score, x, sign, self.draws, per_step=2)
        looked = {str(j): image for j, image in enumerate(coarse(x, threat, rng, SHIFTS))}
        looked |= {} if starts is None else {"starts": starts}
        here = self._best(looked, score, x, sign, rng.child("look"), LOOKS)
        known = score.with_known_noise()
        one_draw, _, _ = self._exact(known, x, sign, threat, rng.child("one draw"), starts)
        mean: tuple[Objective, int, float] = ("mean", *NOISY[0][1:])
        ascents = [*NOISY[:-1], *[mean] * ("mean" in score.hints.objectives), NOISY[-1]]
        for j, (objective, steps, first) in enumerate(ascents):
            climb.begin(rng.child("ascent", j))
            start = {0: here, 1: one_draw}.get(j, threat.random_start(x, rng.child("start", j)))
            if j + 1 == len(ascents):
                start = climb.chosen(rng.child("so far"))
            climb.end(
                ascend(
                    climb,
                    start[climb.rows],
                    x[climb.rows],
                    threat,
                    objective,
                    steps=max(round(steps * self.steps / STEPS), 1),
                    first=first * threat.radius,
                    shrinks=True,
                    momentum=NOISY_MOMENTUM[threat.norm],
                )
            )
        best = climb.chosen(rng)
        done = score.done(sign * score.mean(best, rng.for_choice(), self.draws), sign)
        share = torch.full_like(sign, (_spent(score) - spent) / len(x))
        return best, share, torch.where(done, SETTLED, SPENT).to(sign)

    def _best(
        self, images: Mapping[str, Tensor], score: Score, x: Tensor, sign: Tensor, rng: Rng, draws: int | None = None
    ) -> Tensor:
        """(B, 3, H, W): of these and of x the one with the worst score; of a randomized detector by fresh draws."""
        among = [x, *images.values()]
        count = (draws or self.draws) if score.randomized else 1
        values = torch.stack([sign * score.mean(image, rng.for_choice(), count) for image in among])
        return torch.stack(among)[values.argmax(0), torch.arange(len(x), device=x.device)]


def _ahead(score: Score, best: Tensor, other: Tensor, x: Tensor, sign: Tensor, rng: Rng) -> int:
    """At how many images another attack is clearly further than the best image; what is settled does not count."""
    draws = PROBE_DRAWS if score.randomized else 1
    reached, more, clean = (sign * score.each(image, rng, draws) for image in (best, other, x))
    gain = (reached - clean).mean(0).median().clamp_min(0)
    error = (more - reached).std(0) / draws**0.5 if draws > 1 else torch.zeros_like(sign)
    beyond = (more - reached).mean(0) > torch.maximum(AHEAD * gain, SURE * error)
    return int((beyond & ~score.done(reached.mean(0), sign)).sum())


def _row(attacked: Attacked, i: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Images and columns of one image."""
    return {k: v[i] for k, v in attacked.images.items()}, {k: v[i] for k, v in attacked.columns.items()}


def _spent(score: Score) -> int:
    return score.forwards + score.backwards
