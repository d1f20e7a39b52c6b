"""Square: random search with windows that shrink, on the score itself (Andriushchenko et al. 2020).

https://arxiv.org/abs/1912.00049. It needs no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bench import Attack, Rng, Score, ThreatModel

from ._ascent import EOT_DRAWS, per_image, positive

HALVINGS = (0.03, 0.07, 0.14, 0.22, 0.32, 0.45, 0.63, 0.77, 0.89)
"""Shares of the queries after which the window's area is halved. The square roots of the paper's, which are made for
10 000 queries: with hundreds, single pixels would get most of them."""
TILES = 5  # of the first image in l2, along the shorter side
CHANCES = 8  # numbers that decide about a query: the corners of two windows, three colours, and which way round


@dataclass(frozen=True)
class Square(Attack):
    """Random search on sign * score: one window per image and query changes, and stays if the score went further.

    linf: all values of the window move to the edge of the ball, up or down per colour; the first image has vertical
    stripes. l2: two bumps of opposite sign appear in the window, and take what is left of eps
    and what a second window has, which is emptied.

    Every image has windows and colours of its own, drawn from its own source, and none is given up at a margin. The
    search begins at the best of the first image, the clean one and `starts`.

    queries: candidates that are scored per restart. Of a randomized detector each is compared with the best image so
    far under the same fresh noise, so that a lucky draw is not kept: that costs 2 x `draws` forward passes a query.
    p_init: share of the image's area that the first windows cover. The paper has 0.05 in linf and 0.1 in l2 for
    classifiers; 0.8, as in AutoAttack, reaches further on scores that are a maximum over the image.
    draws: noise draws over which a score is averaged; a detector that is not randomized needs, and gets,
    one.
    restarts: independent searches; the best result counts.
    """

    norms = ("linf", "l2")
    needs_gradient = False
    takes_starts = True

    queries: int = 1000
    p_init: float = 0.8
    draws: int = EOT_DRAWS
    restarts: int = 1

    def __post_init__(self) -> None:
        positive(queries=self.queries, restarts=self.restarts, draws=self.draws)
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init must be above 0 and at most 1, got {self.p_init}")

    def __call__(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None = None
    ) -> Tensor:
        """Images of the ball around x (B, 3, H, W) with a high sign * score; sign (B,) is +1 or -1.

        starts: images like x from which to start as well. Which of the starts and the results is best is decided
        under draws that no search has seen.
        """
        draws = self.draws if score.randomized else 1
        first, value = x, sign * score.mean(x, rng.for_choice(), draws)
        if starts is not None:
            inside = threat.project(starts, x)
            first, value = _better(first, value, inside, sign * score.mean(inside, rng.for_choice(), draws))
        best = first
        for restart in range(self.restarts):
            left = (~score.done(value, sign)).nonzero().flatten()
            if not len(left):
                break
            source = rng.rows(left.tolist())
            search = _Search(x[left], first[left], value[left], sign[left], source.child("restart", restart))
            found = threat.project(search.run(score, threat, self.queries, self.p_init, draws), x[left])
            reached = sign[left] * score.mean(found, source.for_choice(), draws)
            better, higher = _better(best[left], value[left], found, reached)
            best, value = best.index_copy(0, left, better), value.index_copy(0, left, higher)
        return best


class _Search:
    """One restart: the images that are still searched, and the best found of all of them."""

    def __init__(self, x: Tensor, first: Tensor, value: Tensor, sign: Tensor, rng: Rng):
        self.x, self.best, self.value, self.sign, self.rng = x, first, value, sign, rng
        self.found = first.clone()
        self.rows = torch.arange(len(x), device=x.device)  # where in `found` those that are searched belong

    def run(self, score: Score, threat: ThreatModel, queries: int, p_init: float, draws: int) -> Tensor:
        """(B, 3, H, W): the best image of each."""
        search = SEARCHES[threat.norm]
        trial = search.first(self.x, threat, self.rng)
        chance = self.rng.child("windows").uniform(self.x.new_empty(len(self.x), queries, CHANCES))
        for i in range(queries):
            sure = self.value
            if score.randomized:  # in one query the best and the trial meet the same noise
                each = self._each(score, self.best, i, draws)
                self.value, sure = each.mean(0), each.amin(0)
            if score.stops:
                searched = (~score.done(sure, self.sign)).nonzero().flatten()
                self._keep(searched)
                chance, trial = chance[searched], trial[searched]
                if not len(searched):
                    break
            if i:
                trial = search.move(self.x, self.best, chance[:, i], _side(p_init, i / queries, self.x), threat)
            value = self._each(score, trial, i, draws).mean(0)
            self.best, self.value = _better(self.best, self.value, trial, value)
        self._keep(self.rows[:0])
        return self.found

    def _each(self, score: Score, image: Tensor, query: int, draws: int) -> Tensor:
        """(draws, B): sign * score, of any image under the same noise."""
        noise = self.rng.child("noise", query) if score.randomized else self.rng
        return self.sign * score.each(image, noise, draws)

    def _keep(self, searched: Tensor) -> None:
        """Only these go on; what has been found of all is noted."""
        self.found[self.rows] = self.best
        self.x, self.best, self.value, self.sign = (t[searched] for t in (self.x, self.best, self.value, self.sign))
        self.rows, self.rng = self.rows[searched], self.rng.rows(searched.tolist())


def _better(best: Tensor, value: Tensor, trial: Tensor, trial_value: Tensor) -> tuple[Tensor, Tensor]:
    better = trial_value > value
    return torch.where(per_image(better), trial, best), torch.where(better, trial_value, value)


def _side(p_init: float, done: float, x: Tensor) -> int:
    """Side of the window in pixels after this share of the queries."""
    height, width = x.shape[2:]
    area = p_init * height * width / 2 ** sum(done > share for share in HALVINGS)
    return min(max(round(math.sqrt(area)), 1), height, width)


def _window(chance: Tensor, side: int, x: Tensor) -> tuple[Tensor, slice, Tensor, Tensor]:
    """An index: of each image its own square, from two numbers on [0, 1) per image."""
    most = chance.new_tensor([size - side for size in x.shape[2:]])
    corner = (chance * (most + 1)).floor().minimum(most).long()  # (B, 2)
    along = torch.arange(side, device=x.device)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return image, slice(None), (corner[:, :1] + along)[:, :, None], (corner[:, 1:] + along)[:, None, :]


def _signs(chance: Tensor) -> Tensor:
    return torch.where(chance < 0.5, -1.0, 1.0).to(chance)


def _striped(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """linf: every column has a colour of its own."""
    return threat.project(x + threat.radius * _signs(rng.child("first").uniform(x[:, :, :1])), x)


def _coloured(x: Tensor, best: Tensor, chance: Tensor, side: int, threat: ThreatModel) -> Tensor:
    """linf: a window of the ball's edge, one sign per colour."""
    at = _window(chance[:, :2], side, x)
    trial = best.clone()
    trial[at] = (x[at] + threat.radius * _signs(chance[:, None, None, 4:7])).clamp(0, 1)
    return trial


