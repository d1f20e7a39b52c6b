"""Rows of a deterministic certificate: bounds of the score that the detector itself proves, without sampling."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core.attack import Method
from ..core.bounds import sides
from ..core.data import Data
from ..core.manners import left_as_it_was
from ..core.rng import Rng
from ..core.score import Passes, Score, where_it_failed
from ..core.threat import ThreatModel
from ..errors import UserError
from .worker import PROBE_IMAGES, Prepared, finite, refuse_constant

FURTHEST = 0.125  # of the range of a pixel: no certified radius is looked for beyond a change of all pixels by as much


@dataclass(frozen=True)
class Deterministic(Method):
    """How closely certified radii are found.

    halvings: of the range of radii, which ends where all pixels have changed by an eighth of their range.
    """

    norms = ("linf", "l2", "l1")

    halvings: int = 11

    def __post_init__(self) -> None:
        if self.halvings < 1:
            raise UserError(f"halvings must be at least 1, got {self.halvings}")


class Bounder:
    """Asks a detector for the bounds of images, and makes rows of them."""

    def __init__(self, spec: RunSpec, data: Data, prepared: Prepared, settings: Deterministic):
        self.spec, self.data, self.prepared, self.settings = spec, data, prepared, settings
        self.threshold = prepared.threshold.value if prepared.threshold.held_out else math.nan
        self.score = Score(prepared.detector, spec.detector)
        self.beforehand = Passes()
        self._radii = {} if prepared.clean is None else prepared.clean

    def probe(self) -> None:
        """A score that is not finite, or the same for every image, is refused before the work; so are such bounds."""
        some = self.data.test.of_each_class(PROBE_IMAGES)
        x = self.images(some)
        refuse_constant(self.spec.detector, self.clean(x, some).tolist(), f"{len(some)} different images")
        self.bounds(x, self.spec.threat, some)

    def images(self, indices: Sequence[int]) -> Tensor:
        return self.data.test.images(indices).to(self.prepared.device)

    def clean(self, x: Tensor, indices: Sequence[int]) -> Tensor:
        """(B,): the scores."""
        ids = [self.data.test.ids[i] for i in indices]
        with torch.no_grad():
            found = self.score(x, Rng.of_run(self.spec.seed, ids))
        return finite(found, self.spec.detector, ids, "clean").double()

    def bounds(self, x: Tensor, threat: ThreatModel, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(low, high) of these images, each (B,) in double precision. Raises UserError for what cannot be bounds."""
        name = self.spec.detector
        try:
            with left_as_it_was(f"detector {name}", "bounds"), torch.no_grad():
                found = self.prepared.detector.bounds(x.clone(), threat)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise UserError(f"detector {name} failed in bounds: {where_it_failed(error)}") from error
        self.score.passes.forwards += len(x)
        both = sides(found, x)
        if both is None:
            raise UserError(f"detector {name}: bounds must be two tensors of the shape ({len(x)},), low and high")
        low, high = both
        for i, lower, upper in zip(indices, low.tolist(), high.tolist(), strict=True):
            if not (math.isfinite(lower) and math.isfinite(upper) and lower <= upper):
                raise UserError(
                    f"detector {name} bounds the score of {self.data.test.ids[i]} at {threat} by {lower:g} and "
                    f"{upper:g}: expected finite numbers, the lower one first"
                )
        return low, high

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """The rows of these images."""
        x, records = self.images(indices), [self.data.test.records[i] for i in indices]
        labels = torch.tensor([record.label for record in records])
        clean = self.clean(x, indices)
        low, high = self.bounds(x, self.spec.threat, indices)
        for record, lower, score, upper in zip(records, low.tolist(), clean.tolist(), high.tolist(), strict=True):
            if not lower <= score <= upper:
                raise UserError(
                    f"detector {self.spec.detector} gives {record.id} the score {score:.9g}, outside its own bounds "
                    f"{lower:.9g} and {upper:.9g}: they must hold for the score as it is computed"
                )
        may = self.spec.threat.controls(labels).to(x.device)
        worst = torch.where(labels.to(x.device) == 1, low, high).where(may, clean)
        columns = {
            "low": low.where(may, clean), "high": high.where(may, clean), "low_0": clean, "high_0": clean,
            "certified_radius": self._certified(x, labels, indices),
        }  # fmt: skip
        lists = {name: values.tolist() for name, values in columns.items()}
        return [
            Row(r.id, r.label, clean[i].item(), worst[i].item(), self.spec.threat.radius * bool(may[i]), math.nan,
                {name: values[i] for name, values in lists.items()})
            for i, r in enumerate(records)
        ]  # fmt: skip

    def _certified(self, x: Tensor, labels: Tensor, indices: Sequence[int]) -> Tensor:
        """(B,): how far each image may be moved until its decision could be wrong; the same at every radius asked."""
        if math.isnan(self.threshold):
            return torch.full((len(x),), math.nan, dtype=torch.float64)
        known = (self.data.test.fingerprint, self.spec.norm, self.threshold, self.settings)
        missing = [i for i, index in enumerate(indices) if ("radius", index, known) not in self._radii]
        largest = FURTHEST * self.spec.threat.geometry.longest(x.shape[1:])
        for i, radius in self._halved(x, labels, indices, missing, 0.0, largest, self.settings.halvings):
            self._radii["radius", indices[i], known] = torch.tensor(radius, dtype=torch.float64)
        # the row rests on all halvings, also where another cell of the detector has made them
        self.score.passes.forwards += (len(indices) - len(missing)) * self.settings.halvings
        return torch.stack([self._radii["radius", index, known] for index in indices])

    def _halved(
        self, x: Tensor, labels: Tensor, indices: Sequence[int], some: list[int], low: float, high: float, left: int
    ) -> list[tuple[int, float]]:
        """Of these images: where between both radii the decision stands no longer, from below."""
        if not some or not left:
            return [(i, low) for i in some]
        middle = (low + high) / 2
        threat = ThreatModel(self.spec.norm, f"{middle:.12f}")
        lower, upper = self.bounds(x[some], threat, [indices[i] for i in some])
        anomalous = labels[some].to(lower.device) == 1
        stands = torch.where(anomalous, lower > self.threshold, upper <= self.threshold).tolist()
        further, nearer = ([i for i, s in zip(some, stands, strict=True) if s is yes] for yes in (True, False))
        return [
            *self._halved(x, labels, indices, further, middle, high, left - 1),
            *self._halved(x, labels, indices, nearer, low, middle, left - 1),
        ]


@functools.cache
def own_code() -> str:
    """Hash of the code that makes rows of bounds."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
