"""APGD on the score itself: steps that adapt to what they reach (Croce & Hein 2020, https://arxiv.org/abs/2003.01690).

Their schedule with a detector's score in place of a classifier's loss, and two changes. Direction and judgement are
apart: steps follow a smooth objective made of all local scores, while the rule that halves a step, and the choice of
the image to go back to and to return, look at the score itself; an image that a window of the objective brought nothing
follows the score from there on. And the first step is compared with its own value: public code compares it with 0, so
that the sign of a score decides.

Where a detector draws noise, whether a step rose is a matter of luck and their rule has nothing to go by. The same
number of passes is then better spent on many steps that shrink linearly, each along the mean gradient of one draw and
its opposite. In linf they also need momentum over ten steps: the sign of a gradient makes its noise as large as the
rest. In l2 the steps themselves are averaged by adding up, and momentum only lets them lag behind the maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench import Rng, Score, ThreatModel, Trace

from ._ascent import EOT_DRAWS, Climb, Objective, Restarted, ascend, per_image

FIRST_WINDOW, SHORTER, SHORTEST_WINDOW = 0.22, 0.03, 0.06  # shares of the steps
RISES = 0.75  # share of the steps of a window that must rise, or the step is halved
MOMENTUM = 0.75  # weight of the new step against the last displacement
AT_REST = 2**-4  # of the radius: an image whose step is shorter leaves after a window that brought nothing,
NOTHING = 1e-3  # which is less than this share of all that it has gained
NOISY_MOMENTUM = {"linf": 0.9, "l2": 0.0}
A_PAIR = 2  # noise draws a step: one and its opposite


@dataclass(frozen=True)
class APGD(Restarted):
    """Auto-PGD: momentum, and a step that is halved where a window of steps brings too little.

    steps: gradient evaluations per restart (times `draws`).
    restarts: independent runs: from a random point, from the image itself, then from further random points.
    objective: what gives the direction; `auto` is logsumexp where the detector offers local scores, else the score.
    draws: of a randomized detector: it gets `steps` x `draws` noise draws, two a step.
    random_start: False begins at the image itself.
    """

    norms = tuple(NOISY_MOMENTUM)

    steps: int = 100
    restarts: int = 1
    objective: Literal["auto", "score", "logsumexp", "top", "mean"] = "auto"
    draws: int = EOT_DRAWS
    random_start: bool = True

    def __call__(
        self,
        score: Score,
        x: Tensor,
        sign: Tensor,
        threat: ThreatModel,
        rng: Rng,
        starts: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Images of the ball around x (B, 3, H, W) with a high sign * score; sign (B,) is +1 or -1.

        starts: images of the ball; the first run begins there instead of at a random point. trace: kept, unless the
        score is randomized.
        """
        climb = Climb(score, x, sign, self.draws, per_step=A_PAIR, trace=trace)
        objective: Objective = "logsumexp" if self.objective == "auto" else self.objective
        for restart in range(self.restarts):
            source = rng.child("restart", restart)
            climb.begin(source.child("noise"), self.spent_before(restart))
            if starts is not None and restart == 0:
                start = starts
            elif self.random_start == (restart != 1):
                start = threat.random_start(x, source.child("start"))
            else:
                start = x
            run = self._noisy_run if score.randomized else self._run
            climb.end(run(climb, start[climb.rows], x, threat, objective))
        return climb.chosen(rng)

    def _run(self, climb: Climb, here: Tensor, x: Tensor, threat: ThreatModel, objective: Objective) -> Tensor:
        """Algorithm 1 of the paper for the images that climb; returns where those are that never came to rest."""
        windows, last = checkpoints(self.steps), 0
        run = _Run(here, x[climb.rows], torch.full_like(climb.sign[climb.rows], 2 * threat.radius))
        for i in range(self.steps):
            run.meet(*climb.gradient(run.here, objective, i / self.steps))
            gone = climb.done()
            if i in windows:
                climb.direct[climb.rows[run.gained_nothing()]] = True
                gone = gone | run.end_window(i - last, AT_REST * threat.radius)
                last = i
            if gone.any():
                stay = climb.leave(gone)
                run.keep(stay)
                if not len(stay):
                    break
            run.move(threat)
        return run.here

    def _noisy_run(self, climb: Climb, here: Tensor, x: Tensor, threat: ThreatModel, objective: Objective) -> Tensor:
        """Shrinking steps of two draws each; returns where those end whose goal is not reached before."""
        return ascend(
            climb,
            here,
            x[climb.rows],
            threat,
            objective,
            steps=self.steps * climb.draws // climb.per_step,
            first=2 * threat.radius,
            shrinks=True,
            momentum=NOISY_MOMENTUM[threat.norm],
        )


