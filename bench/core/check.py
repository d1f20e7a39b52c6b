"""What a check says: whether a number may be believed, in one sentence."""

from __future__ import annotations

from typing import NamedTuple

from .score import Passes


class Check(NamedTuple):
    name: str
    passed: bool
    sentence: str


class Outcome(NamedTuple):
    """The checks of a cell, and what they cost beside it."""

    checks: list[Check]
    seconds: float
    passes: Passes
