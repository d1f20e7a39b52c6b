"""The worst of several attacks, image by image: what an adversary reaches who has them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench import Attack, Attacked, Context, Rng, Score, ThreatModel, UserError
from bench.core.attack import takes
from bench.plugins.lookup import make_attack

from ._ascent import EOT_DRAWS, per_image
from ._spelled import spelled


@dataclass(frozen=True)
class Worst:
    """Runs every attack of a list; the image with the worst score counts, and each attack has its own column.

    attacks: names, each with parameters if it should have other than its own: `apgd,square[queries=500]`.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")

    attacks: tuple[str, ...] = ("apgd", "square")

    sources: dict[str, Any] = field(default_factory=dict, init=False, compare=False)
    """Of transfer attacks, for the record."""
    _made: dict[str, Attack] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("attacks must name at least one attack: attacks=apgd,square")
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError("attacks names one of them twice")
        for text in self.attacks:
            name, given = spelled(text)
            try:
                self._made[text] = make_attack(name, given)[2]
            except UserError as error:
                raise ValueError(f"attacks: {error}") from None

    @property
    def needs_gradient(self) -> bool:
        """Whether one of them does."""
        return any(getattr(attack, "needs_gradient", True) for attack in self._made.values())

    @property
    def parts(self) -> tuple[str, ...]:
        return parts_of(self._made)

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(number for attack in self._made.values() for number in getattr(attack, "numbers", ()))

    def prepare(self, context: Context) -> None:
        """Each of them."""
        prepared(self._made, context, self.sources)

    def __call__(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None = None
    ) -> Attacked:
        """Candidates (B, 3, H, W) by the name of their attack."""
        return one_after_another(self._made, score, x, sign, threat, rng, starts)


def parts_of(attacks: Mapping[str, Attack]) -> tuple[str, ...]:
    """The names of their candidates: an attack's own, and before it that of an attack with several."""
    found = []
    for name, attack in attacks.items():
        several = getattr(attack, "parts", ())
        found += [f"{name}: {part}" for part in several] if len(several) > 1 else [name]
    return tuple(found)


def prepared(attacks: Mapping[str, Attack], context: Context, sources: dict[str, Any]) -> None:
    """Each attack that wants it meets the context; what transfer attacks come from goes into `sources`."""
    for attack in attacks.values():
        prepare = getattr(attack, "prepare", None)
        if prepare is not None:
            prepare(context)
        sources |= getattr(attack, "sources", {})


def one_after_another(
    attacks: Mapping[str, Attack],
    score: Score,
    x: Tensor,
    sign: Tensor,
    threat: ThreatModel,
    rng: Rng,
    starts: Tensor | None,
    refining: Collection[str] = (),
) -> Attacked:
    """The candidate of each attack. Those named in `refining` start from the best image so far, the others, if they
    can, from `starts`."""
    images: dict[str, Tensor] = {}
    numbers: dict[str, Tensor] = {}
    draws = EOT_DRAWS if score.randomized else 1
    best = x if starts is None else starts
    value = sign * score.mean(best, rng.child("better"), draws) if refining else sign
    for name, attack in attacks.items():
        norms = getattr(attack, "norms", ())
        if threat.norm not in norms:
            raise UserError(f"attack {name} has no norm {threat.norm}; it has {', '.join(norms)}")
        start = best if name in refining else starts
        kwargs = {"starts": start} if start is not None and takes(attack, "starts") else {}
        found = attack(score, x.clone(), sign, threat, rng.child(name), **kwargs)
        attacked = found if isinstance(found, Attacked) else Attacked({name: found})
        numbers |= attacked.columns
        for part, image in attacked.images.items():
            images[name if len(attacked.images) == 1 else f"{name}: {part}"] = image.detach()
            if refining:  # of a randomized detector under fresh draws, the same for all
                reached = sign * score.mean(image.detach(), rng.child("better"), draws)
                best = torch.where(per_image(reached > value), image.detach(), best)
                value = torch.maximum(reached, value)
    return Attacked(images, numbers)
