"""The worst of a box of light and pose, image by image: a grid over each half of the box in turn, then the gradient."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core import semantic
from ..core.attack import Method
from ..core.data import Data
from ..core.norms import SEMANTIC
from ..core.rng import Rng
from ..core.score import Passes, Score
from ..core.semantic import LIGHT, MOST, NAMES, POSE, grid, share_of, transformed
from ..engine.clean_scores import CleanScores
from ..engine.worker import PROBE_IMAGES, Prepared, finite, refuse_constant
from ..errors import UserError

FIRST_STEP = 0.5  # of the half width of the box; later ones shrink to 0


@dataclass(frozen=True)
class Box(Method):
    """How the box is searched.

    points: of the grid, along each side; an odd number, so that the middle, where nothing changes, is one of them.
    rounds: over light and pose in turn, each around the best of the other.
    steps: along the signs of the gradient, from the best of the grid; 0, and of a detector without a gradient: none.
    draws: of a randomized detector, over which the search averages.
    """

    norms = (SEMANTIC,)
    parts = ("grid",)

    points: int = 3
    rounds: int = 2
    steps: int = 20
    draws: int = 4

    def __post_init__(self) -> None:
        if self.points < 3 or self.points % 2 == 0:
            raise UserError(f"points must be an odd number from 3 on, got {self.points}")
        for name in ("rounds", "draws"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps < 0:
            raise UserError(f"steps must not be below 0, got {self.steps}")


class Found(NamedTuple):
    """The best of a search: numbers (B, 6) of the box."""

    grid: Tensor
    refined: Tensor


class Searcher:
    """Makes rows of the worst that it finds in the box."""

    def __init__(self, spec: RunSpec, data: Data, prepared: Prepared, box: Box):
        self.spec, self.data, self.prepared, self.box = spec, data, prepared, box
        self.score = Score(prepared.detector, spec.detector, differentiable=prepared.differentiable)
        self.draws = spec.score_draws if prepared.detector.randomized else 1
        self.searched = box.draws if prepared.detector.randomized else 1
        self.share = spec.threat.radius
        self.beforehand = Passes()
        self._clean = CleanScores(data.test, self._each_of, (spec.seed, self.draws), prepared.clean)

    def probe(self) -> None:
        """A score that is not finite, or the same for every image, is refused before the work."""
        some = self.data.test.of_each_class(PROBE_IMAGES)
        scores = self.scores(self.images(some), some, "clean")
        refuse_constant(self.spec.detector, scores.tolist(), f"{len(some)} different images")

    def images(self, indices: Sequence[int]) -> Tensor:
        """As they are."""
        return self.data.test.images(indices).to(self.prepared.device)

    def rng(self, indices: Sequence[int]) -> Rng:
        """What the run draws for these test images."""
        return Rng.of_run(self.spec.seed, [self.data.test.ids[i] for i in indices])

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """The rows of these test images: with the numbers that the worst image is made of. Doing nothing is allowed."""
        x, records = self.images(indices), [self.data.test.records[i] for i in indices]
        sign = torch.tensor([1.0 - 2 * record.label for record in records], dtype=torch.float64)
        self.score.passes.forwards += len(indices) * self.draws  # also where another cell has made them
        clean = self._clean.of(indices).mean(0).double().cpu()
        found = self.search(x, sign, indices)
        nothing = torch.zeros_like(found.grid)
        by_grid = self.scores(transformed(x, found.grid), indices, "transformed").double().cpu()
        refined = self.scores(transformed(x, found.refined), indices, "transformed").double().cpu()
        best, worst = _worse(sign, (clean, nothing), (by_grid, found.grid))
        reached = worst
        best, worst = _worse(sign, (worst, best), (refined, found.refined))
        rounded = (transformed(x, best) * 255).round() / 255
        eight_bits, far = self.scores(rounded, indices, "rounded").tolist(), share_of(best).tolist()
        numbers = [dict(zip(NAMES, values, strict=True)) for values in best.tolist()]
        return [
            Row(r.id, r.label, float(clean[i]), float(worst[i]), far[i], eight_bits[i],
                {"grid": float(reached[i])} | numbers[i])
            for i, r in enumerate(records)
        ]  # fmt: skip

    def search(self, x: Tensor, sign: Tensor, indices: Sequence[int]) -> Found:
        """Of these images (B, 3, S, S). The refined one begins at that of the grid, and is no worse under the noise of
        the search."""
        rng, sign = self.rng(indices).for_attack(), sign.to(x)
        best = torch.zeros(len(x), len(NAMES), dtype=torch.float64)
        value = sign * self.score.mean(x, rng, self.searched)
        for _ in range(self.box.rounds):
            for half in (LIGHT, POSE):
                for point in grid(half, self.box.points, self.share):
                    tried = best.clone()
                    tried[:, list(half)] = point[list(half)]
                    best, value = self._better(x, sign, rng, (best, value), tried)
        if not self.prepared.differentiable:
            return Found(best, best)
        return Found(best, self._climbed(x, sign, rng, best, value))

    def _better(
        self, x: Tensor, sign: Tensor, rng: Rng, so_far: tuple[Tensor, Tensor], tried: Tensor
    ) -> tuple[Tensor, Tensor]:
        best, value = so_far
        found = sign * self.score.mean(transformed(x, tried), rng, self.searched)
        ahead = found > value
        return torch.where(ahead.cpu()[:, None], tried, best), torch.where(ahead, found, value)

    def _climbed(self, x: Tensor, sign: Tensor, rng: Rng, start: Tensor, value: Tensor) -> Tensor:
        """Steps along the signs of the gradient, each side of the box in parts of its own width."""
        here, best = start, start
        for step in range(self.box.steps):
            slope = self._slope(x, sign, rng, here)
            length = FIRST_STEP * self.share * (1 - step / self.box.steps)
            limit = self.share * MOST
            here = (here + length * slope.sign() * MOST).clamp(-limit, limit)
            best, value = self._better(x, sign, rng, (best, value), here)
        return best

    def _slope(self, x: Tensor, sign: Tensor, rng: Rng, here: Tensor) -> Tensor:
        """(B, 6), on the CPU; 0 where there is none."""
        with torch.enable_grad():
            numbers = here.to(x.device).requires_grad_()
            image = transformed(x, numbers, smooth=True)
            total = torch.stack([sign * self.score(image, rng) for _ in range(self.searched)]).sum()
            (slope,) = torch.autograd.grad(total, numbers)
        return slope.nan_to_num(0, 0, 0).cpu()

    def scores(self, images: Tensor, indices: Sequence[int], what: str) -> Tensor:
        """(B,): scores of images in the stead of these test images, under the noise of the run."""
        found = self.score.mean(images, self.rng(indices).for_evaluation(), self.draws)
        return finite(found, self.spec.detector, [self.data.test.ids[i] for i in indices], what)

    def _each_of(self, indices: Sequence[int]) -> Tensor:
        """(draws, B): the scores of these test images as they are, which rows count."""
        before = self.score.forwards
        found = self.score.each(self.images(indices), self.rng(indices).for_evaluation(), self.draws)
        self.score.passes.forwards = before
        return found


def _worse(sign: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(numbers, score) of the one, or of the other where that is worse for the detector."""
    ahead = sign * other[0] > sign * one[0]
    return torch.where(ahead[:, None], other[1], one[1]), torch.where(ahead, other[0], one[0])


def made_of(row: Row) -> Tensor:
    """(1, 6): the numbers that a row keeps."""
    return torch.tensor([[row.more[name] for name in NAMES]], dtype=torch.float64)


@functools.cache
def own_code() -> str:
    """Hash of the code that transforms images and makes rows of them."""
    content = b"".join(Path(module).read_bytes() for module in (__file__, str(semantic.__file__)))
    return hashlib.sha256(content).hexdigest()
