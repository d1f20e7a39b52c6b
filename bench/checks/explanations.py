"""What each check means: raised if, meaning, remedy. The one place where this is written; docs/checks.md repeats it."""

from __future__ import annotations

from typing import NamedTuple


class Explained(NamedTuple):
    """One check. The numbers are the constants of `of_detector`, `reattack` and `of_attack`."""

    raised_if: str
    meaning: str
    remedy: str


DETECTOR = {
    "fit": Explained(
        "`fit` raises on a few normal images.",
        "Nothing else can be checked.",
        "Mend what the sentence says.",
    ),
    "parameters": Explained(
        "a constructor argument has no default or annotation, or is not kept as an attribute of the same name.",
        "A run could not record the detector, so nobody could repeat it.",
        "Keep every argument: `self.k = k`.",
    ),
    "scores": Explained(
        "a score is not finite on a test, black, white or random image, or all scores are equal.",
        "The input range or a normalisation is wrong, or the detector learned nothing.",
        "Take images in [0, 1]; guard divisions, logarithms and square roots at 0.",
    ),
    "direction": Explained(
        "plain defects do not score above normal images (AUROC at most 0.5).",
        "The score is upside down: the adversary would be helping the detector.",
        "Return the negated score. With random weights the check is not made.",
    ),
    "rows": Explained(
        "an image's score, alone or in another order, changes by more than 1e-4 of the spread of scores.",
        "The score is not a function of one image: batch statistics, or a normalisation over the batch.",
        "Put the detector into eval mode; normalise with what was learned in `fit`.",
    ),
    "randomness": Explained(
        "a detector that is not declared `randomized` gives two scores, or one that is repeats itself, or does not "
        "draw from the `rng` it is given.",
        "Undeclared noise is counted as robustness; frozen noise is known to the adversary.",
        "Set `randomized = True` and draw from `rng` where it is given.",
    ),
    "state": Explained(
        "a buffer, a parameter or a training flag differs after scoring.",
        "The result depends on what was scored before.",
        "Learn in `fit` only.",
    ),
    "gradient": Explained(
        "the gradient is missing, not finite, zero at most images of a class, or disagrees with central finite "
        "differences by more than 2 % (10 % in single precision) in the median; or, where that was seen of a copy in "
        "double precision, that of the detector itself disagrees by more than 25 %.",
        "A gradient attack climbs something else than the score, and the robust AUROC is too high.",
        "Remove `no_grad`, `detach`, NumPy and rounding from the path, or pass the block to `bench.bpda`, or declare "
        "`differentiable = False`: that is believed where autograd gives no gradient along which the score moves as "
        "promised. Where it gives one attacks follow it all the same, and the record has a warning.",
    ),
    "mixing": Explained(
        "the gradient of one image's score at another image of the batch exceeds 1e-6 of that at its own.",
        "The attack at one image is steered by its neighbours.",
        "As for `rows`.",
    ),
    "shattered": Explained(
        "more than 99.95 % of a gradient's entries are exactly zero; or a step of 2/255 along it promises less than "
        "1e-4 of the spread of scores; or its cosine with the gradients 1e-4 and 3e-4 away (uniform noise) is below "
        "0.5 in the median over images.",
        "The gradient is right at a point and useless a step further: attacks stall, and robustness is only apparent.",
        "Return the score before its last squashing; remove steps, quantisation and high-frequency terms, or attack "
        "through them (`bpda`, black box).",
    ),
    "seeding": Explained(
        "two different states of a global random generator (torch, NumPy, Python, GPU) are the same state after "
        "scoring; or a randomized detector repeats its noise after a gradient.",
        "Scoring seeds a generator. That freezes noise, in the detector or beside it.",
        "Draw from `rng`; use a generator of your own where a fixed draw is meant.",
    ),
    "plain score": Explained(
        "the harness's score differs from `detector.score`, called directly, by more than 1e-4 of the spread; of a "
        "randomized detector by more than 6 standard errors between means of 8 draws.",
        "The number on the board would not be the detector's.",
        "`score(x, rng)` and `score(x)` must be the same random variable.",
    ),
    "saturation": Explained(
        "5 % or more of the images checked share their score with a different image, or score exactly 0 or 1.",
        "The score is clamped, rounded or saturated: it has lost the order, and its gradient.",
        "Return the raw score.",
    ),
    "round trip": Explained(
        "a score differs after saving and loading by more than 1e-6.",
        "Something learned is not in the state dict; a cached detector would be another one. Of an object that is "
        "passed to `bench.evaluate`, nobody else could repeat its cell. A fit by name that loses something is refused, "
        "not kept.",
        "Register it as a buffer, or give it as tensors in `learned()` and take it back in `load_state_dict()`.",
    ),
    "map": Explained(
        "`anomaly_map` is not (B, 1, H, W) at the size of the image.",
        "It cannot be laid over the image.",
        "Resize it.",
    ),
    "evidence": Explained(
        "`score_with_evidence` gives another score than `score`, or local scores that are not finite, not one row per "
        "image, or without a gradient.",
        "The smooth objectives of the attacks would climb something that is not the score.",
        "Pool the score from the very local scores that are returned, in one forward pass; or return None.",
    ),
    "gpu": Explained(
        "scores on CPU and GPU differ by more than 1 % of their spread.",
        "A tensor lies on the wrong device, or a computation needs more precision.",
        "Register constants as buffers; avoid half precision.",
    ),
    "own bounds": Explained(
        "a detector that bounds its own score gives bounds that are not two tensors of one number an image, lower ones "
        "first; or a test image, or one of its ball (linf 1/255 and 8/255, l2 0.1 and 1) that `apgd` finds in twenty "
        "steps from three starts, in either direction, or one of 24 corners, has a score outside of them.",
        "The bounds are no bounds, and neither is a certified AUROC: they forget what an image goes through before it "
        "is compared, what was left out of a memory, a statistic that the attacked image changes, or the rounding.",
        "Prove the bounds for the score as it is computed, and widen them by what rounding may do.",
    ),
}  # fmt: skip

