"""Whether a robust number may be believed: after the last row, a few of its images are attacked again, and harder.

A cell's rows say what an attack reached, not what it missed. Each check is a function of a `Trial` and returns a
sentence and whether it passed, as in `bench.checks`. None of them changes a row, and what they cost is counted apart.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import registry
from .checks import STANDARD_ERRORS, Check, run_check, stopped, tie_sentence
from .data import Data
from .metrics import points
from .run import Attack, Kept, Ready, Row, RunSpec
from .score import Passes
from .threat import TOLERANCE, ThreatModel
from .trial import ERRORS, MARGIN, POINT, SAME, Ahead, Trial

LUCKY_MARGIN = 0.25  # the same for columns of a randomized detector, whose standard error is not stored
SHARE = 0.02  # of the images, and more than one: on how many another attack may be ahead
EXTRA = 0.25  # of the gain: what more of the same attack may add
LAST = 0.1  # of an attack's passes: the stretch in which it should have arrived
ARRIVED = 0.05  # of the gain: what that stretch may add
COMPARABLE = 0.5  # of the attack's gain: what random noise must stay below
NOISE_TRIES = 16
UNMOVED = 0.05  # share of images
BROKEN = 0.05  # AUROC on the probe that a ball without bounds should reach
WIDER = (8, 32)  # times eps, before the whole pixel range
AGAIN = 0.1  # of the gain, in the mean: two runs of one attack, whose last digits depend on the batch
QUERIES = (100, 500)  # of the black box, at least and at most
BLIND = ("square", "transfer", "noise", "smaller")  # how parts without the detector's own gradient begin


class Outcome(NamedTuple):
    """The checks of a cell, and what they cost beside it."""

    checks: list[Check]
    seconds: float
    passes: Passes


def checks_of_cell(
    spec: RunSpec, data: Data, ready: Ready, attack: Attack, rows: Sequence[Row], kept: Kept | None = None
) -> Outcome:
    """Every check of a finished cell; one that raises has failed, and says where."""
    started = time.monotonic()
    try:
        trial = Trial(spec, data, ready, attack, rows, kept or Kept())
    except Exception as error:  # of a plug-in's `prepare`, say
        return Outcome([stopped(name, error) for name in CHECKS], 0.0, Passes())
    checks = [run_check(name, check, trial) for name, check in CHECKS.items()]
    return Outcome(checks, round(time.monotonic() - started, 3), trial.passes)


def budget_is_kept(trial: Trial) -> tuple[bool, str]:
    """Distances of all rows, and of the probe's images, measured again in double precision."""
    radius, norm = trial.threat.radius, trial.threat.norm
    far = max(row.distance for row in trial.rows)
    again = trial.threat.distance(trial.again.images, trial.x)
    wrong = trial.threat.violation(trial.again.images, trial.x)
    if wrong or far > radius + TOLERANCE:
        return False, f"an image {wrong}" if wrong else f"a row is {far:.6g} away in {norm}, the budget is {radius:.6g}"
    noted = torch.tensor([row.distance for row in trial.again.rows], dtype=torch.float64)
    off = float((noted - again.cpu()).abs().max())
    if off > TOLERANCE:
        return False, f"a distance was noted {off:.1e} away from what it is"
    rounded = trial.threat.distance((trial.again.images * 255).round() / 255, trial.x)
    outside = int((rounded > radius + TOLERANCE).sum())
    return True, (
        f"{norm} at most {far:.6g} of {radius:.6g}; rounded to 8 bits at most {float(rounded.max()):.6g} "
        f"({outside} of {len(rounded)} images outside)"
    )


def rounding_adds_nothing(trial: Trial) -> tuple[bool, str]:
    """Rounding is no attack: it may undo one, not outdo it."""
    rounded = np.array([row.rounded for row in trial.rows])
    robust, after = (points(scores, trial.labels == 1)["auroc"] for scores in (trial.worst_rows, rounded))
    return after >= robust - trial.interval, f"AUROC {robust:.3f}, and {after:.3f} after rounding to 8 bits"


