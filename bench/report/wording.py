"""Sentences that the leaderboard and the page share."""

from __future__ import annotations

HOW_TO_READ = """\
Every number is computed from the rows in this folder; `report/index.html` has them all, with plots. AUROC: the chance
that an anomalous image scores above a normal one; brackets hold the 95 % interval over test images (of these seeds:
another fit or attack may differ by more). Bold: those of the ranked that may be the best, compared image by image; of
detectors that are all equal, every one is bold in 19 of 20 tables. docs/statistics.md has both methods, and how often
they hold. *robust*: after the attack. *normal only*, *anomalous only*: only these images were moved.
*rounded*: the attacked images in 8 bits. Of detectors that draw noise, robust is the mean over draws, *worst draw* the
worst of them, *known noise* an adversary who knows the draw, *noise* the standard error of an AUROC by the draws alone.
AP: average precision. FPR95: share of normal images flagged when 95 % of the anomalous ones are. acc.: accuracy at the
threshold that 5 % of held-out normal training images exceed. Passes per image: forward + backward. Peak: memory during
the attack. ms a score: milliseconds, one image alone and an image of 32. M weights: millions of numbers that the
detector holds. A row without a rank: the reason is below the table.
An attack bounds robustness from above: a better one can only lower it.
"""

SCORE_SHOWN = {"auroc": "AUROC", "accuracy": "Accuracy", "pixel_auroc": "Pixel AUROC", "false_alarms": "False alarms"}
"""What `Result.score_name` is called."""

BETWEEN = (
    "The true worst case of a detector lies between what is certified and what an attack reached at the same radius."
)
IMPOSSIBLE = "A certified value above the attacked one is impossible: one of both is wrong, and both lose their rank."
HOW_TO_ATTACK = (
    "`bench run --detector smoothed+D --param sigma=S --attack apgd-l2 --eps R` adds the attack; of *deterministic* "
    "certificates, which the detector itself proves, any `bench run --detector D` at the same radius."
)

SEEDS = "What another seed of the fit, the attack and all noise changes, which no interval holds:"

REPORTED = (
    "Reported: published figures on this data. Other attacks, samples and sizes: beside ours, never to be mixed with "
    "them"
)

SUBMITTED = (
    "What somebody sent in and nobody has run again here: their claims, which nothing above takes into account. "
    "`bench verify FILE.zip --rerun` runs a submission again, and ranks it if it is what it says (docs/submissions.md)."
)

BOX = (
    "Nobody touches a pixel here: exposure, gamma, hue, rotation and a shift of up to two pixels, all at once, are "
    "chosen for each image so that its score is as wrong as a grid and the gradient could make it. *worst false "
    "alarms*, *worst misses*: at the threshold that was set on held-out normal images as they are. Never ranked among "
    "attacks (docs/shift.md)."
)
NORMAL_ONLY = (
    "All test images are normal: *false alarms* is the share of them above the threshold that was set on held-out "
    "normal images, before and after the attack (or as certified). AUROC, AP and FPR95 need anomalous images, and are "
    "absent."
)
FOOTNOTES = {
    "certified_accuracy": "No attack of the ball can bring the detector below *certified* AUROC: the share of pairs "
    "whose lower bound of the anomalous score is above the upper bound of the normal one. *deterministic*: bounds that "
    "the detector itself proves. Of a smoothed detector *clean* is the smoothed score, and the bounds of all images of "
    "a category hold together with a chance of 1 - alpha, over the noise that was drawn. *certified acc.*, *normal "
    "right*, *anomalous right*: decisions that stand in the ball. *certified radius*: how far the median image may be "
    "moved. A ball of one norm says nothing about another.",
    "robust_normal_right": "This attack leaves an image alone as soon as the decision is wrong, so its score is not "
    "the worst one, and nothing ranks by it; the order is that of robust acc. *normal right*, *anomalous right*: "
    "share of that class still on its side of the threshold.",
    "shifted_auroc": "Nobody attacks here: light, lens or camera are others. *shifted*: mean over the conditions. "
    "*worst per image*: each image under the condition that is worst for it, or none. *false alarms*, *misses*: normal "
    "images above, and anomalous ones not above, the threshold that was set on held-out normal images as they are. "
    "Never ranked among attacks (docs/shift.md).",
    "robust_false_alarms": NORMAL_ONLY,
    "certified_false_alarms": NORMAL_ONLY,
    "robust_pixel_auroc": "Of anomaly maps, all pixels of a category together, and attacks on the maps. An image is "
    "judged by its own map: the pixel AUROC of an anomalous one, the mean of a normal one. *score attack*: "
    "images that the same attack makes when it is after the image score. *AUPRO*: up to a false positive rate of 0.30, "
    "or 0.05, divided by it. *F1*, *background FPR*: of pixels above the level that 0.1 % of held-out normal pixels "
    "exceed. Intervals are over images (docs/localisation.md).",
    "autoattack_accuracy": "*AutoAttack acc.*: share of images that AutoAttack did not break, which is its own figure.",
    "median_radius_normal": "*median radius*: how far the median image of the class must move, in the norm and in "
    "pixels in [0, 1], to be judged wrongly at the threshold, as far as the attack found; 0 where it is from the "
    "start, inf where nothing was found.",
}
"""Below a table that shows the metric."""
