"""What the gradient attacks share: what they climb, its gradient over draws, and the best image met on the way."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from bench import Attack, Rng, Score, ThreatModel, Trace

EOT_DRAWS = 8  # the attacks' own `draws`
Objective = Literal["score", "logsumexp", "top", "mean"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
TEMPERATURES = (1.0, 0.1)  # of logsumexp, first and last, in standard deviations of an image's local scores
RAISING = 0.1  # of that temperature where a randomized score is to rise: its draws smooth the maximum already
SURE = 3  # standard errors across the threshold, before an image leaves: it is looked at after every step
LOOK_EVERY = 10  # steps, where it is not a goal but a saving
SMALLEST_SPREAD = 1e-12
SHARES = (0.3, 0.005)  # of local scores that enter `top`, first and last


class Climb:
    """The score of a batch under attack, a direction in which it rises, and the best image met on the way.

    A score that is a maximum moves with one patch or pixel at a time: lowering it brings the next one up, and raising
    it keeps to the one that was highest at the start. The objectives see all local scores (`score_with_evidence`):

    score: the score itself; the only one where a detector offers no local scores.
    logsumexp: a smooth maximum, at a temperature that falls while the attack goes on.
    top: mean of the highest local scores, of a share that shrinks.
    mean: mean of all of them.

    The objective gives the direction and nothing else. Steps are judged, and images kept, by the score itself.
    A trace is kept where the score is not randomized.
    """

    def __init__(
        self,
        score: Score,
        x: Tensor,
        sign: Tensor,
        draws: int,
        per_step: int | None = None,
        trace: Trace | None = None,
    ):
        self.score, self.sign = score, sign
        self.draws = draws if score.randomized else 1
        self.per_step = self.draws if per_step is None else min(per_step, self.draws)
        """Draws over which a gradient is averaged, in opposite pairs; `draws` are for looking at what it brought."""
        self.best, self.best_value = x.clone(), torch.full_like(sign, -torch.inf)
        self.candidates: list[Tensor] = []  # of a randomized detector
        self.spread: Tensor | None = None
        self.rows = torch.arange(len(x), device=x.device)
        """Images that are climbing; what follows has n of them."""
        self.rng: Rng
        self.direct = torch.zeros_like(sign, dtype=torch.bool)
        """Images that follow the score itself, whatever the objective: it has brought them nothing."""
        self.trace, self.spent = None if score.randomized else trace, 0

    def begin(self, rng: Rng, spent: int = 0) -> None:
        """A new run, with noise from `rng`, of every image whose goal is not yet reached.

        spent: the passes that the runs before had, whether or not an image has left before it used them up.
        """
        self.spent = spent
        self.rows = (~self.score.done(self.best_value, self.sign)).nonzero().flatten()
        self.rng = rng.rows(self.rows.tolist())

    def gradient(self, here: Tensor, objective: Objective, progress: float) -> tuple[Tensor, Tensor]:
        """sign * score (n,) of the images here (n, 3, H, W), and the gradient of sign * objective.

        Both are means over draws, one draw in memory at a time. progress: 0 at the first step, 1 after the last.
        """
        sign = self.sign[self.rows]
        value, total = torch.zeros_like(sign), torch.zeros_like(here)
        for rng in self.rng.paired(self.per_step):
            point = here.detach().requires_grad_(True)
            if objective == "score":
                scores = aim = self.score(point, rng)
            else:
                scores, evidence = self.score.with_evidence(point, rng)
                aim = scores if evidence is None else self._pooled(evidence, objective, progress)
                aim = torch.where(self.direct[self.rows], scores, aim)
            (gradient,) = torch.autograd.grad((sign * aim).sum(), point)
            value += sign * scores.detach() / self.per_step
            gradient = gradient.nan_to_num(0, 0, 0)  # one bad pixel must not end an attack
            total = gradient if self.per_step == 1 else total.add_(gradient, alpha=1 / self.per_step)
        self._keep(here, value)
        return value, total

    def look(self, here: Tensor) -> Tensor:
        """sign * score (n,) of the images here, without gradient."""
        value = self.sign[self.rows] * self.score.mean(here, self.rng, self.draws)
        self._keep(here, value)
        return value

    def due(self, step: int) -> bool:
        """Whether to look for images that are done after this step: of a randomized detector that takes draws."""
        return not (self.score.randomized and self.score.settled) or step % LOOK_EVERY == LOOK_EVERY - 1

    def done(self) -> Tensor:
        """(n,) bool: whose goal is reached; of a randomized detector, clearly so under fresh draws."""
        sign = self.sign[self.rows]
        done = self.score.done(self.best_value[self.rows], sign)
        if self.score.randomized and done.any():  # the largest of noisy values is a lucky one
            some = done.nonzero().flatten()
            best, rng = self.best[self.rows[some]], self.rng.rows(some.tolist())
            each = sign[some] * self.score.each(best, rng, self.draws)
            error = each.std(0, correction=0) / max(self.draws - 1, 1) ** 0.5
            done[some] = self.score.done(each.mean(0) - SURE * error, sign[some])
        return done

    def leave(self, gone: Tensor) -> Tensor:
        """These of the n images (n,) bool climb no further; returns the indices of the others."""
        stay = (~gone).nonzero().flatten()
        self.rows, self.rng = self.rows[stay], self.rng.rows(stay.tolist())
        return stay

    def end(self, here: Tensor) -> None:
        """The run is over, and those still climbing are here."""
        if not self.score.randomized:
            if len(here):
                self.look(here)
            return
        # values met on the way are noisy and the largest is a lucky one: the last image is a candidate beside the best
        last = self.best.clone()
        last[self.rows] = here
        self.candidates += [self.best.clone(), last]
        self.best_value = torch.full_like(self.best_value, -torch.inf)

    def chosen(self, rng: Rng) -> Tensor:
        """The best image (B, 3, H, W); of a randomized detector by fresh draws, the same for all candidates."""
        if self.trace is not None:
            self.trace.note(self.trace.budget + 1, self.best_value)
        if not self.score.randomized:
            return self.best
        values = [self.sign * self.score.mean(c, rng.for_choice(), self.draws) for c in self.candidates]
        best = torch.stack(values).argmax(0)
        return torch.stack(self.candidates)[best, torch.arange(len(best), device=best.device)]

    def _keep(self, here: Tensor, value: Tensor) -> None:
        if self.trace is not None:  # one pass a call: the score is not randomized
            self.spent += 1
            self.trace.note(self.spent, self.best_value)
        better = value > self.best_value[self.rows]
        rows = self.rows[better]
        self.best.index_copy_(0, rows, here[better])
        self.best_value[rows] = value[better]

    def _pooled(self, evidence: Tensor, objective: Objective, progress: float) -> Tensor:
        """(n, P) -> (n,), for its gradient."""
        if objective == "mean":
            return evidence.mean(1)
        if objective == "top":
            share = SHARES[0] * (SHARES[1] / SHARES[0]) ** progress
            return evidence.topk(max(round(share * evidence.shape[1]), 1), dim=1).values.mean(1)
        if self.spread is None:  # of the first images met: the temperature must not move with the attack
            spread = evidence.detach().std(1, correction=0)
            self.spread = torch.ones_like(self.sign).index_copy(0, self.rows, spread.clamp_min(SMALLEST_SPREAD))
        fall = (TEMPERATURES[1] / TEMPERATURES[0]) ** progress
        temperature = self.spread[self.rows] * TEMPERATURES[0] * fall
        if self.score.randomized:
            temperature = torch.where(self.sign[self.rows] > 0, RAISING * temperature, temperature)
        # the gradient of temperature * logsumexp(evidence / temperature) is these weights; they cost a third of it
        weights = torch.softmax(evidence.detach() / temperature[:, None], 1)
        return (weights * evidence).sum(1)


class Restarted(Attack):
    """An attack of several runs, each of as many steps and a look at where it ends; it keeps a trace."""

    takes_starts = True
    takes_trace = True

    steps: int
    restarts: int
    draws: int

    def __post_init__(self) -> None:
        positive(steps=self.steps, restarts=self.restarts, draws=self.draws)
        object.__setattr__(self, "budget", self.spent_before(self.restarts))

    def spent_before(self, restart: int) -> int:
        """The passes of an image in the runs before this one."""
        return restart * (self.steps + 1)


def ascend(
    climb: Climb,
    here: Tensor,
    x0: Tensor,
    threat: ThreatModel,
    objective: Objective,
    *,
    steps: int,
    first: float,
    shrinks: bool,
    momentum: float,
) -> Tensor:
    """One run of steepest steps for the images that climb, n of them, here (n, 3, H, W) and around x0.

    Returns where those end whose goal is not reached before. first: length of the first step, in the norm; if it
    `shrinks`, then linearly. momentum: weight of the earlier gradients, each scaled to mean size 1 (Dong et al. 2018).
    """
    gathered = torch.zeros_like(here)
    for i in range(steps):
        _, gradient = climb.gradient(here, objective, i / steps)
        if climb.due(i) and (gone := climb.done()).any():
            stay = climb.leave(gone)
            here, x0, gradient, gathered = here[stay], x0[stay], gradient[stay], gathered[stay]
            if not len(stay):
                break
        if momentum:
            size = gradient.abs().mean((1, 2, 3), keepdim=True)
            gathered = momentum * gathered + gradient / size.clamp_min(torch.finfo(size.dtype).tiny)
            gradient = gathered
        step = first * (1 - i / steps) if shrinks else first
        here = threat.project(here + step * threat.steepest(gradient, here, step), x0)
    return here


def positive(**values: int) -> None:
    """ValueError that names the first parameter below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def not_negative(**values: float) -> None:
    """ValueError that names the first parameter below 0."""
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def per_image(values: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1, 1), to go with images."""
    return values[:, None, None, None]
