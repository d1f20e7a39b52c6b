"""Which cells a report takes: `detector=advrad,eps=2/255`."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Sequence

from ..core.threat import parse_eps
from ..errors import UserError, unknown
from .result import Result, with_settings
from .schema import Record

FILTERS = ("dataset", "category", "detector", "attack", "norm", "eps", "targets", "goal", "kind", "seed", "image_size")
NEXT_FILTER = re.compile(r",(?![^()]*\))")  # not within the parameters of a detector


class Filters:
    """`detector=advrad,detector=patchcore,eps=2/255`: several values of one key are alternatives, of several keys all
    must fit; `*` stands for anything. A detector is named with or without its parameters.

    Raises UserError for a key that is not known or has no value.
    """

    def __init__(self, texts: str | Sequence[str]):
        self.wanted: dict[str, list[str]] = {}
        texts = [texts] if isinstance(texts, str) else texts
        for part in (part.strip() for text in texts for part in NEXT_FILTER.split(text)):
            key, given, value = part.partition("=")
            if key not in FILTERS:
                raise unknown("--filter", key, FILTERS)
            if not given or not value:
                raise UserError(f"--filter {part}: a value is expected, for example --filter {key}=...")
            if key == "eps" and "*" not in value:
                parse_eps(value, option="--filter eps")
            self.wanted.setdefault(key, []).append(value)

    def keep(self, record: Record) -> bool:
        """Whether every key has a value that fits the cell."""
        return all(any(self._fits(record, key, value) for value in values) for key, values in self.wanted.items())

    @staticmethod
    def _fits(record: Record, key: str, value: str) -> bool:
        spec = record.spec
        if key == "eps" and "*" not in value:
            return math.isclose(spec.threat.eps, parse_eps(value), rel_tol=1e-9)
        names = [_value(record, key)]
        if key == "detector":
            names.append(with_settings(spec.detector, spec.detector_parameters))
        return any(name == value or fnmatch.fnmatchcase(name, value) for name in names)

    def kept_nothing(self, results: Sequence[Result]) -> UserError:
        """What there is instead, of the first key that nothing fits."""
        for key, values in self.wanted.items():
            if not any(self._fits(r.record, key, value) for r in results for value in values):
                there = sorted({_value(r.record, key) for r in results})
                shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
                return UserError(f"--filter {key}={','.join(values)} fits no finished cell; there are: {shown}")
        return UserError("--filter: each of them fits a cell, but no cell fits all of them")


def _value(record: Record, key: str) -> str:
    """What a cell has of one of FILTERS."""
    return record.kind if key == "kind" else str(getattr(record.spec, key))
