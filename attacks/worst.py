"""The worst of several attacks, image by image: what an adversary reaches who has them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench import Attack, Attacked, Context, Rng, Score, ThreatModel, UserError
from bench.core.norms import NORMS
from bench.plugins.lookup import make_attack

from ._ascent import EOT_DRAWS, per_image
from ._spelled import spelled


@dataclass(frozen=True)
class Worst(Attack):
    """Runs every attack of a list; the image with the worst score counts, and each attack has its own column.

    attacks: names, each with parameters if it should have other than its own: `apgd,square[queries=500]`.
    """

    norms = NORMS
    takes_starts = True

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
        object.__setattr__(self, "needs_gradient", any(attack.needs_gradient for attack in self._made.values()))
        self._ask_all()

    def prepare(self, context: Context) -> None:
        """Each of them."""
        prepared(self._made, context, self.sources)
        self._ask_all()

    def _ask_all(self) -> None:
        object.__setattr__(self, "parts", parts_of(self._made))
        numbers = (number for attack in self._made.values() for number in attack.numbers)
        object.__setattr__(self, "numbers", tuple(numbers))

    def __call__(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, starts: Tensor | None = None
    ) -> Attacked:
        """Candidates (B, 3, H, W) by the name of their attack."""
        return one_after_another(self._made, score, x, sign, threat, rng, starts)


def parts_of(attacks: Mapping[str, Attack]) -> tuple[str, ...]:
    """The names of their candidates: an attack's own, and before it that of an attack with several."""
    found = []
    for name, attack in attacks.items():
        found += [f"{name}: {part}" for part in attack.parts] if len(attack.parts) > 1 else [name]
    return tuple(found)


def prepared(attacks: Mapping[str, Attack], context: Context, sources: dict[str, Any]) -> None:
    """Each attack meets the context; what transfer attacks come from goes into `sources`."""
    for attack in attacks.values():
        attack.prepare(context)
        sources |= attack.sources


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
        if threat.norm not in attack.norms:
            raise UserError(f"attack {name} has no norm {threat.norm}; it has {', '.join(attack.norms)}")
        start = best if name in refining else starts
        more = {"starts": start} if start is not None and attack.takes_starts else {}
        found = attack(score, x.clone(), sign, threat, rng.child(name), **more)
        attacked = found if isinstance(found, Attacked) else Attacked({name: found})
        numbers |= attacked.columns
        for part, image in attacked.images.items():
            images[name if len(attacked.images) == 1 else f"{name}: {part}"] = image.detach()
            if refining:  # of a randomized detector under fresh draws, the same for all
                reached = sign * score.mean(image.detach(), rng.child("better"), draws)
                best = torch.where(per_image(reached > value), image.detach(), best)
                value = torch.maximum(reached, value)
    return Attacked(images, numbers)
