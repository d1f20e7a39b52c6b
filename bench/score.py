"""The score as an attack sees it: checked, counted, and the same call for every detector."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch
from torch import Tensor

from .detector import Detector
from .errors import UserError
from .rng import Rng


class Score:
    """score(x, rng) -> (B,): sign, shape and type are verified, images forward and backward are counted.

    Every call may pass `rng`; it reaches the detector only if that is randomized.
    """

    def __init__(self, detector: Detector, name: str = ""):
        self.detector, self.name = detector, name or type(detector).__name__
        self.randomized = detector.randomized
        self.forwards = 0
        """Images scored so far."""
        self.backwards = 0
        """Images through which a gradient has flowed so far."""

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        try:
            scores = self.detector.score(x, rng) if self.randomized else self.detector.score(x)
        except UserError:
            raise
        except Exception as error:  # a plug-in may raise anything
            raise UserError(f"detector {self.name} failed in score: {where_it_failed(error)}") from error
        if not isinstance(scores, Tensor) or scores.shape != (len(x),) or not scores.is_floating_point():
            got = f"{tuple(scores.shape)} {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
            raise UserError(
                f"detector {self.name} must score a batch of {len(x)} images with a float tensor "
                f"of shape ({len(x)},), got {got}"
            )
        self.forwards += len(x)
        if scores.requires_grad:
            scores.register_hook(self._count_backward)
        return scores

    def mean(self, x: Tensor, rng: Rng, draws: int) -> Tensor:
        """The mean of `draws` scores (B,) under noise from `rng`; no gradient."""
        with torch.no_grad():
            return torch.stack([self(x, rng) for _ in range(draws)]).mean(0)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def where_it_failed(error: Exception) -> str:
    """One line: the kind of error, its first line, and the innermost place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + message[0] if message else ''}{place}"