CELL = {
    "budget": Explained(
        "an image of the probe, measured again in double precision, or the distance of any row exceeds eps by more "
        "than 1e-6; or leaves [0, 1]; or a noted distance is wrong.",
        "The attack was stronger than its threat model. The sentence also says what rounding to 8 bits does to the "
        "distance: eps that is not a whole number of grey levels, or images that were resized, leave the ball there.",
        "Project as the last step of the attack (`threat.project`).",
    ),
    "rounding": Explained(
        "the AUROC of the images rounded to 8 bits is below the robust AUROC by more than the interval.",
        "Rounding, which nobody aimed, did more than the attack: the attack is weak, or the score unstable. The "
        "opposite, an attack that rounding undoes, is no failure: the sentence shows both numbers.",
        "Use a stronger attack; see `shattered`.",
    ),
    "moved": Explained(
        "more than one, and more than 5 %, of the attacked images were left as they are, because nothing better was "
        "found (of an attack that aims at the threshold: of those not already on the wrong side); not judged once "
        "AUROC is at most 0.01.",
        "The attack is blind there.",
        "See `gradient` and `shattered`; try the black box `square`.",
    ),
    "ties": Explained(
        "5 % or more of all rows share their score with another row, or score exactly 0 or 1; before or after the "
        "attack.",
        "As `saturation`, over the whole cell; ties count half in AUROC.",
        "Return the raw score.",
    ),
    "clean": Explained(
        "the clean column differs from `detector.score`, called directly on the probe, by more than 1e-4 of the "
        "spread; of a randomized detector by more than 6 standard errors.",
        "The detector changed during the run, or the harness does not score what the detector scores.",
        "See `state` and `plain score`.",
    ),
    "rescored": Explained(
        "an attacked image of the probe, scored again in another order, has a score that differs by more than 1e-4 of "
        "the spread; images that a sweep keeps on the disk are compared with the stored row.",
        "The score depends on more than the image, or drifts.",
        "See `rows` and `state`.",
    ),
    "fresh process": Explained(
        "the images of up to 8 rows of each class (4 of a small cell), attacked and clean and mixed, have "
        "another score in a process that has seen none of them: by more than 1e-4 of the spread; of a randomized "
        "detector, under noise that nobody could foresee, by more than 6 standard errors, of an image or of a class in "
        "the mean. Or the detector opens a file there while it scores, or reads one that was written after the fit. An "
        "object that was passed to `bench.evaluate`, and a detector under `--in-process`, is loaded again in the same "
        "process, which does not see what a module remembers.",
        "The rows are not scores of images: the detector remembers images, or has found out which one it scores.",
        "Keep nothing between calls, and whatever `fit` learns in the state dict.",
    ),
    "followed": Explained(
        "a call that the attack made while it made the rows, one of each batch up to 4 images of each class (2 "
        "of a small cell), is not what the score is outside of it: under the same noise another value, by more than "
        "1e-4 of the spread; or a gradient that disagrees with finite differences (steps from 1e-3 to 2.5e-5, along "
        "the gradient, along the same smoothed over 5 pixels, and along random signs) by more than 40 % in the median "
        "over a class. Differences are taken at 2 images of each class first, and where one of these is in doubt "
        "(above 13 %) at all.",
        "The detector shows attacks another score, or another slope, than it is judged by: as soon as a gradient is "
        "asked for, for batches of another size, for some callers, or after some calls.",
        "As for `gradient`; let `score` depend on nothing but the image and the noise.",
    ),
    "repeat": Explained(
        "the same attack on the same images ends further than a tenth of its median gain from the stored scores, in "
        "the mean.",
        "The attack or the detector is not driven by the run's seed, or changed since.",
        "Draw from the `Rng` that the attack is given.",
    ),
    "generators": Explained(
        "a global random generator is in another state after the attack.",
        "Something draws outside the run's seed, so the result cannot be repeated; or seeds, and freezes noise.",
        "Draw from the `Rng`; wrap a library that seeds in `torch.random.fork_rng`.",
    ),
    "best iterate": Explained(
        "at any image of the probe the attack scored an allowed point that is better than what it returned, by more "
        "than 5 % of the median gain (and 3 standard errors on fresh draws); of a randomized detector, at more than "
        "one.",
        "Silent success: the attack succeeded on the way and threw it away.",
        "Keep the best point by the true score.",
    ),
    "signs": Explained(
        "what the attack returned lowers the scores of normal images, or raises those of anomalous ones, in the mean.",
        "The direction is wrong. The rows hide it, since doing nothing is always allowed.",
        "Maximise sign * score.",
    ),
    "convergence": Explained(
        "the last tenth of the attack's passes adds more than 5 % of its gain, in the median over the probe. Not "
        "judged for randomized detectors, for fewer than 10 passes, or once AUROC is at most 0.01.",
        "The attack was stopped while it was still climbing.",
        "More steps, or a step size that shrinks.",
    ),
    "steps": Explained(
        "as many steps again, from where the attack ended and from other random starts, lower the metric by more than "
        "its interval, at least 0.01; or add more than 25 % to the gain while AUROC is above 0.01. Of an attack that "
        "begins at no given image twice the steps, or what it offers as `steps` in `stronger()`.",
        "The number measures the patience of the attack, not the detector.",
        "More steps, until this check passes.",
    ),
    "restarts": Explained(
        "as many restarts again do what `steps` forbids. Of an attack with a number of steps see there: what is made "
        "again begins at other random starts.",
        "The result depends on where the attack starts: the score has many local maxima.",
        "More restarts, or other starts.",
    ),
    "draws": Explained(
        "twice the noise draws per step do what `steps` forbids. Randomized detectors only.",
        "The gradient is noise in good part.",
        "More draws.",
    ),
    "one step": Explained(
        "a single step is ahead of the whole attack, by more than 5 % of the median gain, on more than one image of "
        "the probe.",
        "The steps after the first lead away: the step size or the gradient is wrong.",
        "Smaller steps; see `shattered`.",
    ),
    "noise": Explained(
        "the best of 16 random perturbations of the same size gains more than half of what the attack gains, or is "
        "ahead on more than one image. 4 are tried first; where they gain less than an eighth of it at every image, no "
        "more.",
        "The attack hardly uses the gradient.",
        "See `gradient` and `shattered`.",
    ),
    "black box": Explained(
        "`square`, which sees scores only, is ahead by more than 5 % of the median gain on more than one image (and "
        "more than 2 % of them). It is given the price of the attack, at least 100 queries; a quarter of them where "
        "that gains less than half of what the attack gains at every image. Of `standard` the check says what its own "
        "survey has found before the first row.",
        "Gradient masking: the gradient hides what the score shows.",
        "Report the black box; attack another objective, or through the masking block (`bpda`).",
    ),
    "estimated gradient": Explained(
        "an attack that estimates the gradient from 31 scores at the rim of the ball (along what makes an image "
        "smoother, towards other images, and along squares of random sign) is ahead at more than one of the images "
        "tried, and in the mean over them adds more than 25 % to the median gain. Tried are 2 of each class; where it "
        "comes to 90 % of the gain at one of these 2 more (of a cell of 64 images or more), and where it is ahead at "
        "one 12 more; ahead is more than 25 % of the gain. In linf and l2; not of attacks that follow no gradient.",
        "Gradient masking: the score is a staircase, or flat, with another slope than its gradient tells. Or the "
        "attack is weak: it is given the gradient, and does less with it.",
        "As for `black box`; more steps.",
    ),
    "transfer": Explained(
        "the attack's part `transfer` is ahead of the parts that see the detector's gradient on more than one image "
        "and more than 2 % of them.",
        "Gradient masking: another detector's gradient leads further than its own.",
        "As for `black box`.",
    ),
    "unbounded": Explained(
        "in balls of 8 eps, 32 eps and the whole pixel range the attack does not bring AUROC on the probe to 0.05.",
        "In the whole range every image may become any other, so the order can always be turned round: an attack "
        "that cannot is blind, or the score is bounded where it looks.",
        "Use an attack that needs no gradient; return the raw score.",
    ),
}  # fmt: skip

