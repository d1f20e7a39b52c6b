"""Scores of images that nobody has attacked, under other light, through another lens: rows of a cell of shifts."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core import shifts
from ..core.attack import Method
from ..core.data import Data
from ..core.rng import Rng
from ..core.score import Passes, Score
from ..core.shifts import Condition, kinds_of, severities_of, shifted
from .clean_scores import CleanScores
from .worker import PROBE_IMAGES, Prepared, finite, refuse_constant


@dataclass(frozen=True)
class Shift(Method):
    """Which kinds of shift, each at which severities."""

    norms = ("linf",)

    kinds: tuple[str, ...] = tuple(shifts.PUBLISHED)
    severities: tuple[int, ...] = (shifts.PUBLISHED_SEVERITY,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", kinds_of(self.kinds))
        object.__setattr__(self, "severities", severities_of(self.severities))

    @property
    def conditions(self) -> list[Condition]:
        return [Condition(kind, severity) for kind in self.kinds for severity in self.severities]

    @property
    def parts(self) -> tuple[str, ...]:  # type: ignore[override]
        """A column each."""
        return tuple(condition.name for condition in self.conditions)


class Shifter:
    """Scores every image as it is and under every condition, and makes rows of it."""

    def __init__(self, spec: RunSpec, data: Data, prepared: Prepared, shift: Shift):
        self.spec, self.data, self.prepared, self.shift = spec, data, prepared, shift
        self.score = Score(prepared.detector, spec.detector)
        self.draws = spec.score_draws if prepared.detector.randomized else 1
        self.beforehand = Passes()
        self._clean = CleanScores(data.test, self._each_of, (spec.seed, self.draws), prepared.clean)

    def probe(self) -> None:
        """A score that is not finite, or the same for every image, is refused before the work."""
        some = self.data.test.of_each_class(PROBE_IMAGES)
        scores = self._means(self.data.test.images(some), some, "clean")
        refuse_constant(self.spec.detector, scores.tolist(), f"{len(some)} different images")

    def rng(self, indices: Sequence[int]) -> Rng:
        """What the run draws for these test images."""
        return Rng.of_run(self.spec.seed, [self.data.test.ids[i] for i in indices])

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """The rows of these test images; `worst` is that of all conditions, and of none."""
        records = [self.data.test.records[i] for i in indices]
        x = self.data.test.images(indices)
        sign = torch.tensor([1.0 - 2 * record.label for record in records], dtype=torch.float64)
        before = self.score.forwards
        clean = self._clean.of(indices).mean(0).double().cpu()
        self.score.passes.forwards = before + len(indices) * self.draws
        pixels = [record.source.pixels() for record in records]
        columns: dict[str, Tensor] = {}
        worst, distance = clean.clone(), torch.zeros_like(clean)
        for condition in self.shift.conditions:
            moved = torch.stack(
                [shifted(pixels[i], x[i], condition, self.rng([index])) for i, index in enumerate(indices)]
            )
            scores = self._means(moved, indices, condition.name).double().cpu()
            columns[condition.name] = scores
            worse = sign * scores > sign * worst
            far = self.spec.threat.distance(moved, x)
            worst, distance = torch.where(worse, scores, worst), torch.where(worse, far, distance)
        table = {name: values.tolist() for name, values in columns.items()}
        return [
            Row(
                record.id, record.label, float(clean[i]), float(worst[i]), float(distance[i]), float(worst[i]),
                {name: values[i] for name, values in table.items()},
            )
            for i, record in enumerate(records)
        ]  # fmt: skip

    def _means(self, images: Tensor, indices: Sequence[int], what: str) -> Tensor:
        """(B,): scores of images in the stead of these test images, under the noise of the run."""
        rng, device = self.rng(indices).for_evaluation(), self.prepared.device
        found = self.score.mean(images.to(device), rng, self.draws)
        return finite(found, self.spec.detector, [self.data.test.ids[i] for i in indices], what)

    def _each_of(self, indices: Sequence[int]) -> Tensor:
        """(draws, B): the scores of these test images as they are."""
        images = self.data.test.images(indices).to(self.prepared.device)
        return self.score.each(images, self.rng(indices).for_evaluation(), self.draws)


@functools.cache
def own_code() -> str:
    """Hash of the code that shifts images and makes rows of it."""
    content = b"".join(Path(module).read_bytes() for module in (__file__, str(shifts.__file__)))
    return hashlib.sha256(content).hexdigest()
