"""The score as an attack sees it: checked, counted, and the same call for every detector."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from ..errors import UserError
from .detector import Detector, Hints
from .manners import left_as_it_was
from .opaque import opaque
from .plain_score import plain_score
from .rng import Rng

Goal = Literal["rank", "threshold", "map"]
GOALS: tuple[Goal, ...] = get_args(Goal)
"""What the adversary wants: a score as far on the wrong side as possible, or just across the threshold; or an anomaly
map that points elsewhere."""


@dataclass
class Passes:
    """What an attack has cost so far, in images."""

    forwards: int = 0
    backwards: int = 0


class Settled(NamedTuple):
    """Beyond these an image has lost every pair that it is in: moved further, it changes no ranking and no decision."""

    above: float
    """A normal image with a higher score: that of no anomalous image is as high, attacked or not."""
    below: float
    """An anomalous image with a lower score: that of no normal image is as low."""

    @classmethod
    def of(cls, clean: Tensor, labels: Tensor, threshold: float | None) -> Settled:
        """From the clean scores (N,) of all test images; labels: 1 for anomalous."""
        normal, anomalous = clean[labels == 0].tolist(), clean[labels == 1].tolist()
        across = [] if threshold is None else [threshold]
        return cls(max([*anomalous, *across]), min([*normal, *across]))

    def reached(self, value: Tensor, sign: Tensor) -> Tensor:
        """(B,) bool, given sign * score."""
        return value > self.bound(sign)

    def bound(self, sign: Tensor) -> Tensor:
        """(B,): of sign * score."""
        return torch.where(sign > 0, self.above, -self.below).to(sign)


class Watch(Protocol):
    """Waits for what flows back to a call."""

    def after(self, x: Tensor, scores: Tensor, evidence: Tensor | None) -> None:
        """The call has given these."""


class Observer(Protocol):
    """Looks at some of the calls of an attack."""

    def before(self, x: Tensor, rng: Rng | None) -> Watch | None:
        """Of a call that is about to be made; None lets it pass."""


class Score:
    """score(x, rng) -> (B,): sign, shape and type are verified, images forward and backward are counted.

    Every call may pass `rng`; it reaches the detector only if that is randomized, and then as an opaque source.

    threshold: the score above which an image is called anomalous; None where nobody has set one.
    goal: `rank`, or `threshold`: an image is `done` as soon as it is on the wrong side.
    settled: of the goal `rank`, where an image is `done`; None: nowhere.
    differentiable: what was found of it; None believes the detector.
    """

    method = "score"
    """Of the detector, which is what is asked."""

    def __init__(
        self,
        detector: Detector,
        name: str = "",
        threshold: float | None = None,
        goal: Goal = "rank",
        differentiable: bool | None = None,
    ):
        self.detector, self.name = detector, name or type(detector).__name__
        self.threshold, self.goal = threshold, goal
        self.differentiable = detector.differentiable if differentiable is None else differentiable
        """Whether there is a gradient to follow: what was found, where somebody has looked, else what is declared."""
        self.randomized = detector.randomized
        self.fixed = False
        """True: the adversary knows the noise, which is the same in every call (see `with_known_noise`)."""
        self.settled: Settled | None = None
        self.passes = Passes()
        self.observer: Observer | None = None

    @property
    def forwards(self) -> int:
        """Images scored so far."""
        return self.passes.forwards

    @property
    def backwards(self) -> int:
        """Images through which a gradient has flowed so far."""
        return self.passes.backwards

    @property
    def hints(self) -> Hints:
        """What the detector tells its attackers."""
        return self.detector.attack_hints()

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.with_evidence(x, rng, wanted=False)[0]

    def with_evidence(self, x: Tensor, rng: Rng | None = None, wanted: bool = True) -> tuple[Tensor, Tensor | None]:
        """The scores, and from the same forward pass the local scores (B, P) that they are pooled from.

        None if the detector offers none.
        """
        watch = None if self.observer is None else self.observer.before(x, rng)
        try:
            with left_as_it_was(f"detector {self.name}", self.method, x):
                found = self._found(x, rng, wanted)
            scores, evidence = found if wanted and isinstance(found, tuple) else (plain_score(found), None)
        except (UserError, torch.OutOfMemoryError):
            raise  # whoever chose the batch takes a smaller one
        except Exception as error:  # a plug-in may raise anything
            raise UserError(f"detector {self.name} failed in {self.method}: {where_it_failed(error)}") from error
        if not isinstance(scores, Tensor) or scores.shape != (len(x),) or not scores.is_floating_point():
            raise UserError(
                f"detector {self.name} must score a batch of {len(x)} images with a float tensor "
                f"of shape ({len(x)},), got {_what(scores)}"
            )
        scores, evidence = _no_wider(scores, x), None if evidence is None else _no_wider(evidence, x)
        if evidence is not None and (not isinstance(evidence, Tensor) or evidence.shape[:1] != (len(x),)):
            raise UserError(
                f"the evidence of detector {self.name} must be a float tensor ({len(x)}, P), got {_what(evidence)}"
            )
        self.passes.forwards += len(x)
        if x.requires_grad:  # at the image: an objective may be made of the evidence alone
            x.register_hook(self._count_backward)
        evidence = None if evidence is None else evidence.flatten(1)
        if watch is not None:
            # what the caller makes of each is told apart from what flows from the one to the other in the detector
            scores, evidence = scores.view_as(scores), None if evidence is None else evidence.view_as(evidence)
            watch.after(x, scores, evidence)
        return scores, evidence

    def mean(self, x: Tensor, rng: Rng, draws: int) -> Tensor:
        """The mean of `draws` scores (B,) under noise from `rng`; no gradient."""
        return self.each(x, rng, draws).mean(0)

    def each(self, x: Tensor, rng: Rng, draws: int) -> Tensor:
        """(draws, B): the single scores; no gradient."""
        with torch.no_grad():
            return torch.stack([self(x, rng) for _ in range(draws)])

    @property
    def stops(self) -> bool:
        """Whether an image may be `done`."""
        return self.goal == "threshold" or self.settled is not None

    def done(self, value: Tensor, sign: Tensor) -> Tensor:
        """(B,) bool: whose goal is reached, given sign * score; where the goal is `rank`, what is `settled`."""
        if self.goal == "rank":
            settled = self.settled
            return torch.zeros_like(value, dtype=torch.bool) if settled is None else settled.reached(value, sign)
        return value > sign * self.needed_threshold("the goal `threshold`")

    def needed_threshold(self, what: str) -> float:
        """The threshold, or a UserError that says why there is none."""
        if self.threshold is None:
            raise UserError(
                f"{what} needs a threshold, and detector {self.name} has none: no normal training images were held out"
            )
        return self.threshold

    def with_known_noise(self) -> Score:
        """The same detector to an adversary who knows the draw: every image meets one and the same noise.

        It is no longer randomized, so any attack takes it for deterministic. The passes are counted together.
        """
        return _KnownNoise(self)

    def _found(self, x: Tensor, rng: Rng | None, wanted: bool) -> object:
        """What the detector gives, whatever it is. wanted: with its evidence."""
        method = self.detector.score_with_evidence if wanted else self.detector.score
        return method(x, opaque(self._noise(rng))) if self.detector.randomized else method(x)

    def _noise(self, rng: Rng | None) -> Rng | None:
        return rng

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes.backwards += len(gradient)


class _KnownNoise(Score):
    def __init__(self, score: Score):
        super().__init__(score.detector, score.name, score.threshold, score.goal, score.differentiable)
        self.passes, self.randomized, self.fixed = score.passes, False, True

    def _noise(self, rng: Rng | None) -> Rng | None:
        if rng is None:
            raise ValueError("a score with known noise needs the source that names the images")
        return rng.known()


def _no_wider(found: Tensor, x: Tensor) -> Tensor:
    """In the precision of the images, if it has a higher one: attacks compute in that of the images."""
    wider = isinstance(found, Tensor) and found.is_floating_point() and found.itemsize > x.itemsize
    return found.to(x.dtype) if wider else found


def _what(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    if not isinstance(value, (tuple, list, Mapping)) or not value:
        return type(value).__name__
    return (
        f"{type(value).__name__} of {len(value)}; return the scores alone, or name them pred_score (a map goes to "
        "anomaly_map(x), local scores to score_with_evidence(x))"
    )


def where_it_failed(error: BaseException) -> str:
    """One line: the kind of error, its first line, and the innermost place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + message[0] if message else ''}{place}"
