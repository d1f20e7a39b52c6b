"""Whether other attacks, and poorer ones, reach further: random noise, a single step, a black box, another detector.

What is far behind at a quarter of its price is not tried to the end: no luck would bring it to the front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ..core.attack import Attack
from ..plugins import registry
from .reattack import ERRORS, MARGIN, Ahead, Reattack

LUCKY_MARGIN = 0.25  # as MARGIN, for columns of a randomized detector, whose standard error is not stored
SHARE = 0.02  # of the images, and more than one: on how many another attack may be ahead
COMPARABLE = 0.5  # of the attack's gain: what random noise must stay below
NOISE_TRIES = 16
QUERIES = (100, 500)  # of the black box, at least and at most
QUARTER = 4
FAR = {"noise": COMPARABLE / 4, "square": 0.5}
"""Of the attack's gain: what a quarter of the tries must stay below, at every image, to be the last. The largest of 16
is seldom twice the largest of 4; `square` has most of what it gains from its first queries."""
BLIND = ("square", "transfer", "noise", "smaller")  # how parts without the detector's own gradient begin


class Tried(NamedTuple):
    """A rival at some images of the probe."""

    gained: Ahead
    """Against the clean images."""
    ahead: int
    """On how many images it is ahead of the cell's attack."""


def _tried(reattack: Reattack, rival: Attack, positions: Sequence[int]) -> Tried:
    scores = reattack.each(reattack.attacked_by(rival, positions), positions)
    gained = reattack.compared(scores, positions, reattack.clean)
    return Tried(gained, reattack.counts(reattack.compared(scores, positions)))


def _is_far(reattack: Reattack, tried: Tried, positions: Sequence[int], share: float) -> bool:
    """Whether it gains less than this share of what the attack gains, at each image that is not settled."""
    where = list(positions)
    below = tried.gained.mean + ERRORS * tried.gained.error < share * reattack.gained.mean[where]
    return tried.ahead == 0 and bool((below | reattack.settled[where]).all())


def noise_is_no_attack(reattack: Reattack) -> tuple[bool, str]:
    """The best of a few random perturbations of the same size gains much less."""
    where = reattack.whole
    if bool(reattack.settled.all()):
        return True, "every image of the probe has lost every pair: the attack needs to go no further"
    noise = registry.load("attacks", "noise").target
    for tries in (NOISE_TRIES // QUARTER, NOISE_TRIES):
        tried = _tried(reattack, noise(tries=tries), where)
        if _is_far(reattack, tried, where, FAR["noise"]):
            break
    open_ = ~reattack.settled
    mean, error = Ahead(tried.gained.mean[open_], tried.gained.error[open_]).overall
    gain = float(reattack.gained.mean[open_].mean())
    said = f"the best of {tries} random perturbations gains {mean:.3g}, the attack {gain:.3g}"
    near = mean - ERRORS * error > max(COMPARABLE * gain, reattack.floor)
    if reattack.at_threshold:
        return tried.ahead <= some(where), f"{said}; it is ahead at {tried.ahead} of {len(where)} images"
    return not near and tried.ahead <= some(where), said


def one_step_is_weaker(reattack: Reattack) -> tuple[bool, str]:
    """A single step must not reach further than many."""
    steps = reattack.attack.parameters_record.get("steps")
    single = reattack.altered(steps=1) if isinstance(steps, int) else None
    if single is None:
        return True, "not checked: the attack has no number of steps"
    if steps == 1:
        return True, "not checked: the attack takes one step"
    count = reattack.counts(reattack.ahead(reattack.attacked_by(single, reattack.whole)))
    return count <= some(reattack.whole), f"one step is ahead of {steps} at {count} of {len(reattack.probe)} images"


def black_box_is_weaker(reattack: Reattack) -> tuple[bool, str]:
    """What sees scores only must not outdo what follows the gradient: if it does, the gradient is masked."""
    if found := _columns(reattack, "square") or _surveyed(reattack):
        return found
    if not reattack.attack.needs_gradient:
        return True, "the attack is a black box itself"
    if "square" not in registry.names("attacks"):
        return True, "not checked: the attack `square` is not installed"
    square = registry.load("attacks", "square").target
    if reattack.threat.norm not in square.norms:
        return True, f"not checked: `square` has no norm {reattack.threat.norm}"
    queries, few = _queries(reattack), reattack.few
    fields = {f.name for f in dataclasses.fields(square)}
    for spent in (queries // QUARTER, queries) if "queries" in fields else (queries,):
        tried = _tried(reattack, square(queries=spent) if "queries" in fields else square(), few)
        if _is_far(reattack, tried, few, FAR["square"]):
            break
    return tried.ahead <= some(few), f"square with {spent} queries is ahead at {tried.ahead} of {len(few)} images"


def _queries(reattack: Reattack) -> int:
    """At the price of the cell's attack: a backward pass costs two forward ones."""
    draws = min(reattack.worker.draws, reattack.draws)
    cell = sum(len(h) for h in reattack.again.history) / len(reattack.probe) / draws
    low, high = QUERIES
    return int(min(max(3 * cell, low), high))


def transfer_is_weaker(reattack: Reattack) -> tuple[bool, str]:
    """Images made for another detector must not outdo those made for this one."""
    if found := _columns(reattack, "transfer") or _surveyed(reattack):
        return found
    return True, "not checked: the attack has no part that transfers"


def _surveyed(reattack: Reattack) -> tuple[bool, str] | None:
    """What the attack's own survey has found; None where it has tried nothing."""
    if (tried := reattack.worker.tried) is None:
        return None
    said = f"{', '.join(tried.parts)} are ahead of what follows the gradient at {tried.ahead} of {tried.images} images"
    return tried.ahead <= tried.allowed, f"tried before the first row, {said}"


def _columns(reattack: Reattack, blind: str) -> tuple[bool, str] | None:
    """Parts that see no gradient against those that do, over all rows; None where the rows do not hold both."""
    parts = reattack.attack.parts
    theirs = [part for part in parts if part.startswith(blind)]
    ours = [part for part in parts if not part.startswith(BLIND)]
    if not theirs or not ours:
        return None
    rows = [row for row, attacked in zip(reattack.rows, reattack.attacked_rows, strict=True) if attacked]
    margin = (LUCKY_MARGIN if reattack.worker.score.randomized else MARGIN) * reattack.unit
    ahead = [
        row.id
        for row in rows
        if max((1 - 2 * row.label) * row.more[p] for p in theirs)
        > max((1 - 2 * row.label) * row.more[p] for p in ours) + max(margin, reattack.floor)
    ]
    said = f"{', '.join(theirs)} is ahead of {', '.join(ours)} at {len(ahead)} of {len(rows)} images"
    passed = len(ahead) <= max(1, SHARE * len(rows))
    return passed, said if passed else f"{said} ({', '.join(ahead[:3])}{', ...' if len(ahead) > 3 else ''})"


def some(positions: Sequence[int]) -> int:
    """On how many of these images another attack may be ahead."""
    return max(1, int(SHARE * len(positions)))