def _tiled(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """l2: bumps side by side, of random sign per tile and colour, at full length."""
    height, width = x.shape[2:]
    side = max(min(height, width) // TILES, 1)
    down, across = -(-height // side), -(-width // side)
    signs = _signs(rng.child("first").uniform(x.new_empty(len(x), x.shape[1], down, across)))
    shift = torch.kron(signs, _bumps(side, x))[:, :, :height, :width]
    return threat.project(x + threat.radius * shift / _length(shift, (1, 2, 3)), x)


def _bumped(x: Tensor, best: Tensor, chance: Tensor, side: int, threat: ThreatModel) -> Tensor:
    """l2: the second window is emptied into the first, which gets two bumps beside what it has."""
    into, out = _window(chance[:, :2], side, x), _window(chance[:, 2:4], side, x)
    shift = best - x
    spent = shift.square().sum((2, 3))  # (B, 3): length by colour, squared
    own = shift[into]  # (B, side, side, 3)
    shift[into], shift[out] = 0, 0
    unspent = (threat.radius**2 - spent.sum(1, keepdim=True)).clamp_min(0)
    freed = (spent - shift.square().sum((2, 3))).clamp_min(0)
    available = (freed + unspent / x.shape[1]).sqrt()[:, None, None]  # (B, 1, 1, 3)
    bumps = _bumps(side, x)
    bumps = torch.where(chance[:, 7, None, None] < 0.5, bumps, bumps.mT)[..., None]
    new = _signs(chance[:, None, None, 4:7]) * bumps + own / _length(own, (1, 2))
    shift[into] = available * new / _length(new, (1, 2))
    return (x + shift).clamp(0, 1)


class _Moves(NamedTuple):
    """What the search does in a norm."""

    first: Callable[[Tensor, ThreatModel, Rng], Tensor]
    """(images x, threat, source) -> the first image."""
    move: Callable[[Tensor, Tensor, Tensor, int, ThreatModel], Tensor]
    """(x, the best so far, chance (B, CHANCES), side of the window, threat) -> the next one."""


SEARCHES = {"linf": _Moves(_striped, _coloured), "l2": _Moves(_tiled, _bumped)}


def _bumps(side: int, like: Tensor) -> Tensor:
    """(side, side), of length 1: two bumps beside each other, one up and one down.

    d steps from its middle a bump is as high as the sum of 1 / j^2 over j from d + 1 to half of its longer side + 1.
    """
    heights = torch.arange(side // 2 + 1, 0, -1, device=like.device, dtype=like.dtype).pow(-2).cumsum(0).flip(0)
    down = (torch.arange(side, device=like.device) - side // 2).abs()[:, None]
    halves = [
        sign * heights[torch.maximum(down, (torch.arange(width, device=like.device) - width // 2).abs())]
        for sign, width in ((1, side // 2), (-1, side - side // 2))
    ]
    both = torch.cat(halves, 1)
    return both / _length(both, (0, 1))


def _length(shift: Tensor, dim: tuple[int, ...]) -> Tensor:
    length = torch.linalg.vector_norm(shift, dim=dim, keepdim=True)
    return length.clamp_min(torch.finfo(shift.dtype).tiny)