CERTIFICATE = {
    "bounds": Explained(
        "a score lies outside its own bounds, or the certified AUROC is above the clean one; or the bounds that a "
        "detector gives are wider in a ball of half the radius.",
        "The bounds were not made from these draws, or on the wrong side; or a bound is no bound of the ball.",
        "Of smoothing, report it: no detector can cause this. Of bounds that a detector gives: mend them.",
    ),
    "fresh noise": Explained(
        "500 draws of other noise, at the two images of each class with the narrowest bounds, put a smoothed score "
        "beyond its bound although nobody moved the image. It errs once in 250,000 certificates.",
        "The draws that the bounds rest on are not what the detector gives: noise that repeats, or kept draws of "
        "another detector.",
        "Draw what the detector draws from its `rng`; delete the `draws` folder of the cache.",
    ),
    "inside the ball": Explained(
        "ten steps of `apgd` inside the certified ball (random directions where there is no gradient) put the smoothed "
        "score of one of these images beyond its bound, under fresh noise; of bounds that a detector gives: twenty "
        "steps in either direction from three starts, or 24 corners of the ball, put the score of one of the eight "
        "images with the narrowest bounds outside of them, on whichever side.",
        "The certificate is broken: a score that sees more than the noisy image, say, as AdvRAD's own noise would have "
        "it; or bounds that forget what happens to an image before it is compared, or the rounding.",
        "Certify a function of the noisy image: everything else that a score draws must be independent of that noise. "
        "Of bounds: prove them for the score as it is computed.",
    ),
    "bracket": Explained(
        "`bench report` finds an attack on the same detector in the same norm, up to the certified radius, "
        "whose robust AUROC (or accuracy at the same threshold) is below the certified one.",
        "Impossible: the certificate or the attack's row is wrong. Neither is ranked.",
        "Run `bench check-run` on the attack's cell, and the certificate again with another `--seed`. With a small "
        "`smoothed.n` (below 15 nothing is compared) the attacked score, a mean of medians of n draws, may be another "
        "one than the median that is certified: raise it.",
    ),
}

