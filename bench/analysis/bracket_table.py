"""What is certified beside what an attack reached, as a table of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..cells.bracket import Bracket, brackets
from ..cells.result import Result
from ..core.threat import eps_text
from .table import Value


class BracketLine(NamedTuple):
    """A certified detector at one radius: what is certified beside what an attack reached."""

    data: str
    detector: str
    settings: str
    """Of the certificate."""
    radius: str
    clean: Value
    certified: Value
    attacked: Value
    by: str
    """The attacks; empty where not every category was attacked."""
    verdict: str
    violations: tuple[str, ...]
    """Empty unless one of both is wrong."""


TITLES = (
    "data", "detector", "certificate", "radius", "clean", "certified", "attacked", "by", "bracket",
)  # fmt: skip


def lines(results: Sequence[Result]) -> list[BracketLine]:
    """Every certificate beside the attacks on the same detector, each line once."""
    return list(dict.fromkeys(_line(bracket) for bracket in brackets(results)))


def _line(bracket: Bracket) -> BracketLine:
    ends = (bracket.certified("clean_auroc"), bracket.certified(), bracket.attacked())
    clean, certified, attacked = (Value(end, with_interval=True) for end in ends)
    return BracketLine(
        f"{bracket.data}, {bracket.scope}",
        bracket.detector,
        bracket.how or bracket.method,
        f"{bracket.norm} {eps_text(bracket.radius)}",
        clean,
        certified,
        attacked,
        "; ".join(dict.fromkeys(r.attack for r in bracket.strongest)),
        bracket.verdict,
        tuple(bracket.violations),
    )
