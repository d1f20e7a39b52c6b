"""The attack libraries of the field, each through the strongest bridge to a scalar score that it allows.

A peer is a function of a Problem that returns images; what it returns is projected into the ball, and how far it had
overstepped is kept. Only the library of the peer in use is imported.
"""

from __future__ import annotations

import hashlib
import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor

from bench import Attack, Rng, Score, ThreatModel

from . import art, control, foolbox, pyautoattack, secmlt, torchattacks
from .problem import Problem


@dataclass(frozen=True)
class Peer:
    """One attack of one library. `module` is what it imports, `package` the name on PyPI."""

    package: str
    module: str
    name: str
    run: Callable[[Problem], Tensor]
    norms: tuple[str, ...] = ("linf", "l2")

    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""
        try:
            importlib.import_module(self.module)
        except ImportError as error:
            return f"{self.package} cannot be imported ({error})"
        return None

    @property
    def version(self) -> str | None:
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


@dataclass
class PeerAttack(Attack):
    """A peer as an attack of the harness. The libraries draw from the global generators, which are seeded per batch
    from the run's seed and the images, so that a row can be repeated (for the same batches)."""

    peer: Peer
    passes: int
    draws: int
    norms = ("linf", "l2")
    overstep: list[float] = field(default_factory=list)
    """Of every batch: how far the farthest image was outside the ball, in the norm, before it was projected."""

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        text = "\t".join((str(rng.seed), rng.purpose, *rng.ids))
        seed_everything(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))  # numpy takes 32 bits
        problem = Problem(score, x, sign, threat, self.passes, self.draws if score.randomized else 1)
        x_adv = self.peer.run(problem).detach().to(x)
        if not torch.isfinite(x_adv).all():
            raise ValueError("returned values that are not finite")
        self.overstep.append(max(0.0, threat.distance(x_adv, x).max().item() - threat.radius))
        return _inside(threat.project(x_adv, x), x, threat)


def _inside(x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """Without the rounding that may leave a projected image outside by a few units of single precision."""
    share = (threat.radius / threat.distance(x_adv, x).clamp_min(1e-12)).clamp_max(1).to(x).view(-1, 1, 1, 1)
    return torch.where(share < 1, x + (x_adv - x) * share, x_adv)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


CONTROL = Peer("", "torch", "noise", control.noise)
"""Random images of the same size: whoever is not stronger does nothing."""

ART = "adversarial-robustness-toolbox"
PEERS: dict[str, Peer] = {
    f"{peer.module.partition('.')[0]}:{peer.name}": peer
    for peer in (
        Peer("torchattacks", "torchattacks", "pgd", torchattacks.pgd),
        Peer("torchattacks", "torchattacks", "apgd", torchattacks.apgd),
        Peer("torchattacks", "torchattacks", "square", torchattacks.square),
        Peer("torchattacks", "torchattacks", "autoattack", torchattacks.autoattack),
        Peer("foolbox", "foolbox", "pgd", foolbox.pgd),
        Peer("foolbox", "foolbox", "ddn", foolbox.ddn, ("l2",)),
        Peer("foolbox", "foolbox", "fmn", foolbox.fmn, ("linf",)),
        Peer(ART, "art.attacks.evasion", "pgd", art.pgd),
        Peer(ART, "art.attacks.evasion", "square", art.square),
        Peer("secml-torch", "secmlt.adv.evasion.pgd", "pgd", secmlt.pgd),
        Peer("pyautoattack", "pyautoattack", "apgd-ce", pyautoattack.apgd_ce),
        Peer("pyautoattack", "pyautoattack", "fab", pyautoattack.fab),
        Peer("pyautoattack", "pyautoattack", "square", pyautoattack.square),
    )
}
