"""A detector's card: what is known of it, in plain words and no further than its intervals go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..analysis.overview import Overview
from ..analysis.table import Line, Value
from ..stats.intervals import Estimate

CLEAN, NORMAL_ONLY, ANOMALOUS_ONLY = "clean AUROC", "normal only", "anomalous only"
ROBUST, CERTIFIED = "robust AUROC ", "certified AUROC "


class Card(NamedTuple):
    """One board, and what it says of a detector."""

    board: str
    sentences: Sequence[str]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def cards(boards: Sequence[Overview]) -> dict[str, list[Card]]:
    """Detector -> a card for every data set that it was tested on."""
    found: dict[str, list[Card]] = {}
    for board in boards:
        lines = list(board.lines)
        ranked = sum(line.rank is not None for line in lines)
        for line in lines:
            found.setdefault(line.detector, []).append(Card(board.title, _sentences(board, line, ranked)))
    return found


def _sentences(board: Overview, line: Line, ranked: int) -> list[str]:
    known = {title: value for title, value in line.values.items() if value.estimate is not None}
    parts = [_attacked(known), _sides(known), _certified(known), _place(board, line, ranked)]
    return [part for part in parts if part]


def _attacked(known: Mapping[str, Value]) -> str:
    """Clean, and what is left in every ball."""
    left = _by_ball(known, ROBUST)
    clean = f"On clean images its AUROC is {_shown(known[CLEAN])}" if CLEAN in known else ""
    if clean and left:
        return f"{clean}; attacked, it is at most {', '.join(left)}."
    return f"{clean}." * bool(clean)


def _sides(known: Mapping[str, Value]) -> str:
    """Which mistake an adversary forces more easily, where the intervals are apart."""
    normal, anomalous = (known[side].estimate if side in known else None for side in (NORMAL_ONLY, ANOMALOUS_ONLY))
    if normal is None or anomalous is None:
        return ""
    if _below(normal, anomalous):
        return "False alarms are easier to force than misses."
    if _below(anomalous, normal):
        return "Misses are easier to force than false alarms."
    return "Neither false alarms nor misses are clearly easier to force."


def _below(one: Estimate, other: Estimate) -> bool:
    return one.high < other.low


def _certified(known: Mapping[str, Value]) -> str:
    proved = [
        f"{_shown(value)} in {title.removeprefix(CERTIFIED)}" for title, value in known.items() if CERTIFIED in title
    ]
    return f"Whatever the attack, it is at least {', '.join(proved)}." * bool(proved)


def _by_ball(known: Mapping[str, Value], metric: str) -> list[str]:
    return [f"{_shown(value)} in {title.removeprefix(metric)}" for title, value in known.items() if metric in title]


def _place(board: Overview, line: Line, ranked: int) -> str:
    if line.rank is not None:
        return f"By {board.main} it is number {line.rank} of {ranked}." * (ranked > 1)
    return f"It has no rank: {'; '.join(board.unranked.get(line.detector, ['it lacks the column that ranks']))}."


def _shown(value: Value) -> str:
    return f"{value.whole} ({value.scope})" if value.scope else value.whole
