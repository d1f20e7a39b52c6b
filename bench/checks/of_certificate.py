"""Whether a certificate may be believed: fresh noise, and an attack inside the ball, must not leave the bounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core.check import Outcome
from ..core.data import Data
from ..core.rng import Rng
from ..core.score import Passes, Score
from ..engine.bounder import Deterministic
from ..engine.certificates import Settings
from ..engine.certifier import Certifier, with_draws
from ..engine.worker import Prepared
from ..plugins.lookup import make_attack
from .of_bounds import checks_of_bounds, narrowest, rows_are_ordered
from .of_detector import run_check

IMAGES = 2  # of each class
DRAWS = 500  # at most, at each of them
SURE = 1e-6  # chance with which one of these checks fails for no reason, an image
STEPS = 10  # of the attack
ATTACKED_DRAWS = 5  # whose median it follows; what it reached is judged by as many as the other checks take
SEED = 7919  # added to the run's: noise that no bound rests on


@dataclass(frozen=True)
class Certified:
    """A finished cell, and some of its images for another look."""

    spec: RunSpec
    data: Data
    prepared: Prepared
    rows: Sequence[Row]
    certifier: Certifier
    """Draws fresh noise."""

    @cached_property
    def some(self) -> list[int]:
        return narrowest(self.rows, IMAGES)

    def known(self, scores: np.ndarray) -> tuple[float, float]:
        """Where the smoothed score of an image surely is, from fresh noisy scores of it."""
        return self.certifier.noise.bounds(scores, SURE, 0.0)

    def outside(self, index: int, scores: np.ndarray) -> str | None:
        """How these scores of a moved image contradict the row; None if they do not."""
        row, (low, high) = self.rows[index], self.known(scores)
        if row.label == 0 and low > row.worst:
            return f"{row.id} reaches {low:.4g} or more, its bound is {row.worst:.4g}"
        if row.label == 1 and high < row.worst:
            return f"{row.id} falls to {high:.4g} or less, its bound is {row.worst:.4g}"
        return None


def checks_of_certificate(
    spec: RunSpec, data: Data, prepared: Prepared, settings: Settings, rows: Sequence[Row], batch_size: int
) -> Outcome:
    """Every check of a finished certificate; one that raises has failed, and says where."""
    if isinstance(settings, Deterministic):
        return checks_of_bounds(spec, data, prepared, settings, rows)
    started = time.monotonic()
    fewer = replace(settings, samples=min(settings.samples, DRAWS))
    certifier = Certifier(spec.model_copy(update={"seed": spec.seed + SEED}), data, prepared, fewer, batch_size)
    certifier.score.passes = Passes()
    certifier.probe()
    certified = Certified(spec, data, prepared, rows, certifier)
    checks = [run_check(name, check, certified) for name, check in CHECKS.items()]
    return Outcome(checks, round(time.monotonic() - started, 3), certifier.score.passes)


def bounds_are_ordered(certified: Certified) -> tuple[bool, str]:
    """Every bound on its side of the smoothed score, and no certified AUROC above the clean one."""
    if certified.spec.goal == "threshold":
        return True, "not checked: with --goal threshold a row holds a verdict, not a bound"
    return rows_are_ordered(certified.rows)


def fresh_noise_agrees(certified: Certified) -> tuple[bool, str]:
    """Other draws of the same noise, at the same images."""
    for index in certified.some:
        scores = certified.certifier.draws(index)
        if (wrong := certified.outside(index, scores)) is not None:
            return False, f"without any attack, under fresh noise, {wrong}"
    return (
        True,
        f"{certified.certifier.settings.samples} fresh draws at {len(certified.some)} images do not contradict a bound",
    )


def attack_stays_inside(certified: Certified) -> tuple[bool, str]:
    """A gradient attack, or random directions where there is no gradient, at the certified radius."""
    spec, prepared = certified.spec, certified.prepared
    some = [i for i in certified.some if certified.certifier.radius_of(certified.rows[i].label) > 0]
    if not some:
        return True, "the adversary has no image here"
    name = "apgd" if prepared.differentiable else "noise"
    attack = make_attack(name, {"steps": STEPS, "draws": 1} if name == "apgd" else {"tries": STEPS, "draws": 1})[2]
    x = certified.data.test.images(some).to(prepared.device)
    labels = torch.tensor([certified.rows[i].label for i in some], device=x.device)
    sign = 1.0 - 2.0 * labels.to(x.dtype)
    score = Score(with_draws(prepared.detector, ATTACKED_DRAWS), spec.detector)
    score.passes = certified.certifier.score.passes
    rng = Rng.against_certificate(spec.seed, [certified.rows[i].id for i in some])
    moved = attack(score, x.clone(), sign, spec.threat, rng)
    assert isinstance(moved, Tensor)
    wrong = spec.threat.violation(moved, x)
    if wrong:
        return False, f"the attack left the ball: an image {wrong}"
    furthest = -math.inf
    for i, index in enumerate(some):
        scores = certified.certifier.scores_of(moved[i : i + 1], certified.rows[index].id)
        if (outside := certified.outside(index, scores)) is not None:
            return False, f"the certificate is broken: {name} at l2 {spec.threat.radius:g}: {outside}"
        row = certified.rows[index]
        if math.isfinite(row.worst) and row.worst != row.clean:
            way = (certified.certifier.noise.center(scores) - row.clean) / (row.worst - row.clean)
            furthest = max(furthest, way)
    gone = f", {furthest:.0%} of the way to it at most" if math.isfinite(furthest) else ""
    return True, f"{name} at l2 {spec.threat.radius:g} stays inside the bound of {len(some)} images{gone}"


CHECKS: dict[str, Callable[[Certified], tuple[bool, str]]] = {
    "bounds": bounds_are_ordered,
    "fresh noise": fresh_noise_agrees,
    "inside the ball": attack_stays_inside,
}
