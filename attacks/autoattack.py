"""AutoAttack as the field runs it, on a score with a threshold, and what is left for a score attack after it.

Croce & Hein 2020, https://arxiv.org/abs/2003.01690; the attacks are those of the package pyautoattack.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pyautoattack import AutoAttack as Package  # type: ignore[import-untyped]
from pyautoattack import autoattack as package
from torch import Tensor

from bench import Attack, Attacked, Rng, Score, ThreatModel

from ._ascent import EOT_DRAWS, positive
from .apgd import APGD

CASCADE = ("apgd-ce", "fab", "square")
"""Of the standard version, what two classes leave: DLR needs three, and a targeted form needs another target."""
NORM_NAMES = {"linf": "Linf", "l2": "L2"}  # of the package
PLAIN, CONTINUED = "autoattack", "autoattack then apgd"


@dataclass(frozen=True)
class AutoAttack(Attack):
    """The package's APGD on cross entropy, FAB and Square, one after the other, on the two logits tau - s and s - tau.

    It wants the decision at the threshold tau changed, no more: images that are wrong from the start and images that
    no attack broke come back unmoved, the others lie anywhere across tau. So the column `autoattack` is good for the
    accuracy at tau, which is AutoAttack's own figure, and says nothing about AUROC. The column `autoattack then apgd`
    is for that: those images are where a score attack goes on. `broken` is 1 where AutoAttack calls the image not
    robust. See docs/autoattack.md.

    The logits are in units of the image's own clean distance |s - tau|, so that the cross entropy starts at a margin
    of 2 and cannot saturate, whatever the scale of the score.
    Every image is attacked alone: the package draws one square and one seed for a whole batch, and the result of an
    image would depend on its neighbours. This is slow on a GPU. The package seeds torch's global generator; it is put
    back, and a detector draws its noise elsewhere (see Rng). Its checks of a defence are left out: they know nothing
    of scores.

    steps: iterations of each restart of APGD and of FAB.
    restarts: of APGD and of FAB.
    queries: of Square.
    ascent_steps: of the score attack (apgd) that goes on from AutoAttack's images.
    draws: noise draws over which a randomized detector's score is averaged in every call.
    """

    norms = tuple(NORM_NAMES)
    needs_threshold = True
    parts = (PLAIN, CONTINUED)
    numbers = ("broken",)

    steps: int = 100
    restarts: int = 1
    queries: int = 5000
    ascent_steps: int = 100
    draws: int = EOT_DRAWS

    def __post_init__(self) -> None:
        positive(
            steps=self.steps,
            restarts=self.restarts,
            queries=self.queries,
            ascent_steps=self.ascent_steps,
            draws=self.draws,
        )

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Attacked:
        """Images of the ball around x (B, 3, H, W), by part, and `broken` (B,); sign (B,) is +1 or -1.

        Raises UserError where the score has no threshold.
        """
        threshold = score.needed_threshold("attack autoattack")
        draws = self.draws if score.randomized else 1
        images, broken = x.clone(), torch.zeros_like(sign)
        for i in range(len(x)):
            source = rng.rows([i])
            classifier = _TwoLogits(score, source.child("noise"), draws, threshold)
            images[i : i + 1], broken[i] = self._one(classifier, x[i : i + 1], sign[i], threat, source.child("seed"))
        images = threat.project(images, x)  # the package's l2 images may be a rounding outside
        ascent = APGD(steps=self.ascent_steps, draws=self.draws)
        further = ascent(score, x, sign, threat, rng.child("ascent"), starts=images)
        return Attacked({PLAIN: images, CONTINUED: further}, {"broken": broken})

    def _one(
        self, classifier: _TwoLogits, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng
    ) -> tuple[Tensor, bool]:
        label = (sign < 0).long()[None]
        with torch.no_grad():
            margin = classifier.margin(x)
        if classifier.decide(margin) != label:
            return x, True
        classifier.unit = margin.abs().clamp_min(torch.finfo(margin.dtype).tiny)
        attack = Package(
            classifier,
            attacks=list(CASCADE),
            version="custom",
            norm=NORM_NAMES[threat.norm],
            eps=threat.radius,
            seed=int(rng.uniform(x[:, 0, 0, 0]).item() * 2**24),
            device=x.device,
        )
        attack.logger = logging.Logger("autoattack", logging.CRITICAL + 1)  # it warns about each image by itself
        for part in (attack.apgd, attack.fab):
            part.n_iter, part.n_restarts = self.steps, self.restarts
        attack.apgd.n_iter_orig = self.steps
        attack.apgd.n_iter_2 = max(int(0.22 * self.steps), 1)  # its checkpoints, set from the number of steps
        attack.apgd.n_iter_min = max(int(0.06 * self.steps), 1)
        attack.apgd.size_decr = max(int(0.03 * self.steps), 1)
        attack.square.n_queries = self.queries
        with torch.random.fork_rng(list(range(torch.cuda.device_count()))), _without_checks():
            x_adv, decided = attack.run_standard_evaluation(x, label, batch_size=1)
        return x_adv.detach(), bool(decided != label)


class _TwoLogits:
    """x (1, 3, H, W) -> (1, 2): how far below the threshold, and how far above; 0 is normal, 1 anomalous."""

    def __init__(self, score: Score, rng: Rng, draws: int, threshold: float):
        self.score, self.rng, self.draws, self.threshold = score, rng, draws, threshold
        self.unit = torch.ones(1)

    def __call__(self, x: Tensor) -> Tensor:
        margin = self.margin(x) / self.unit.to(x)
        return torch.stack([-margin, margin], 1)

    def margin(self, x: Tensor) -> Tensor:
        """(1,): the mean score above the threshold."""
        return torch.stack([self.score(x, self.rng) for _ in range(self.draws)]).mean(0) - self.threshold

    @staticmethod
    def decide(margin: Tensor) -> Tensor:
        """The class; a score equal to the threshold is normal, here and in accuracy."""
        return (margin > 0).long()


@contextmanager
def _without_checks() -> Iterator[None]:
    """One of the package's checks takes over sys.settrace, and all of them cost passes and judge logits."""
    checks = package.checks
    names = ("check_randomized", "check_dynamic", "check_n_classes", "check_range_output")
    before = {name: getattr(checks, name) for name in names}
    try:
        for name in names:
            setattr(checks, name, lambda *args, **kwargs: 2)
        yield
    finally:
        for name, check in before.items():
            setattr(checks, name, check)
