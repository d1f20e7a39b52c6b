"""Transfer: images made for another detector, shown to this one (Papernot et al. 2016, https://arxiv.org/abs/1605.07277).

The adversary has no access to the attacked detector at all. A detector whose gradient hides nothing is hurt less by
this than by an attack on itself; where it is not, its own gradient misleads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bench import Attack, Context, Rng, Score, ThreatModel, UserError
from bench.plugins.fitting import DetectorSpec

from ._ascent import EOT_DRAWS, positive
from ._spelled import assignments
from .apgd import APGD


@dataclass(frozen=True)
class Transfer(Attack):
    """APGD on the source detector; its images are scored by the attacked one.

    source: name of a detector, as `bench list detectors` shows; it is fitted on the same normal images.
    source_params: its parameters, `weights=file.safetensors;coreset=0.01`.
    steps, restarts, draws: of the attack on the source, as of `apgd`.
    """

    norms = APGD.norms
    needs_gradient = False  # not that of the attacked detector

    source: str = ""
    source_params: str = ""
    steps: int = 100
    restarts: int = 1
    draws: int = EOT_DRAWS

    sources: dict[str, Any] = field(default_factory=dict, init=False, compare=False)
    """Where the source comes from, for the record; known once it is fitted."""
    _scores: list[Score] = field(default_factory=list, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("source must name the detector whose attacked images are shown: source=autoencoder")
        positive(steps=self.steps, restarts=self.restarts, draws=self.draws)
        DetectorSpec(self.source, assignments(self.source_params)).parts  # noqa: B018  an unknown one is said now

    def prepare(self, context: Context) -> None:
        """Fits the source, or loads it."""
        if self.source == context.detector and not self.source_params:
            raise UserError(f"transfer from {self.source} to itself is the attack apgd; name another source")
        given, device = assignments(self.source_params), str(context.score.detector.device)
        source = DetectorSpec(self.source, given, context.seed, device, tell=context.tell)
        context.tell(f"transfer comes from {self.source}, which is fitted first unless it was before")
        detector = source.fitted(context.data)
        if not detector.differentiable:
            raise UserError(f"transfer source {self.source} is not differentiable; apgd needs one that is")
        origin = detector.origin
        if origin is not None:
            self.sources[self.source] = {"code": origin.code, "parameters": origin.parameters, "fit": origin.fit}
        self._scores[:] = [Score(detector, self.source)]

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """Images of the ball around x (B, 3, H, W) with a high sign * score of the source; `score` is never asked."""
        if not self._scores:
            raise UserError("transfer has no source yet: `prepare` fits it")
        attack = APGD(steps=self.steps, restarts=self.restarts, draws=self.draws)
        return attack(self._scores[0], x, sign, threat, rng.child(self.source))