class _Run:
    """The images of one run that still climb, n of them: where they are, and what the algorithm remembers of each."""

    def __init__(self, here: Tensor, x0: Tensor, step: Tensor):
        self.x0, self.here, self.before = x0, here, here
        self.gradient = torch.zeros_like(here)
        self.best, self.best_gradient = here.clone(), torch.zeros_like(here)
        self.step = step
        """(n,), as all that follows: the length of the next one."""
        self.value_before, self.best_value = torch.full_like(step, torch.inf), torch.full_like(step, -torch.inf)
        self.first_value = self.at_window = self.best_value
        """sign * score at the start, and the best when the last window ended."""
        self.rises = torch.zeros_like(step)
        """Steps of this window that went up."""
        self.halved = torch.zeros_like(step, dtype=torch.bool)
        """Whether the last window halved the step."""
        self.steps, self.windows = 0, 0

    def meet(self, value: Tensor, gradient: Tensor) -> None:
        """What is known of where the images are: sign * score (n,), and the gradient."""
        self.rises += value > self.value_before
        self.value_before, self.gradient = value, gradient
        better = value > self.best_value
        rows = better.nonzero().flatten()
        self.best.index_copy_(0, rows, self.here[rows])
        self.best_gradient.index_copy_(0, rows, gradient[rows])
        self.best_value = torch.where(better, value, self.best_value)
        if not self.steps:
            self.first_value = value

    def gained_nothing(self) -> Tensor:
        """(n,) bool: in this window."""
        return self.best_value <= (self.at_window if self.windows else self.first_value)

    def end_window(self, length: int, shortest: float) -> Tensor:
        """Halve the step and go back to the best image where a window of so many steps brought too little.

        (n,) bool: who is at rest, with a step below `shortest` and next to nothing gained.
        """
        still = self.best_value <= self.at_window
        halve = (self.rises <= RISES * length) | (still & ~self.halved)
        self.step = torch.where(halve, self.step / 2, self.step)
        self.here = torch.where(per_image(halve), self.best, self.here)
        self.gradient = torch.where(per_image(halve), self.best_gradient, self.gradient)
        nothing = self.best_value - self.at_window <= NOTHING * (self.best_value - self.first_value)
        self.at_window, self.halved, self.rises = self.best_value, halve, torch.zeros_like(self.rises)
        self.windows += 1
        return nothing & (self.step < shortest)

    def keep(self, stay: Tensor) -> None:
        """Only these of the images go on (indices)."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[stay])

    def move(self, threat: ThreatModel) -> None:
        """A step along the gradient, mixed with the last displacement."""
        there = threat.project(self.here + per_image(self.step) * threat.steepest(self.gradient), self.x0)
        if self.steps:
            mixed = self.here.lerp(there, MOMENTUM).add_(self.here - self.before, alpha=1 - MOMENTUM)
            there = threat.project(mixed, self.x0)
        self.before, self.here = self.here, there
        self.steps += 1


def checkpoints(steps: int) -> set[int]:
    """The steps at which a window ends: the windows shrink from 22 % of the steps to 6 %."""
    ends = [0.0, FIRST_WINDOW]
    while ends[-1] < 1:
        ends.append(ends[-1] + max(ends[-1] - ends[-2] - SHORTER, SHORTEST_WINDOW))
    return {math.ceil(end * steps) for end in ends[1:]}
