"""LEADERBOARD.md: what the boards say, for GitHub."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..analysis.boards import (
    BOLD,
    COSTS_SHOWN,
    NOT_RANKED,
    Board,
    boards,
    by_category,
    by_part,
    columns_of,
    further,
    table,
)
from ..analysis.compare import not_worse
from ..analysis.overview import Overview, Value, differing, overviews
from ..cells.bracket import brackets
from ..cells.result import Result
from .wording import FOOTNOTES, HOW_TO_READ, HOW_TO_READ_BRACKETS

CELLS_WITH_EVERY_CHECK = 60
"""Of more, only failed checks are in LEADERBOARD.md, which GitHub cuts at 512 KiB; the page has every sentence."""
INTERVAL = r" (\[-?[\d.a-z]+, -?[\d.a-z]+\])"


def markdown(results: Sequence[Result], notes: Sequence[str], plots: Sequence[Path] = (), sort: str = "") -> str:
    """LEADERBOARD.md; `plots` lie beside it. sort: see `boards`."""
    parts = ["# Leaderboard", "", HOW_TO_READ]
    for overview in overviews(results, sort):
        parts += _overview(overview)
    parts += _brackets(results)
    for board in boards(results, sort):
        parts += _board(board, every_check=len(results) <= CELLS_WITH_EVERY_CHECK)
    parts += [f"![{plot.stem}]({plot.name})\n" for plot in plots]
    parts += [f"- {_plain(note)}" for note in notes]
    return "\n".join(parts).rstrip() + "\n"


def _overview(overview: Overview) -> list[str]:
    frame = pd.DataFrame(
        [
            {"rank": line.rank, "detector": _plain(line.detector)}
            | {title: _number(value) for title, value in line.values.items()}
            | {title: line.cost.get(title, NOT_RANKED) for title in COSTS_SHOWN}
            for line in overview.lines
        ]
    )
    lines = [f"## {_plain(overview.title)}", "", _table(frame), ""]
    notes = [f"<sup>{letter}</sup> {_plain(text)}" for letter, text in overview.footnotes.items()]
    notes += [_plain(note) for note in overview.notes]
    lines += [f"- {note}" for note in notes] + [""] * bool(notes)
    if len(overview.reported):
        lines += [
            "<details><summary>Reported: published figures on this data. Other attacks, samples and sizes: beside "
            "ours, never to be mixed with them</summary>",
            "",
            _table(overview.reported.map(_plain)),
            "",
            "</details>",
            "",
        ]
    return lines


def _number(value: Value) -> str:
    text = f"**{value.text}**" if value.best else value.text
    text += f"<br><sub>{value.interval}</sub>" if value.interval else ""
    return text + (f" <sup>{value.mark}</sup>" if value.mark else "")


def _plain(text: object) -> str:
    """What somebody else wrote, so that it is text on one line and nothing else."""
    return html.escape(" ".join(str(text).split()), quote=False)


def _board(board: Board, every_check: bool) -> list[str]:
    """The section of one attack and budget."""
    count = len(board.categories)
    scope = f"Mean over {count} categories" if count > 1 else f"Category {board.categories[0]}"
    lines = [f"### {_plain(board.title)}", "", f"{_plain(scope)}.", "", _table(_small(_bold(board))), ""]
    if count > 1:
        what = board.ranked_by.rpartition("_")[2]
        what = f"{what.upper() if what == 'auroc' else what.capitalize()} per category, clean → {board.claim}"
        lines += [
            f"<details><summary>{what}</summary>",
            "",
            _table(by_category(board).map(_plain)),
            "",
            "</details>",
            "",
        ]
    titles = {"certified AUROC"} if board.claim == "certified" else further(board)
    footnotes = [why for title, why in FOOTNOTES.items() if title in titles]
    lines += [f"- {why}" for why in footnotes] + [""] * bool(footnotes)
    if len(parts := by_part(board)):
        lines += ["Robust AUROC by part of the attack:", "", _table(parts.map(_plain)), ""]
    warnings = sorted({f"{name}: {w}" for name, cells in board.entries for r in cells for w in r.record["warnings"]})
    lines += [f"- {_plain(warning)}" for warning in warnings] + [""] * bool(warnings)
    lines += [f"- {_plain(sentence)}" for sentence in differing(board.cells)]
    lines += [f"- not ranked: {_plain(name)}: {_plain('; '.join(why))}" for name, why in board.unranked.items()]
    return [*lines, "", *_checks(board, every_check)]


def _bold(board: Board) -> pd.DataFrame:
    """The table, in bold the best of some columns and what is not significantly worse, of those that are ranked."""
    frame = table(board).map(_plain)
    ranked = {name: cells for name, cells in board.entries if name in board.ranks}
    for title, metric in columns_of(board).items():
        best = not_worse(ranked, metric) if len(frame) > 1 and title in BOLD else set()
        frame[title] = [
            re.sub(r"^([\d.]+)", r"**\1**", cell) if name in best else cell
            for (name, _), cell in zip(board.entries, frame[title], strict=True)
        ]
    return frame


def _small(frame: pd.DataFrame) -> pd.DataFrame:
    """Intervals in small type, below their value."""
    frame = frame.copy()
    for column in frame.columns.drop("detector"):
        frame[column] = frame[column].str.replace(INTERVAL, r"<br><sub>\1</sub>", regex=True)
    return frame


def _checks(board: Board, every: bool) -> list[str]:
    """How the checks before and after the attacks went: the sentences of those that failed, or every one, with the
    categories."""
    lines = ["<details><summary>Checks of these cells, before and after the attack (docs/checks.md)</summary>", ""]
    for name, results in board.entries:
        said: dict[tuple[bool, str], list[str]] = {}
        for r in results:
            for check in r.checks:
                if every or not check["passed"]:
                    said.setdefault((check["passed"], f"{check['name']}: {check['sentence']}"), []).append(r.category)
        count, broken = (
            sum(len(r.checks) for r in results),
            sum(len(where) for (ok, _), where in said.items() if not ok),
        )
        lines.append(f"- **{_plain(name)}**: " + (f"{broken} of {count} failed" if broken else f"all {count} passed"))
        for (passed, sentence), where in said.items():
            scope = "" if len(where) == len(results) else f" ({', '.join(where)})"
            lines.append(f"  - {'pass' if passed else '**FAIL**'} {_plain(sentence + scope)}")
    return [*lines, "", "</details>", ""]


def _brackets(results: Sequence[Result]) -> list[str]:
    """The section that sets certificates beside attacks; empty without certificates."""
    lines = [bracket.line for bracket in brackets(results)]
    if not lines:
        return []
    frame = pd.DataFrame(lines).drop_duplicates().map(_plain)
    return ["## Certified and attacked", "", HOW_TO_READ_BRACKETS, _table(_small(frame)), ""]


def _table(frame: pd.DataFrame) -> str:
    rows = [list(map(_plain, frame.columns)), ["---"] * len(frame.columns), *frame.values.tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
