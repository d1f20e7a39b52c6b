"""What an attack was told while it ran: a few of its calls to the score, and the gradients that came back.

A check that asks a detector once more sees what the detector shows to that check. What is kept here is what the attack
itself has followed: image, noise, value and gradient of one call in each batch, which the detector could not tell from
any other.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.data import TestSet
from ..core.rng import Rng, witness_lot
from ..core.score import Score

CALLED = 4
"""Images of each class whose gradient is kept, at most; twice as many are kept as the attack has left them."""
FEWEST, IMAGES_FOR_ONE = 2, 16
"""The least that are looked at, and images of a cell for each of them, so that what is done with them stays small."""


def looked_at(images: int) -> int:
    """How many of each class, in a cell of so many images."""
    return min(max(images // IMAGES_FOR_ONE, FEWEST), CALLED)


class Call(NamedTuple):
    """One call of an attack, on a few of its images, and what has flowed back to them."""

    labels: list[int]
    images: Tensor
    """(N, 3, H, W), as the score was given them."""
    noise: Rng
    """Draws what the call has drawn."""
    scores: Tensor
    """(N,)"""
    gradient: Tensor
    """(N, 3, H, W): of `weights` * score + the sum of `local_weights` * evidence."""
    weights: Tensor
    """(N,): what came back to the scores; the attack's own objective decides."""
    local_weights: Tensor | None
    """(N, P): what came back to the local scores; None if nothing did."""

    def of(self, rows: Sequence[int]) -> Call:
        """Of some of its images."""
        some, local = list(rows), self.local_weights
        return Call(
            [self.labels[i] for i in some],
            self.images[some],
            self.noise.again(some),
            self.scores[some],
            self.gradient[some],
            self.weights[some],
            None if local is None else local[some],
        )


class Witness:
    """Keeps one call of each batch, chosen among all of them, until there are enough images of each class; and a few of
    the images that the attack has made."""

    def __init__(self, seed: int, images: int):
        """images: how many the cell has."""
        self.seed, self.wanted = seed, looked_at(images)
        self.calls: list[Call] = []
        self.images: dict[int, Tensor] = {}
        """Attacked images by their index in the test set, as they were scored for the rows."""
        self._seen = [0, 0]
        self._watched: dict[str, int] = {}
        """id -> label, of the batch that is being attacked."""
        self._chance, self._met = random.Random(0), 0
        self._kept: list[Call] = []

    @contextlib.contextmanager
    def watching(self, score: Score, ids: Sequence[str], labels: Sequence[int]) -> Iterator[None]:
        """The batch with these ids is attacked within, through this score."""
        lots = sorted((self._lot(name), name, label) for name, label in zip(ids, labels, strict=True))
        self._watched = {}
        for label in (0, 1):
            own = [name for _, name, y in lots if y == label]
            self._watched |= dict.fromkeys(own[: self.wanted - self._seen[label]], label)
        self._chance, self._met, self._kept = random.Random(lots[0][0]), 0, []
        score.observer = self if self._watched else None
        try:
            yield
        finally:
            score.observer = None
        self.calls += self._kept
        for label in (label for call in self._kept for label in call.labels):
            self._seen[label] += 1

    def before(self, x: Tensor, rng: Rng | None) -> _Watch | None:
        """Of a call that is about to be made: who waits for its gradient, if it is one of those that are kept."""
        if rng is None or len(rng.ids) != len(x) or not (x.requires_grad and torch.is_grad_enabled()):
            return None
        rows = [i for i, name in enumerate(rng.ids) if name in self._watched]
        self._met += bool(rows)
        if not rows or self._chance.random() * self._met >= 1:  # in the end each call was kept with the same chance
            return None
        return _Watch(self._keep, rows, [self._watched[rng.ids[i]] for i in rows], rng.again(rows))

    def _keep(self, call: Call) -> None:
        self._kept = [call]

    def put(self, indices: Sequence[int], images: Tensor, test: TestSet) -> None:
        """What the rows of these test images are the scores of; of each class the first few by lot are kept."""
        self.images |= {i: image.clone() for i, image in zip(indices, images, strict=True)}
        for label in (0, 1):
            own = sorted((i for i in self.images if test.labels[i] == label), key=lambda i: self._lot(test.ids[i]))
            for i in own[2 * self.wanted :]:
                del self.images[i]

    def _lot(self, name: str) -> str:
        return witness_lot(self.seed, name)


class _Watch:
    """Waits for the gradient of one call."""

    def __init__(self, keep: Callable[[Call], None], rows: list[int], labels: list[int], noise: Rng):
        self.keep, self.rows, self.labels, self.noise = keep, rows, labels, noise
        self.weights: Tensor | None = None
        self.local_weights: Tensor | None = None

    def after(self, x: Tensor, scores: Tensor, evidence: Tensor | None) -> None:
        """The call was made; nothing is kept unless a gradient comes back."""
        self.images, self.scores = x.detach()[self.rows].clone(), scores.detach()[self.rows].clone()
        if scores.requires_grad:
            scores.register_hook(self._of_scores)
        if evidence is not None and evidence.requires_grad:
            evidence.register_hook(self._of_evidence)
        x.register_hook(self._of_images)

    def _of_scores(self, gradient: Tensor) -> None:
        self.weights = gradient.detach()[self.rows].clone()

    def _of_evidence(self, gradient: Tensor) -> None:
        self.local_weights = gradient.detach()[self.rows].clone()

    def _of_images(self, gradient: Tensor) -> None:
        weights = torch.zeros_like(self.scores) if self.weights is None else self.weights
        found = gradient.detach()[self.rows].clone()
        self.keep(Call(self.labels, self.images, self.noise, self.scores, found, weights, self.local_weights))