def images_are_moved(trial: Trial) -> tuple[bool, str]:
    """An attack that finds nothing better than the clean image has not worked there."""
    rows = [row for row, attacked in zip(trial.rows, trial.attacked_rows, strict=True) if attacked]
    if trial.at_threshold:  # what is wrong already needs no attack
        rows = [row for row in rows if trial.standing(row.clean, row.label)]
    if not rows:
        return True, "every image was on the wrong side before the attack"
    still = sum(row.distance == 0 for row in rows)
    rim = sum(row.distance >= 0.99 * trial.threat.radius for row in rows)
    said = f"{still} of {len(rows)} images were left as they are; {rim} use the whole budget"
    return still <= max(1, UNMOVED * len(rows)) or trial.robust.value <= POINT, said


def scores_are_not_tied(trial: Trial) -> tuple[bool, str]:
    """Over all rows, before and after the attack; images that were not moved keep one score in both."""
    worst: tuple[bool, str] = (True, "")
    for scores in (trial.worst_rows, trial.clean_rows):
        equal = sum(n for n in Counter(scores.tolist()).values() if n > 1)
        found = tie_sentence(equal, int(np.isin(scores, (0.0, 1.0)).sum()), len(scores))
        worst = found if worst[0] else worst
    return worst


def clean_is_the_plain_score(trial: Trial) -> tuple[bool, str]:
    """The clean column against `detector.score`, called directly."""
    detector = trial.ready.detector
    noted = torch.tensor([trial.rows[i].clean for i in trial.probe], dtype=torch.float64).to(trial.x.device)
    with torch.no_grad():
        plain = torch.stack([detector.score(trial.x) for _ in range(trial.draws)]).double()
    trial.passes.forwards += plain.numel()
    off = (plain.mean(0) - noted).abs()
    if detector.randomized:
        error = (plain.var(0) * (1 / len(plain) + 1 / trial.worker.draws)).sqrt().clamp_min(SAME * trial.spread)
        errors = float((off / error).max())
        return errors <= STANDARD_ERRORS, (
            f"clean scores and detector.score differ by {errors:.1f} standard errors at most, on {len(off)} images"
        )
    return float(off.max()) <= SAME * trial.spread, (
        f"clean scores and detector.score differ by {float(off.max()):.1e} at most, on {len(off)} images"
    )


def rescored_is_the_same(trial: Trial) -> tuple[bool, str]:
    """The attacked images have the score that was noted; those that a sweep keeps on the disk as well."""
    order = trial.whole[::-1]
    images, noted = trial.again.images.clone(), [row.worst for row in trial.again.rows]
    stored, on_disk = 0, Kept(smaller_folder=trial.kept.folder)
    for i, name in enumerate(trial.ids):
        image = on_disk.smaller([name], trial.x[i : i + 1])
        if image is not None:
            images[i], noted[i], stored = image[0], trial.rows[trial.probe[i]].worst, stored + 1
    source = trial.rng(order).child("evaluate")
    scores = trial.worker.score.mean(images[order], source, trial.worker.draws).flip(0)
    off = float((scores.double().cpu() - torch.tensor(noted, dtype=torch.float64)).abs().max())
    return off <= SAME * trial.spread, (
        f"{len(order)} attacked images ({stored} from the disk) scored again differ by {off:.1e} at most"
    )


def attack_repeats(trial: Trial) -> tuple[bool, str]:
    """The cell's attack, run again on the same images, ends where the rows say."""
    noted = np.array([trial.rows[i].worst for i in trial.probe])
    again = np.array([row.worst for row in trial.again.rows])
    off = float(np.abs(again - noted).mean())
    allowed = max(AGAIN * trial.unit, SAME * trial.spread)
    if trial.worker.score.randomized:
        allowed += ERRORS * float(trial.gained.error.mean())
    said = f"run again on {len(noted)} images, the attack ends {off:.1e} from the stored scores"
    return off <= allowed, f"{said} (it gains {trial.unit:.1e} in the median)"


