"""Which test images a limit leaves.

The choice rests on labels, ids and a seed of the protocol: not on the order of the files, and not on the seed of a run,
so that all cells of a board have the same images. It is nested: a larger limit adds images and takes none away.

Classes share the limit in proportion, after one image of each; so do the kinds of defect within a class, after one
image of each kind. (The kind is the folder of the id: `scratch` of `scratch/03`.) Both go by the divisor method of
Webster and Sainte-Lague, by which no larger limit takes a seat away. Within a kind the images lie in the order of their
ids, where neighbours are often alike: one object photographed in turn, one grade of a defect. The places that are taken
in that order follow the golden ratio from a seeded start, through all kinds of a class together, and so are spread at
any limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from .rng import first_place

GOLDEN = (5**0.5 - 1) / 2
Stratum = TypeVar("Stratum", int, str)


def stratified(labels: Mapping[str, int], limit: int) -> set[str]:
    """`limit` of the ids, which have these labels; all of them if there are not so many. Both classes, if there
    are two, from 2 on."""
    classes = {label: _Class(label, [name for name, own in labels.items() if own == label]) for label in (0, 1)}
    sizes = {label: len(own.ids) for label, own in classes.items()}
    chosen: dict[int, set[str]] = {label: set() for label in classes}
    for _ in range(min(limit, len(labels))):
        label = _next_seat(sizes, {label: len(own) for label, own in chosen.items()})
        chosen[label].add(classes[label].next_id())
    return chosen[0] | chosen[1]


def evenly_spread(labels: Mapping[str, int], limit: int) -> set[str]:
    """The choice of protocol 1: in proportion, at an even stride through the ids of each class as they come."""
    by_label = [[name for name, own in labels.items() if own == label] for label in (0, 1)]
    anomalous = min(max(round(limit * len(by_label[1]) / len(labels)), 1), limit - 1) if by_label[1] else 0
    chosen: set[str] = set()
    for ids, count in zip(by_label, (limit - anomalous, anomalous), strict=True):
        count = min(count, len(ids))
        chosen |= {ids[i * len(ids) // count] for i in range(count)}
    return chosen


class _Class:
    """The images of one label, given out one at a time."""

    def __init__(self, label: int, ids: Sequence[str]):
        self.ids, self.given = sorted(ids), 0
        self.left: dict[str, list[str | None]] = {}
        """Kind -> its ids in order, None where one was given out."""
        for name in self.ids:
            self.left.setdefault(name.rpartition("/")[0], []).append(name)
        self.start = first_place(label)

    def next_id(self) -> str:
        sizes = {kind: len(own) for kind, own in self.left.items()}
        kind = _next_seat(sizes, {kind: own.count(None) for kind, own in self.left.items()})
        own = self.left[kind]
        place = int((self.start + self.given * GOLDEN) % 1 * len(own))
        self.given += 1
        while (found := own[place]) is None:  # taken: the next one, from the last to the first
            place = (place + 1) % len(own)
        own[place] = None
        return found


def _next_seat(sizes: Mapping[Stratum, int], taken: Mapping[Stratum, int]) -> Stratum:
    """Everybody's first before anybody's second; of equal claims that of the first."""
    some = [one for one in sizes if taken[one] < sizes[one]]
    return max(some, key=lambda one: (taken[one] == 0, sizes[one] / (2 * taken[one] + 1)))
