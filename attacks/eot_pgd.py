"""EOT-PGD: the recommended attack on purifiers, PGD with many draws a step (Lee & Kim 2023).

https://arxiv.org/abs/2303.09051, with the expectation over transformation of Athalye et al. 2018
(https://arxiv.org/abs/1802.00420). `pgd` averages over draws too; this is the same attack with the settings that the
literature on purifiers agrees on: 20 draws a step, no random start, so that its figures compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .pgd import PGD


@dataclass(frozen=True)
class EOTPGD(PGD):
    """PGD from the image itself, along the gradient averaged over 20 draws.

    The parameters are those of `pgd`. A detector that draws no noise gets one draw a step.
    """

    norms = ("linf", "l2")

    schedule: Literal["linear", "constant"] = "constant"
    draws: int = 20
    random_start: bool = False