def best_is_returned(trial: Trial) -> tuple[bool, str]:
    """No point that the attack scored on its way, and that was allowed, is better than what it returned."""
    if trial.at_threshold:
        return True, "not checked: the attack aims at the threshold"
    if not any(trial.again.history):
        return True, "not checked: the attack scores images without their sources"
    ahead = trial.ahead(trial.again.seen)
    count = trial.counts(ahead)
    allowed = _some(trial.whole) if trial.worker.score.randomized else 0  # noisy values hide which is the best
    return count <= allowed, f"at {count} of {len(trial.probe)} images the attack met a better point than it returned"


def signs_are_right(trial: Trial) -> tuple[bool, str]:
    """What the attack returned, before the harness took the clean image where that is worse."""
    parts = [trial.ahead(images, of=trial.clean) for images in trial.again.raw]
    best = int(torch.stack([part.mean for part in parts]).mean(1).argmax())
    said = []
    for sign, word, verb in ((1, "normal", "raises"), (-1, "anomalous", "lowers")):
        of_class = trial.sign == sign
        if not of_class.any():
            continue
        mean, error = Ahead(parts[best].mean[of_class], parts[best].error[of_class]).overall
        if mean < -max(ERRORS * error, trial.floor):
            wrong = "lowers" if sign == 1 else "raises"
            return False, f"the attack {wrong} the scores of {word} images, by {-mean:.3g} in the mean"
        said.append(f"{verb} {word} scores by {mean:.3g}")
    return True, f"the attack {' and '.join(said)} in the mean"


def attack_has_arrived(trial: Trial) -> tuple[bool, str]:
    """The last tenth of the passes adds next to nothing."""
    if trial.worker.score.randomized:
        return True, "not judged by single draws: see `steps`"
    if trial.at_threshold:
        return True, "not checked: the attack stops at the threshold"
    shares = []
    for history, clean in zip(trial.again.history, trial.sign * trial.clean[0], strict=True):
        last = max(round(LAST * len(history)), 1)
        if len(history) >= 1 / LAST and (gain := history[-1] - float(clean)) > trial.floor:
            shares.append((history[-1] - max(history[-1 - last], float(clean))) / gain)
    if not shares:
        return True, f"not checked: fewer than {1 / LAST:.0f} passes, or no gain"
    late = float(np.median(shares))
    said = f"the last {LAST:.0%} of the passes add {late:.1%} of the gain"
    return late <= ARRIVED or trial.robust.value <= POINT, said


def more_steps(trial: Trial) -> tuple[bool, str]:
    """Twice the steps, or what the attack offers as `steps` in `stronger()`."""
    stronger = trial.more("steps")
    if stronger is None:
        return True, "not checked: the attack has no number of steps or queries"
    return _adds_little(trial, trial.attacked_by(stronger, trial.few), "twice the steps")


def more_restarts(trial: Trial) -> tuple[bool, str]:
    """As many restarts again, from other random starts; of both, the better."""
    other = trial.attacked_by(trial.attack, trial.few, run="another attack")
    if torch.equal(other, trial.again.images[trial.few]):
        return True, "another run ends at the same images: nothing in it is random"
    return _adds_little(trial, other, "twice the restarts", best_of_both=True)


def more_draws(trial: Trial) -> tuple[bool, str]:
    """Of a randomized detector: twice the draws at every step."""
    if not trial.worker.score.randomized:
        return True, "one draw is all there is: the detector is not randomized"
    stronger = trial.more("draws")
    if stronger is None:
        return True, "not checked: the attack has no number of draws"
    return _adds_little(trial, trial.attacked_by(stronger, trial.few), "twice the draws")


