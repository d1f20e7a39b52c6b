"""Whether a robust number may be believed: after the last row, a few of its images are attacked again, and harder.

A cell's rows say what an attack reached, not what it missed. Each check is a function of a `Reattack` and returns a
sentence and whether it passed, as in `of_detector`. None of them changes a row, and what they cost is counted apart.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core.attack import Attack
from ..core.check import Outcome
from ..core.data import Data
from ..core.plain_score import plain_score
from ..core.score import Passes
from ..core.threat import TOLERANCE, ThreatModel
from ..engine.warm_starts import WarmStarts
from ..engine.witness import Witness
from ..engine.worker import SAME, Prepared
from ..stats.metrics import points
from .of_calls import attack_was_told_the_truth
from .of_detector import STANDARD_ERRORS, at_least_usual, run_check, stopped, tie_sentence
from .of_memory import a_fresh_twin_agrees
from .of_rivals import black_box_is_weaker, noise_is_no_attack, one_step_is_weaker, some, transfer_is_weaker
from .of_steps import long_steps_reach_no_further
from .reattack import ERRORS, POINT, Ahead, Reattack

EXTRA = 0.25  # of the gain: what more of the same attack may add
LAST = 0.1  # of an attack's passes: the stretch in which it should have arrived
ARRIVED = 0.05  # of the gain: what that stretch may add
UNMOVED = 0.05  # share of images
BROKEN = 0.05  # AUROC on the probe that an adversary without bounds should reach
WIDER = (8, 32)  # times eps, before the whole pixel range
SHORT = 0.25  # of the attack's steps, in a first round through these balls
AGAIN = 0.1  # of the gain, in the mean: two runs of one attack, whose last digits depend on the batch


def checks_of_cell(
    spec: RunSpec,
    data: Data,
    prepared: Prepared,
    attack: Attack,
    rows: Sequence[Row],
    warm_starts: WarmStarts | None = None,
    witness: Witness | None = None,
) -> Outcome:
    """Every check of a finished cell; one that raises has failed, and says where. witness: of the run that made it."""
    started = time.monotonic()
    try:
        reattack = Reattack(spec, data, prepared, attack, rows, warm_starts or WarmStarts(), witness)
    except Exception as error:  # of a plug-in's `prepare`, say
        return Outcome([stopped(name, error) for name in CHECKS], 0.0, Passes())
    checks = [run_check(name, check, reattack) for name, check in CHECKS.items()]
    return Outcome(checks, round(time.monotonic() - started, 3), reattack.passes)


def eps_is_kept(reattack: Reattack) -> tuple[bool, str]:
    """Distances of all rows, and of the probe's images, measured again in double precision."""
    radius, norm = reattack.threat.radius, reattack.threat.norm
    far = max(row.distance for row in reattack.rows)
    again = reattack.threat.distance(reattack.again.images, reattack.x)
    wrong = reattack.threat.violation(reattack.again.images, reattack.x)
    if wrong or far > radius + TOLERANCE:
        return False, f"an image {wrong}" if wrong else f"a row is {far:.6g} away in {norm}, the budget is {radius:.6g}"
    noted = torch.tensor([row.distance for row in reattack.again.rows], dtype=torch.float64)
    off = float((noted - again.cpu()).abs().max())
    if off > TOLERANCE:
        return False, f"a distance was noted {off:.1e} away from what it is"
    rounded = reattack.threat.distance((reattack.again.images * 255).round() / 255, reattack.x)
    outside = int((rounded > radius + TOLERANCE).sum())
    return True, (
        f"{norm} at most {far:.6g} of {radius:.6g}; rounded to 8 bits at most {float(rounded.max()):.6g} "
        f"({outside} of {len(rounded)} images outside)"
    )


def rounding_adds_nothing(reattack: Reattack) -> tuple[bool, str]:
    """Rounding is no attack: it may undo one, not outdo it."""
    rounded = np.array([row.rounded for row in reattack.rows])
    one_class = len(set(reattack.labels.tolist())) == 1
    robust, after = (reattack.measured(scores, one_class).value for scores in (reattack.worst_rows, rounded))
    what = "accuracy" if one_class else "AUROC"
    return after >= robust - reattack.interval, f"{what} {robust:.3f}, and {after:.3f} after rounding to 8 bits"


