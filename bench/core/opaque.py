"""The noise source that a detector is given: it draws what the benchmark draws, and says nothing else.

An id may hold the label (`good/000`), a purpose tells an attack from the evaluation, and a position tells how often an
image was scored: from any of them a detector could make a score that looks robust and is not one of the image.

Python keeps nothing from code that runs in the same process and looks for it (stack frames, the garbage collector, the
modules of the benchmark); and whoever knows this package can draw the streams of guessed names and compare. What is
gained that way is gone in another process under other noise: see the checks `fresh process` and `followed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from torch import Tensor

from .rng import Rng

UNSAID = "a detector is not told which image it scores, what for, or how often"


class Opaque(Rng):
    """Draws from another source: `normal`, `uniform`, `rows` and `child`, and no attribute."""

    __slots__ = ()

    def __init__(self, source: Rng):
        _sources[self] = source

    def normal(self, like: Tensor) -> Tensor:
        return _sources[self].normal(like)

    def uniform(self, like: Tensor) -> Tensor:
        return _sources[self].uniform(like)

    def rows(self, keep: Sequence[int]) -> Rng:
        return Opaque(_sources[self].rows(keep))

    def child(self, *name: object) -> Rng:
        return Opaque(_sources[self].child(*name))

    def known(self) -> Rng:
        return Opaque(_sources[self].known())

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"the noise source has no {name}: {UNSAID}")

    def __repr__(self) -> str:
        return "<noise>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"the noise source is neither copied nor pickled: {UNSAID}")


_sources: WeakKeyDictionary[Opaque, Rng] = WeakKeyDictionary()
"""Apart from the objects that are handed out, so that nothing leads from one of them to what it draws from."""


def opaque(source: Rng | None) -> Rng | None:
    """What a detector may have of it."""
    return source if source is None or isinstance(source, Opaque) else Opaque(source)
