"""What a cell of a submission may hold, so that no file of a stranger takes a report down, or its reader in.

A report computes metrics, draws and prints. A cell that would make it fail, or fill a terminal with something else than
text, is left out and named before any of that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..core.names import is_plain, shown
from ..errors import UserError
from .result import Result
from .spec import CERTIFICATES, SHIFT, SMOOTHING

CELLS = 2000
ROWS = 50_000
"""Of one cell."""
IMAGES = 500_000
"""Over all cells of a submission: an AUROC of a million takes half a second, and a cell has a dozen."""
COLUMNS = 200
LONGEST_TEXT = 4000  # characters
TEXTS = 20_000
LARGEST_SCORE = 3.5e38
"""Scores are computed in single precision, which ends there."""


class Allowance:
    """What is left of what one submission may cost."""

    def __init__(self) -> None:
        self.cells, self.images = CELLS, IMAGES

    def take(self, result: Result) -> None:
        """UserError where a cell is more than what is left."""
        count = len(result.table.ids)
        if count > ROWS or len(result.table.columns) > COLUMNS:
            raise UserError(f"it has {count:,} rows of {len(result.table.columns)} columns; at most {ROWS:,} are read")
        if self.cells < 1 or count > self.images:
            raise UserError(f"the submission holds more than {CELLS:,} cells, or {IMAGES:,} images over all of them")
        self.cells, self.images = self.cells - 1, self.images - count


def refuse_unreadable(result: Result) -> None:
    """Raises whatever makes the cell one that a report cannot show: a UserError, or what it would fail with itself."""
    for text in _texts(result.record.as_json(), result.table.ids):
        if len(text) > LONGEST_TEXT:
            raise UserError(f"a text of {len(text):,} characters in run.json")
        if not is_plain(text):
            raise UserError(f"{shown(text)[:80]!r} holds a control or bidirectional character")
    _refuse_numbers(result)
    result.spec.threat.refuse_longer(result.spec.image_size, "eps")
    for of in (result.title, result.name, result.warnings, result.unranked, float(result.eps)):
        str(of)
    for name in result.metrics:
        result.metrics.estimate(name)


def _texts(record: dict[str, Any], ids: tuple[str, ...]) -> Iterator[str]:
    """Every text of a record, its keys too; UserError where there are too many."""
    left, count = [record, list(ids)], 0
    while left:
        value: Any = left.pop()
        if isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            left += value
        elif isinstance(value, str):
            yield value
        count += 1
        if count > TEXTS + len(ids):
            raise UserError(f"run.json holds more than {TEXTS:,} values")


def _refuse_numbers(result: Result) -> None:
    """Numbers that are none, or are beyond what a score can be; settings of a certificate that no certificate has."""
    for name, values in result.table.columns.items():
        finite = values[~(values != values) & (abs(values) != math.inf)]
        if len(finite) and float(abs(finite).max()) > LARGEST_SCORE:
            raise UserError(f"column {name} holds {float(abs(finite).max()):.3g}; scores are in single precision")
    record = result.record
    if abs(record.threshold.value) > LARGEST_SCORE:
        raise UserError(f"the threshold is {record.threshold.value:.3g}")
    if (record.kind == "certificate") != (record.spec.attack in CERTIFICATES) or (
        (record.kind == "shift") != (record.spec.attack == SHIFT)
    ):
        raise UserError(f"{record.spec.attack} is not what a cell of kind {record.kind} holds")
    if record.spec.attack != SMOOTHING:
        return
    settings = record.attack.parameters
    outer = record.spec.detector.partition("+")[0]
    known = {"sigma": record.detector.parameters.get(f"{outer}.sigma"), **settings}
    for name in ("sigma", "samples", "alpha"):
        value = known.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
            raise UserError(f"{name} is {str(value)[:40]}; a certificate has a number above 0")