def images_are_moved(reattack: Reattack) -> tuple[bool, str]:
    """An attack that finds nothing better than the clean image has not worked there."""
    rows = [row for row, attacked in zip(reattack.rows, reattack.attacked_rows, strict=True) if attacked]
    if reattack.at_threshold:  # what is wrong already needs no attack
        rows = [row for row in rows if reattack.standing(row.clean, row.label)]
    if not rows:
        return True, "every image was on the wrong side before the attack"
    still = sum(row.distance == 0 for row in rows)
    rim = sum(row.distance >= 0.99 * reattack.threat.radius for row in rows)
    said = f"{still} of {len(rows)} images were left as they are; {rim} use the whole budget"
    return still <= max(1, UNMOVED * len(rows)) or reattack.robust.value <= POINT, said


def scores_are_not_tied(reattack: Reattack) -> tuple[bool, str]:
    """Over all rows, before and after the attack; images that were not moved keep one score in both."""
    worst: tuple[bool, str] = (True, "")
    for scores in (reattack.worst_rows, reattack.clean_rows):
        equal = sum(n for n in Counter(scores.tolist()).values() if n > 1)
        found = tie_sentence(equal, int(np.isin(scores, (0.0, 1.0)).sum()), len(scores))
        worst = found if worst[0] else worst
    return worst


def clean_is_the_plain_score(reattack: Reattack) -> tuple[bool, str]:
    """The clean column against `detector.score`, called directly."""
    detector = reattack.prepared.detector
    noted = torch.tensor([reattack.rows[i].clean for i in reattack.probe], dtype=torch.float64).to(reattack.x.device)
    with torch.no_grad():
        plain = torch.stack([plain_score(detector.score(reattack.x)) for _ in range(reattack.draws)]).double()
    reattack.passes.forwards += plain.numel()
    off = (plain.mean(0) - noted).abs()
    if detector.randomized:
        error = (
            (at_least_usual(plain.var(0)) * (1 / len(plain) + 1 / reattack.worker.draws))
            .sqrt()
            .clamp_min(SAME * reattack.spread)
        )
        errors = float((off / error).max())
        return errors <= STANDARD_ERRORS, (
            f"clean scores and detector.score differ by {errors:.1f} standard errors at most, on {len(off)} images"
        )
    return float(off.max()) <= SAME * reattack.spread, (
        f"clean scores and detector.score differ by {float(off.max()):.1e} at most, on {len(off)} images"
    )


def rescored_is_the_same(reattack: Reattack) -> tuple[bool, str]:
    """The attacked images have the score that was noted; those that a sweep keeps on the disk as well."""
    order = reattack.whole[::-1]
    images, noted = reattack.again.images.clone(), [row.worst for row in reattack.again.rows]
    stored, on_disk = 0, WarmStarts(smaller_folder=reattack.warm_starts.folder)
    for i, name in enumerate(reattack.ids):
        image = on_disk.smaller([name], reattack.x[i : i + 1])
        if image is not None:
            images[i], noted[i], stored = image[0], reattack.rows[reattack.probe[i]].worst, stored + 1
    source = reattack.rng(order).for_evaluation()
    scores = reattack.worker.score.mean(images[order], source, reattack.worker.draws).flip(0)
    off = float((scores.double().cpu() - torch.tensor(noted, dtype=torch.float64)).abs().max())
    return off <= SAME * reattack.spread, (
        f"{len(order)} attacked images ({stored} from the disk) scored again differ by {off:.1e} at most"
    )


def attack_repeats(reattack: Reattack) -> tuple[bool, str]:
    """The cell's attack, run again on the same images, ends where the rows say."""
    noted = np.array([reattack.rows[i].worst for i in reattack.probe])
    again = np.array([row.worst for row in reattack.again.rows])
    off = float(np.abs(again - noted).mean())
    allowed = max(AGAIN * reattack.unit, SAME * reattack.spread)
    if reattack.worker.score.randomized:
        allowed += ERRORS * float(reattack.gained.error.mean())
    said = f"run again on {len(noted)} images, the attack ends {off:.1e} from the stored scores"
    return off <= allowed, f"{said} (it gains {reattack.unit:.1e} in the median)"


