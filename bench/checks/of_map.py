"""Whether the numbers of attacked anomaly maps may be believed: the gradient that was followed, and other attacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core.attack import Attack
from ..core.check import Outcome
from ..core.data import Data
from ..core.rng import Rng, probe_lot
from ..core.score import Passes
from ..core.threat import TOLERANCE
from ..engine.localiser import Localiser, map_has_gradient, raw_map
from ..plugins.lookup import make_attack
from .of_detector import probe_of, run_check
from .of_gradient import GRADIENT_TOLERANCE, Slope, agrees, in_double_precision
from .probe import NOT_DIFFERENTIABLE

IMAGES = 4  # of each class, attacked again
TRIES = 16  # of random noise
AHEAD = 0.25  # share of these images at which noise may be further than the attack
ADDED = 0.05  # of the change that the attack made: what twice its steps may add, in the mean over images


class MapSlope(Slope):
    """A sum of the pixels of a map, each with a fixed random sign, so that no part of a gradient cancels another."""

    @property
    def what(self) -> str:
        return "the anomaly map"

    def scores(self, images: Tensor) -> Tensor:
        found = raw_map(self.detector, type(self.detector).__name__, images, Rng(0, self.ids)).flatten(1)
        signs = torch.randint(0, 2, found.shape[1:], generator=torch.Generator().manual_seed(2)) * 2 - 1
        return (found * signs.to(found)).mean(1)


@dataclass(frozen=True)
class Attacked:
    """A finished cell, and who made its rows."""

    spec: RunSpec
    data: Data
    worker: Localiser
    attack: Attack
    rows: Sequence[Row]

    @property
    def some(self) -> list[int]:
        """Images that the adversary controls, by lot."""
        may = self.spec.threat.controls(torch.tensor(self.data.test.labels)).tolist()
        found = []
        for label in (0, 1):
            own = [i for i, y in enumerate(self.data.test.labels) if y == label and may[i]]
            found += sorted(own, key=lambda i: probe_lot(self.spec.seed, self.data.test.ids[i]))[:IMAGES]
        return sorted(found)

    def again(self, attack: Attack) -> list[Row]:
        """The rows of `some` by another attack, on the same scale."""
        worker = Localiser(self.spec, self.data, self.worker.prepared, attack, scale=self.worker.scale, transfer=False)
        worker.score.passes = self.worker.score.passes
        return worker.batch(self.some)

    def gain(self, row: Row) -> float:
        """How far the row went the adversary's way."""
        return (1 - 2 * row.label) * (row.worst - row.clean)


def checks_of_maps(spec: RunSpec, data: Data, worker: Localiser, attack: Attack, rows: Sequence[Row]) -> Outcome:
    """Every check of a finished cell; one that raises has failed, and says where."""
    started, spent = time.monotonic(), worker.score.passes
    worker.score.passes = Passes()
    attacked = Attacked(spec, data, worker, attack, rows)
    checks = [run_check(name, check, attacked) for name, check in CHECKS.items()]
    passes, worker.score.passes = worker.score.passes, spent
    return Outcome(checks, round(time.monotonic() - started, 3), passes)


def gradient_of_the_map(attacked: Attacked) -> tuple[bool, str]:
    """Autograd against finite differences, of the maps: that of the score says nothing of them."""
    probe = probe_of(attacked.worker.prepared.detector, attacked.data)
    name = attacked.spec.detector
    if not map_has_gradient(probe.detector, name, probe.images, Rng(0, probe.ids)):
        return True, NOT_DIFFERENTIABLE
    slope, x, steps = in_double_precision(probe)
    precision = "double" if x.dtype == torch.float64 else "single"
    return agrees(MapSlope(slope.detector, slope.ids), x, steps, precision, GRADIENT_TOLERANCE[precision])


def budget_is_kept(attacked: Attacked) -> tuple[bool, str]:
    """Of all rows: no image further than eps, none whose map is better for the detector than before."""
    radius, far = attacked.spec.threat.radius, max(row.distance for row in attacked.rows)
    if far > radius + TOLERANCE:
        return False, f"a row is {far:.6g} away in {attacked.spec.norm}, the budget is {radius:.6g}"
    if back := [row.id for row in attacked.rows if attacked.gain(row) < 0]:
        return False, f"the map of {back[0]} is better for the detector after the attack than before"
    return True, f"{attacked.spec.norm} at most {far:.6g} of {radius:.6g}, no map is better than before"


def noise_reaches_less(attacked: Attacked) -> tuple[bool, str]:
    """Random noise of the same size is the control that every attack has to beat."""
    noise = make_attack("noise", {"tries": TRIES, "draws": 1})[2]
    found = attacked.again(noise)
    pairs = [(attacked.rows[i], row) for i, row in zip(attacked.some, found, strict=True)]
    ahead = sum(attacked.gain(other) > attacked.gain(own) for own, other in pairs)
    said = f"the best of {TRIES} random images of the ball reaches further at {ahead} of {len(found)} images"
    return ahead <= AHEAD * len(found), said


def more_steps_add_little(attacked: Attacked) -> tuple[bool, str]:
    """The same attack with twice the steps, where it has steps."""
    stronger = attacked.attack.stronger().get("steps") or _twice(attacked)
    if stronger is None:
        return True, "not checked: the attack has no steps"
    found = attacked.again(stronger)
    pairs = [(attacked.gain(attacked.rows[i]), attacked.gain(row)) for i, row in zip(attacked.some, found, strict=True)]
    shares = [max(more - gain, 0) / gain for gain, more in pairs if gain > 0]
    added = sum(shares) / len(shares) if shares else 0.0
    return added <= ADDED, f"twice the steps add {added:.1%} of the change, in the mean over {len(pairs)} images"


def _twice(attacked: Attacked) -> Attack | None:
    record = attacked.attack.parameters_record
    steps = record.get("steps")
    return type(attacked.attack)(**{**record, "steps": 2 * steps}) if isinstance(steps, int) else None


CHECKS: dict[str, Callable[[Attacked], tuple[bool, str]]] = {
    "map gradient": gradient_of_the_map,
    "map budget": budget_is_kept,
    "map noise": noise_reaches_less,
    "map steps": more_steps_add_little,
}