def _adds_little(trial: Trial, images: Tensor, what: str, best_of_both: bool = False) -> tuple[bool, str]:
    """More of the same neither lowers the metric by more than the interval nor adds much to the gain."""
    ahead = trial.ahead(images, trial.few)
    fall = trial.fall(trial.few, ahead.sure)
    mean, error = ahead.overall
    if best_of_both:
        mean = float(ahead.sure.mean())
    gain = float(trial.gained.mean[trial.few].mean())
    share = mean / gain if gain > trial.floor else (math.inf if mean > trial.floor else 0.0)
    said = (
        f"{what} lower the {trial.metric} by {max(fall, 0):.3f} (the interval allows {trial.interval:.3f}) and add "
        f"{max(share, 0):.0%} to the gain, on {len(trial.few)} images"
    )
    much = share > EXTRA and mean > ERRORS * error + trial.floor and not trial.at_threshold
    return fall <= trial.interval and not (much and trial.robust.value > POINT), said


def noise_is_no_attack(trial: Trial) -> tuple[bool, str]:
    """The best of a few random perturbations of the same size gains much less."""
    positions = trial.whole
    images = trial.attacked_by(registry.load("attacks", "noise").target(tries=NOISE_TRIES), positions)
    mean, error = trial.ahead(images, of=trial.clean).overall
    gain = trial.gained.overall[0]
    ahead = trial.counts(trial.ahead(images))
    said = f"the best of {NOISE_TRIES} random perturbations gains {mean:.3g}, the attack {gain:.3g}"
    near = mean - ERRORS * error > max(COMPARABLE * gain, trial.floor)
    if trial.at_threshold:
        return ahead <= _some(trial.whole), f"{said}; it is ahead at {ahead} of {len(trial.probe)} images"
    return not near and ahead <= _some(trial.whole), said


def one_step_is_weaker(trial: Trial) -> tuple[bool, str]:
    """A single step must not reach further than many."""
    steps = getattr(trial.attack, "steps", None)
    single = trial.altered(steps=1) if isinstance(steps, int) else None
    if single is None:
        return True, "not checked: the attack has no number of steps"
    if steps == 1:
        return True, "not checked: the attack takes one step"
    count = trial.counts(trial.ahead(trial.attacked_by(single, trial.whole)))
    return count <= _some(trial.whole), f"one step is ahead of {steps} at {count} of {len(trial.probe)} images"


def black_box_is_weaker(trial: Trial) -> tuple[bool, str]:
    """What sees scores only must not outdo what follows the gradient: if it does, the gradient is masked."""
    if found := _columns(trial, "square"):
        return found
    if not getattr(trial.attack, "needs_gradient", True):
        return True, "the attack is a black box itself"
    if "square" not in registry.names("attacks"):
        return True, "not checked: the attack `square` is not installed"
    square = registry.load("attacks", "square").target
    if trial.threat.norm not in square.norms:
        return True, f"not checked: `square` has no norm {trial.threat.norm}"
    cell = sum(len(h) for h in trial.again.history) / len(trial.probe) / trial.worker.draws
    low, high = QUERIES
    queries = int(min(max(3 * cell, low), high))  # a backward pass costs two forward ones
    named = {"queries": queries} if "queries" in {f.name for f in dataclasses.fields(square)} else {}
    few = trial.few
    count = trial.counts(trial.ahead(trial.attacked_by(square(**named), few), few))
    return count <= _some(few), f"square with {queries} queries is ahead at {count} of {len(few)} images"


def transfer_is_weaker(trial: Trial) -> tuple[bool, str]:
    """Images made for another detector must not outdo those made for this one."""
    return _columns(trial, "transfer") or (True, "not checked: the attack has no part that transfers")