def best_is_returned(reattack: Reattack) -> tuple[bool, str]:
    """No point that the attack scored on its way, and that was allowed, is better than what it returned."""
    if reattack.at_threshold:
        return True, "not checked: the attack aims at the threshold"
    if not any(reattack.again.history):
        return True, "not checked: the attack scores images without their sources"
    ahead = reattack.ahead(reattack.again.seen)
    count = reattack.counts(ahead)
    allowed = some(reattack.whole) if reattack.worker.score.randomized else 0  # noisy values hide which is the best
    return (
        count <= allowed,
        f"at {count} of {len(reattack.probe)} images the attack met a better point than it returned",
    )


def signs_are_right(reattack: Reattack) -> tuple[bool, str]:
    """What the attack returned, before the harness took the clean image where that is worse."""
    parts = [reattack.ahead(images, of=reattack.clean) for images in reattack.again.raw]
    best = int(torch.stack([part.mean for part in parts]).mean(1).argmax())
    said = []
    for sign, word, verb in ((1, "normal", "raises"), (-1, "anomalous", "lowers")):
        of_class = reattack.sign == sign
        if not of_class.any():
            continue
        mean, error = Ahead(parts[best].mean[of_class], parts[best].error[of_class]).overall
        if mean < -max(ERRORS * error, reattack.floor):
            wrong = "lowers" if sign == 1 else "raises"
            return False, f"the attack {wrong} the scores of {word} images, by {-mean:.3g} in the mean"
        said.append(f"{verb} {word} scores by {mean:.3g}")
    return True, f"the attack {' and '.join(said)} in the mean"


def attack_has_arrived(reattack: Reattack) -> tuple[bool, str]:
    """The last tenth of the passes adds next to nothing."""
    if reattack.worker.score.randomized:
        return True, "not judged by single draws: see `steps`"
    if reattack.at_threshold:
        return True, "not checked: the attack stops at the threshold"
    shares = []
    climbed = zip(reattack.again.history, reattack.sign * reattack.clean[0], reattack.settled.tolist(), strict=True)
    for history, clean, settled in climbed:
        if settled:
            continue
        last = max(round(LAST * len(history)), 1)
        if len(history) >= 1 / LAST and (gain := history[-1] - float(clean)) > reattack.floor:
            shares.append((history[-1] - max(history[-1 - last], float(clean))) / gain)
    if not shares:
        return True, f"not checked: fewer than {1 / LAST:.0f} passes, or no gain"
    late = float(np.median(shares))
    said = f"the last {LAST:.0%} of the passes add {late:.1%} of the gain"
    return late <= ARRIVED or reattack.robust.value <= POINT, said


def more_steps(reattack: Reattack) -> tuple[bool, str]:
    """As many steps again, from where the attack ended and from other random starts; where an attack cannot begin at an
    image, twice the steps, or what it offers as `steps` in `stronger()`."""
    stronger, few = reattack.more("steps"), reattack.few
    if stronger is None:
        return True, "not checked: the attack has no number of steps or queries"
    if reattack.attack.takes_starts and "steps" not in reattack.attack.stronger():
        ended = reattack.again.images[few]
        other = reattack.attacked_by(reattack.attack, few, again=True, starts=ended)
        return _adds_little(reattack, other, "as many steps again", best_of_both=True)
    other = reattack.attacked_by(stronger, few, again=True)
    return _adds_little(reattack, other, "twice the steps", best_of_both=True)


def more_restarts(reattack: Reattack) -> tuple[bool, str]:
    """As many restarts again, from other random starts; of both, the better."""
    if reattack.more("steps") is not None:
        return True, "the steps that were made again, see there, began at other random starts"
    other = reattack.attacked_by(reattack.attack, reattack.few, again=True)
    if torch.equal(other, reattack.again.images[reattack.few]):
        return True, "another run ends at the same images: nothing in it is random"
    return _adds_little(reattack, other, "twice the restarts", best_of_both=True)


def more_draws(reattack: Reattack) -> tuple[bool, str]:
    """Of a randomized detector: twice the draws at every step."""
    if not reattack.worker.score.randomized:
        return True, "one draw is all there is: the detector is not randomized"
    stronger = reattack.more("draws")
    if stronger is None:
        return True, "not checked: the attack has no number of draws"
    return _adds_little(reattack, reattack.attacked_by(stronger, reattack.few), "twice the draws")


