"""What an attack is: images at most eps away that move the score as far as they can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from .data import Data
from .parameters import accepted
from .rng import Rng
from .score import Score
from .threat import ThreatModel

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Attacked(NamedTuple):
    """What an attack that has more to say than one image returns."""

    images: Mapping[str, Tensor]
    """Candidates by the name of the part that made them, each (B, 3, H, W) and within eps: the one with the worst
    score counts, and every part gets a column of its own."""
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


class Tried(NamedTuple):
    """What a survey has found of parts that see no gradient, on a few images, beside those that follow one."""

    parts: tuple[str, ...]
    ahead: int
    """Images at which the best of them is clearly further."""
    allowed: int
    """At so many it may be, before all images meet these parts."""
    images: int


class Context(NamedTuple):
    """What `Attack.prepare` may use."""

    data: Data
    detector: str
    score: Score
    seed: int
    tell: Callable[[str], None] = lambda message: None
    """For a sentence when something takes long."""


class Method:
    """What the numbers of a cell come from: an attack, or a certificate.

    The constructor's arguments are its parameters: each has a default and an annotation, and is kept as an attribute
    of the same name, so that a run can record it.
    """

    norms: ClassVar[Collection[str]]
    """Names of the norms it can be asked for; those of `bench.core.norms.NORMS` if it knows none by name."""

    parts: tuple[str, ...] = ()
    """The names in `Attacked.images`, where it returns that: each is a column of the rows."""

    sources: Mapping[str, Any] = NOTHING
    """Other detectors that it rests on, for the record of a run."""

    @property
    def parameters_record(self) -> dict[str, Any]:
        """The constructor's arguments with the values that are used."""
        return {name: getattr(self, name) for name in accepted(type(self))}


class Attack(Method, ABC):
    """Moves images inside the threat model so that sign * score grows.

    A subclass names its `norms` and implements the call; everything else has a default. It draws from the `rng` it is
    given and from nothing else, so that an image's result depends on the image, the parameters and the seed.
    """

    needs_gradient: bool = True
    """False: it asks for scores only, and is offered for detectors that are not differentiable."""

    goes_around_blocks: bool = False
    """True: it needs no gradient of the blocks that a detector passes to `bpda`."""

    needs_threshold: bool = False
    """True: it aims across the detector's threshold and, if it has no `parts`, no further."""

    knows_noise: bool | None = None
    """Whether a randomized detector meets it once more with the draw known (the column `known_noise`), if there is a
    gradient to follow; None: if it needs the gradient."""

    takes_starts: bool = False
    """True: the call has a keyword `starts`: images (B, 3, H, W) within eps from which to start as well, or None."""

    takes_trace: bool = False
    """True: the call has a keyword `trace`: a `Trace` to keep to its last pass, or None."""

    settles: bool = False
    """True: it leaves an image alone that can flip no pair any more (`Score.settled`, which is set for it then)."""

    surveyed: int = 0
    """Images of each class that `survey` is to see."""

    budget: int | None = None
    """Of an attack that takes a trace: the forward passes of an image of a detector that draws no noise."""

    numbers: tuple[str, ...] = ()
    """The names in `Attacked.columns`."""

    def prepare(self, context: Context) -> None:
        """Called once before the first batch. What `parts`, `numbers` and `sources` say may be settled here."""

    def survey(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tried | None:
        """Called before the first batch with a few test images of each class, with the sources that their rows draw
        from; `parts` may be settled here. It must come to the same whenever it is asked. What it returns is what the
        checks `black box` and `transfer` say, unless these parts have columns; None: nothing was tried."""
        return None

    def stronger(self) -> Mapping[str, Attack]:
        """This attack with more of `steps` or of `draws`, by that word, where that is not twice its own parameter.

        A finished cell is attacked with it again, to see whether the attack had arrived.
        """
        return {}

    @abstractmethod
    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor | Attacked:
        """Images within eps of x and in [0, 1], with a high sign * score.

        x: (B, 3, H, W) in [0, 1], not to be changed in place. sign: (B,), +1 for normal images, whose score is to rise,
        and -1 for anomalous ones. rng: one source per image. Keywords follow only where the attack takes them.
        """