MAPS = {
    "map gradient": Explained(
        "the gradient of the anomaly map, of a sum of its pixels with random signs, disagrees with central finite "
        "differences, as under `gradient`.",
        "The map is made another way than the score: an attack on it followed something else.",
        "Let the gradient through `anomaly_map` as through `score`.",
    ),
    "map budget": Explained(
        "an image is further away than eps, or its map is better for the detector after the attack than before.",
        "The rows are not what the attack made.",
        "Report it: no detector can cause this.",
    ),
    "map noise": Explained(
        "the best of 16 random perturbations of the same size reaches further than the attack at more than a quarter "
        "of up to 8 images.",
        "The attack hardly uses the gradient.",
        "See `map gradient`; more steps; an attack that needs no gradient.",
    ),
    "map steps": Explained(
        "the attack with twice the steps adds more than 5 % to what it has changed, in the mean over up to 8 images.",
        "The number measures the patience of the attack, not the detector.",
        "More steps.",
    ),
}
"""Of cells whose anomaly maps are attacked."""

SHIFTS = {
    "shift repeat": Explained(
        "two images of each class, shifted and scored again one by one, have scores that differ by more than 1e-4 of "
        "the spread of the clean ones.",
        "The score depends on more than the image, or drifts.",
        "See `rows` and `state`.",
    ),
    "box rows": Explained(
        "of `--worst`: an image that is made again of the numbers of its row has another score than the row says, by "
        "more than 1e-4 of the spread of the clean ones.",
        "A row was changed, the images are others, or the score depends on more than the image.",
        "See `rows` and `state`; run the cell again.",
    ),
    "box chance": Explained(
        "of `--worst`: the best of 32 random points of the box adds more than a tenth of what the search gains, over "
        "four images of each class.",
        "The search has not arrived: the score has many hills in the box, or a gradient that leads nowhere.",
        "A finer grid, more rounds or steps: `--search points=5`, `--search rounds=3`, `--search steps=50`.",
    ),
}
"""Of cells where nobody attacks."""

EXPLAINED = DETECTOR | CELL | CERTIFICATE | MAPS | SHIFTS


def markdown(explained: dict[str, Explained]) -> str:
    """As docs/checks.md has it."""
    return "\n".join(
        f"### {name}\n\n- **raised if** {e.raised_if}\n- **meaning** {e.meaning}\n- **remedy** {e.remedy}\n"
        for name, e in explained.items()
    )
