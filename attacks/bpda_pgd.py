"""BPDA-PGD: the backward pass takes a purifier for the identity (Athalye et al. 2018).

https://arxiv.org/abs/1802.00420. A block that destroys or falsifies the gradient, declared by its detector through
`bench.bpda`, is run as it is, and its gradient is replaced by that of the identity: a purified image looks like the
image. A second opinion where the true gradient exists, and the only gradient where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bench import Rng, Score, ThreatModel, Trace, UserError, identity_backward

from .pgd import PGD


@dataclass(frozen=True)
class BPDAPGD(PGD):
    """PGD with the identity for the gradient of every block that the detector declares.

    The parameters are those of `pgd`. Raises UserError for a detector that declares no block.
    """

    norms = ("linf", "l2")
    goes_around_blocks = True

    steps: int = 40

    def __call__(
        self,
        score: Score,
        x: Tensor,
        sign: Tensor,
        threat: ThreatModel,
        rng: Rng,
        starts: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        if not score.hints.bpda:
            raise UserError(f"detector {score.name} declares no block that an attack could go around; pgd fits")
        with identity_backward():
            return super().__call__(score, x, sign, threat, rng, starts, trace)
