"""The standard evaluation before standard-v4, for one more release: to compare with figures that it has given.

v2: another temperature and gradient of the smooth maximum; a shorter l2 projection.
v3: against detectors that draw noise, gradients are means over opposite draws, and l2 steps have no momentum.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from bench import Attack, Attacked, Context, Rng, Score, ThreatModel

from ._ascent import EOT_DRAWS, OBJECTIVES, positive
from .apgd import APGD
from .bpda_pgd import BPDAPGD
from .square import Square
from .standard import SOURCES
from .transfer import Transfer
from .worst import one_after_another, parts_of, prepared

REFINING = frozenset({"apgd-score", "square"})
"""These start from the best image that the others have found."""


@dataclass(frozen=True)
class _Hinted(Attack):
    """APGD from where the detector's own hints say that an attack should start."""

    attack: APGD
    norms = APGD.norms

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        begin = score.hints.starts
        assert begin is not None
        return self.attack(score, x, sign, threat, rng, starts=threat.project(begin(x, sign).to(x), x))


@dataclass(frozen=True)
class StandardV3(Attack):
    """The worst, image by image, of

    `apgd`: along a smooth maximum of the local scores, from a random point and from the image itself;
    `apgd-top`: along the mean of the highest local scores, from another random point;
    `apgd-score`: along the score itself, from the best image so far;
    `apgd-...`: what the detector's own hints ask for;
    `bpda`: where a detector declares a block to go around;
    `transfer ...`: images made for undefended detectors, and `square`: queries alone, both without any gradient.

    A detector that draws noise is attacked with the mean over `draws` draws, and once more with the draw known to the
    adversary (the column `known_noise`, by the harness). One that is not differentiable meets the last three.

    steps: gradient evaluations of each run of a gradient attack (times `draws`).
    queries: of square.
    draws: noise draws over which score and gradient are averaged; one where there is no noise.
    transfer: False leaves out the attacks by transfer, which fit their sources first.
    version: of this list.
    """

    norms = ("linf", "l2")
    needs_gradient = False
    knows_noise = True
    takes_starts = True

    steps: int = 100
    queries: int = 1000
    draws: int = EOT_DRAWS
    transfer: bool = True
    version: Literal["standard-v3"] = "standard-v3"

    sources: dict[str, Any] = field(default_factory=dict, init=False, compare=False)
    """Of transfer attacks, for the record."""
    _attacks: dict[str, Attack] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        positive(steps=self.steps, queries=self.queries, draws=self.draws)

    def prepare(self, context: Context) -> None:
        """Chooses the attacks that this detector can meet, and fits the sources of transfer."""
        self._attacks.clear()
        self._attacks.update(self._of(context))
        prepared(self._attacks, context, self.sources)
        object.__setattr__(self, "parts", parts_of(self._attacks))

    def _of(self, context: Context) -> dict[str, Attack]:
        hints = context.score.hints
        found: dict[str, Attack] = {}
        if self.transfer:
            for source, given in SOURCES.items():
                if source != context.detector:
                    found[f"transfer {source}"] = Transfer(source=source, source_params=given, steps=self.steps)
        if context.score.differentiable:
            climb = APGD(steps=self.steps, draws=self.draws)
            found["apgd"] = replace(climb, restarts=2)
            found["apgd-top"] = replace(climb, objective="top")
            for objective in hints.objectives:
                if objective in OBJECTIVES and objective not in ("top", "score"):
                    found[f"apgd-{objective}"] = replace(climb, objective=objective)
            if hints.starts is not None:
                found["apgd-hinted"] = _Hinted(climb)
        if hints.bpda:
            found["bpda"] = BPDAPGD(steps=self.steps, draws=self.draws)
        if context.score.differentiable:
            found["apgd-score"] = replace(climb, objective="score")
        found["square"] = Square(queries=self.queries, draws=self.draws)
        return found

    def __call__(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None = None
    ) -> Attacked:
        """Candidates (B, 3, H, W) by the name of their attack."""
        attacks = self._attacks
        if score.fixed:  # what knows the noise needs no other evidence than the gradient
            attacks = {name: attack for name, attack in attacks.items() if name in ("apgd", "apgd-score")}
        return one_after_another(attacks, score, x, sign, threat, rng, starts, refining=REFINING)