def _columns(trial: Trial, blind: str) -> tuple[bool, str] | None:
    """Parts that see no gradient against those that do, over all rows; None where the rows do not hold both."""
    parts: tuple[str, ...] = getattr(trial.attack, "parts", ())
    theirs = [part for part in parts if part.startswith(blind)]
    ours = [part for part in parts if not part.startswith(BLIND)]
    if not theirs or not ours:
        return None
    rows = [row for row, attacked in zip(trial.rows, trial.attacked_rows, strict=True) if attacked]
    margin = (LUCKY_MARGIN if trial.worker.score.randomized else MARGIN) * trial.unit
    ahead = [
        row.id
        for row in rows
        if max((1 - 2 * row.label) * row.more[p] for p in theirs)
        > max((1 - 2 * row.label) * row.more[p] for p in ours) + max(margin, trial.floor)
    ]
    said = f"{', '.join(theirs)} is ahead of {', '.join(ours)} at {len(ahead)} of {len(rows)} images"
    passed = len(ahead) <= max(1, SHARE * len(rows))
    return passed, said if passed else f"{said} ({', '.join(ahead[:3])}{', ...' if len(ahead) > 3 else ''})"


def _some(positions: Sequence[int]) -> int:
    """On how many of these images another attack may be ahead."""
    return max(1, int(SHARE * len(positions)))


def wide_ball_breaks_it(trial: Trial) -> tuple[bool, str]:
    """In a ball without bounds every image can become any other, so the order of the probe can be turned round."""
    threat, x = trial.threat, trial.x
    whole = 1.0 if threat.norm == "linf" else float(x[0].numel()) ** 0.5
    radii = sorted({min(k * threat.radius, whole) for k in WIDER} | {whole})
    few = trial.few
    label = [trial.rows[trial.probe[p]].label for p in few]
    scores: list[float] = []
    best = (trial.sign * trial.base.mean(0))[few]
    reached = 1.0
    for radius in radii:
        ball = ThreatModel(threat.norm, Fraction(radius), threat.attacks)
        images = trial.attacked_by(trial.in_ball(ball), few, ball)
        best = torch.maximum(best, trial.sign[few] * trial.each(images, few).mean(0))
        scores = (trial.sign[few] * best).tolist()
        reached = _left(trial, scores, label)
        if reached <= BROKEN:
            return True, f"at {threat.norm} {radius:.3g} the {trial.metric} on {len(few)} images is {reached:.2f}"
    spans = ", ".join(
        f"{word} {min(s):.3g} to {max(s):.3g}"
        for y, word in ((0, "normal"), (1, "anomalous"))
        if (s := [v for v, of in zip(scores, label, strict=True) if of == y])
    )
    return False, (
        f"even at {threat.norm} {whole:.3g}, the whole pixel range, the {trial.metric} on {len(few)} images is "
        f"{reached:.2f} ({spans}): the score is bounded where the attack looks, or the attack is blind"
    )


def _left(trial: Trial, scores: Sequence[float], labels: Sequence[int]) -> float:
    """The metric on these images; against the untouched class where the adversary controls one only."""
    if trial.at_threshold or len(set(labels)) == 1:
        return float(np.mean([trial.standing(s, y) for s, y in zip(scores, labels, strict=True)]))
    return points(np.array(scores), np.array(labels) == 1)["auroc"]


def generators_did_not_move(trial: Trial) -> tuple[bool, str]:
    """An attack draws from its `Rng` alone: a seed that it sets would freeze the detector's noise."""
    moved = trial.again.moved_generators
    if moved:
        return False, f"the attack, or the detector under it, moves {moved[0]}: something is seeded, or not repeatable"
    return True, "no global random generator moved during the attack"


CHECKS: dict[str, Callable[[Trial], tuple[bool, str]]] = {
    "budget": budget_is_kept,
    "rounding": rounding_adds_nothing,
    "moved": images_are_moved,
    "ties": scores_are_not_tied,
    "clean": clean_is_the_plain_score,
    "rescored": rescored_is_the_same,
    "repeat": attack_repeats,
    "generators": generators_did_not_move,
    "best iterate": best_is_returned,
    "signs": signs_are_right,
    "convergence": attack_has_arrived,
    "steps": more_steps,
    "restarts": more_restarts,
    "draws": more_draws,
    "one step": one_step_is_weaker,
    "noise": noise_is_no_attack,
    "black box": black_box_is_weaker,
    "transfer": transfer_is_weaker,
    "unbounded": wide_ball_breaks_it,
}