def _adds_little(reattack: Reattack, images: Tensor, what: str, best_of_both: bool = False) -> tuple[bool, str]:
    """More of the same neither lowers the metric by more than the interval nor adds much to the gain."""
    ahead = reattack.ahead(images, reattack.few)
    fall = reattack.fall(reattack.few, ahead.sure)
    mean, error = ahead.overall
    if best_of_both:
        mean = float(ahead.sure.mean())
    gain = float(reattack.gained.mean[reattack.few].mean())
    share = mean / gain if gain > reattack.floor else (math.inf if mean > reattack.floor else 0.0)
    said = (
        f"{what} lower the {reattack.metric} by {max(fall, 0):.3f} (the interval allows {reattack.interval:.3f}) and "
        f"add {max(share, 0):.0%} to the gain, on {len(reattack.few)} images"
    )
    much = share > EXTRA and mean > ERRORS * error + reattack.floor and not reattack.at_threshold
    return fall <= reattack.interval and not (much and reattack.robust.value > POINT), said


def large_eps_breaks_it(reattack: Reattack) -> tuple[bool, str]:
    """Where nothing bounds the adversary every image can become any other, so the order of the probe can be turned
    round."""
    threat, few = reattack.threat, reattack.few
    whole = threat.longest(reattack.x.shape[1:])
    radii = sorted({min(k * threat.radius, whole) for k in WIDER} | {whole})
    label = [reattack.rows[reattack.probe[p]].label for p in few]
    best = (reattack.sign * reattack.base.mean(0))[few]
    # a ball so wide is mostly crossed in a few steps; all of them are made where that was not enough
    rounds = [(radius, SHORT) for radius in radii if radius > threat.radius] + [(whole, 1)]
    for radius, share in rounds:
        if radius > threat.radius:  # else eps is the whole range, and `base` is what the attack does with it
            wider = ThreatModel(threat.norm, Fraction(radius), threat.targets)
            images = reattack.attacked_by(reattack.scaled_to(wider, share), few, wider)
            best = torch.maximum(best, reattack.sign[few] * reattack.each(images, few).mean(0))
        scores = (reattack.sign[few] * best).tolist()
        reached = _left(reattack, scores, label)
        if reached <= BROKEN:
            return True, f"at {threat.norm} {radius:.3g} the {reattack.metric} on {len(few)} images is {reached:.2f}"
    spans = ", ".join(
        f"{word} {min(s):.3g} to {max(s):.3g}"
        for y, word in ((0, "normal"), (1, "anomalous"))
        if (s := [v for v, of in zip(scores, label, strict=True) if of == y])
    )
    return False, (
        f"even at {threat.norm} {whole:.3g}, the whole pixel range, the {reattack.metric} on {len(few)} images is "
        f"{reached:.2f} ({spans}): the score is bounded where the attack looks, or the attack is blind"
    )


def _left(reattack: Reattack, scores: Sequence[float], labels: Sequence[int]) -> float:
    """The metric on these images; against the untouched class where the adversary controls one only."""
    if reattack.at_threshold or len(set(labels)) == 1:
        return float(np.mean([reattack.standing(s, y) for s, y in zip(scores, labels, strict=True)]))
    return points(np.array(scores), np.array(labels) == 1)["auroc"]


def generators_did_not_move(reattack: Reattack) -> tuple[bool, str]:
    """An attack draws from its `Rng` alone: a seed that it sets would freeze the detector's noise."""
    moved = reattack.again.moved_generators
    if moved:
        return False, f"the attack, or the detector under it, moves {moved[0]}: something is seeded, or not repeatable"
    return True, "no global random generator moved during the attack"


CHECKS: dict[str, Callable[[Reattack], tuple[bool, str]]] = {
    "budget": eps_is_kept,
    "rounding": rounding_adds_nothing,
    "moved": images_are_moved,
    "ties": scores_are_not_tied,
    "clean": clean_is_the_plain_score,
    "rescored": rescored_is_the_same,
    "fresh process": a_fresh_twin_agrees,
    "followed": attack_was_told_the_truth,
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
    "estimated gradient": long_steps_reach_no_further,
    "transfer": transfer_is_weaker,
    "unbounded": large_eps_breaks_it,
}
