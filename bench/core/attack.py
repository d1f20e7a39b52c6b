"""What an attack is: images inside a ball that move the score as far as they can."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from .data import Data
from .rng import Rng
from .score import Score
from .threat import ThreatModel


class Attacked(NamedTuple):
    """What an attack that has more to say than one image returns."""

    images: Mapping[str, Tensor]
    """Candidates by the name of the part that made them, each (B, 3, H, W) and inside the ball: the one with the
    worst score counts, and every part gets a column of its own."""
    columns: Mapping[str, Tensor] = {}
    """Further numbers (B,) by column."""


class Trace:
    """How far an attack has come after 1, 2, 5, 10, 20, 50, ... of its forward passes and after the last, `budget`.

    An image that leaves early keeps its best. At no more than the clone of (B,) a few times in an attack.
    """

    def __init__(self, budget: int):
        self.budget = budget
        below = (m * 10**k for k in range(len(str(budget))) for m in (1, 2, 5))
        self.passes = (*(k for k in below if k < budget), budget)
        """Ascending."""
        self.best: list[Tensor] = []
        """The best sign * score (B,) met in so many passes: of the first few of `passes`, as far as it is known."""

    def note(self, passes: int, best: Tensor) -> None:
        """`best` (B,) is what was met before this pass, counted from 1."""
        while len(self.best) < len(self.passes) and self.passes[len(self.best)] < passes:
            self.best.append(best.clone())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names in the rows."""
        return tuple(f"after_{passes}" for passes in self.passes)


class Attack(Protocol):
    """Moves images inside the threat model so that sign * score grows: sign is +1 for normal, -1 for anomalous.

    An attack may also have
    `prepare(context)`, called once before the first batch;
    a keyword `starts` in its call: images (B, 3, H, W) of the ball from which to start as well;
    a keyword `trace` in its call, a `Trace` that it keeps, and `budget`, the forward passes of an image;
    `knows_noise`: whether it also attacks a randomized detector whose draw is known (where it follows the gradient);
    `parts` and `numbers`: the names in `Attacked.images` and `Attacked.columns`, if it returns that.
    """

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor | Attacked: ...


class Context(NamedTuple):
    """What `Attack.prepare` may use."""

    data: Data
    detector: str
    score: Score
    seed: int
    tell: Callable[[str], None] = lambda message: None
    """For a sentence when something takes long."""


def takes(attack: Attack, keyword: str) -> bool:
    """Whether its call has this keyword: `starts` or `trace`."""
    return keyword in inspect.signature(type(attack).__call__).parameters
