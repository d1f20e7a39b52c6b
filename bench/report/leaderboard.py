"""LEADERBOARD.md: what the boards say, for GitHub."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..analysis import bracket_table
from ..analysis.boards import Board, boards
from ..analysis.bracket_table import BracketLine
from ..analysis.overview import Overview, overviews
from ..analysis.remarks import differing, over_seeds, thresholds
from ..analysis.submitted import SHOWN, TITLES, claims
from ..analysis.table import COSTS_SHOWN, Line, Value, by_category, by_kind, by_part, columns_of, table
from ..cells.result import Result
from .text import markdown_text as _plain
from .wording import (
    BETWEEN,
    BOX,
    FOOTNOTES,
    HOW_TO_ATTACK,
    HOW_TO_READ,
    IMPOSSIBLE,
    REPORTED,
    SCORE_SHOWN,
    SEEDS,
    SUBMITTED,
)

WIDTH = 120  # of lines of prose
CELLS_WITH_EVERY_CHECK = 60
"""Of more, only failed checks are in LEADERBOARD.md, which GitHub cuts at 512 KiB; the page has every sentence."""


def markdown(
    results: Sequence[Result],
    notes: Sequence[str],
    plots: Sequence[Path] = (),
    sort: str = "",
    apart: Sequence[Result] = (),
) -> str:
    """LEADERBOARD.md; `plots` lie beside it. sort: see `boards`. apart: what was submitted and not reproduced."""
    parts = ["# Leaderboard", "", HOW_TO_READ]
    for overview in overviews(results, sort):
        parts += _overview(overview)
    parts += _brackets(results)
    for board in boards(results, sort):
        parts += _board(board, every_check=len(results) <= CELLS_WITH_EVERY_CHECK)
    parts += _seeds(results)
    parts += [f"![{plot.stem}]({plot.name})\n" for plot in plots]
    parts += _submitted(apart)
    parts += [f"- {_plain(note)}" for note in notes]
    return "\n".join(parts).rstrip() + "\n"


def _overview(overview: Overview) -> list[str]:
    lines = [f"## {_plain(overview.title)}", "", _numbers(list(overview.columns), overview.lines), ""]
    notes = [f"<sup>{letter}</sup> {_plain(text)}" for letter, text in overview.footnotes.items()]
    notes += [_plain(note) for note in overview.notes]
    lines += [f"- {note}" for note in notes] + [""] * bool(notes)
    if len(overview.reported):
        rows = [[_plain(text) for text in row] for row in overview.reported.values]
        lines += _folded(REPORTED, _table(list(overview.reported.columns), rows))
    return lines


def _numbers(titles: Sequence[str], lines: Iterable[Line]) -> str:
    """A table of detectors, with what they cost."""
    rows = [
        [line.place, _plain(line.detector), *(_number(line.values[title]) for title in titles), *line.costs.values()]
        for line in lines
    ]
    return _table(["rank", "detector", *titles, *COSTS_SHOWN], rows)


def _number(value: Value) -> str:
    """With what stands below it in small type."""
    text = f"**{value.text}**" if value.best else value.text
    text += f"<br><sub>{value.below}</sub>" if value.below else ""
    return text + (f" <sup>{value.mark}</sup>" if value.mark else "")


def _board(board: Board, every_check: bool) -> list[str]:
    """The section of one attack and budget."""
    count, columns = len(board.categories), columns_of(board)
    scope = f"Mean over {count} categories" if count > 1 else f"Category {board.categories[0]}"
    lines = [f"### {_plain(board.title)}", "", f"{_plain(scope)}.", ""]
    lines += [_numbers(list(columns), table(board, columns)), ""]
    lines += _by_category(board) if count > 1 else []
    footnotes = [why for metric, why in FOOTNOTES.items() if metric in columns.values()] + [BOX] * board.of_box
    lines += [f"- {why}" for why in footnotes] + [""] * bool(footnotes)
    lines += _by_part(board)
    lines += _by_kind(board)
    warnings = sorted({f"{name}: {w}" for name, cells in board.entries for r in cells for w in r.warnings})
    lines += [f"- {_plain(warning)}" for warning in warnings] + [""] * bool(warnings)
    lines += [f"- {_plain(sentence)}" for sentence in [*thresholds(board.cells), *differing(board.cells)]]
    lines += [f"- not ranked: {_plain(name)}: {_plain('; '.join(why))}" for name, why in board.unranked.items()]
    return [*lines, "", *_checks(board, every_check)]


def _seeds(results: Sequence[Result]) -> list[str]:
    """The section on what differs with the seed alone; empty without two of any."""
    said = over_seeds(results)
    return ["## Over seeds", "", SEEDS, "", *(f"- {_plain(sentence)}" for sentence in said), ""] if said else []


def _by_category(board: Board) -> list[str]:
    what = board.score_name
    what = f"{SCORE_SHOWN[what]} per category, clean → {board.claim.replace('_', ' ')}"
    rows = [
        [_plain(name), *(" → ".join(value.text for value in values) for values in by_category.values())]
        for name, by_category in by_category(board).items()
    ]
    return _folded(what, _table(["detector", *board.categories], rows))


def _by_part(board: Board) -> list[str]:
    """Empty of an attack that is one."""
    found = by_part(board)
    if found is None:
        return []
    rows = [[_plain(name), *(value.text for value in values)] for name, values in found.lines.items()]
    return ["Robust AUROC by part of the attack:", "", _table(["detector", *found.parts, "worst of all"], rows), ""]


def _by_kind(board: Board) -> list[str]:
    """Empty unless it is of shifts."""
    lines = []
    for metric, title in (("auroc", "AUROC"), ("false_alarms", "False alarms"), ("misses", "Misses")):
        if (found := by_kind(board, metric)) is not None:
            rows = [[_plain(name), *(f"{value:.3f}" for value in values)] for name, values in found.lines.items()]
            lines += [f"{title} by kind, mean over severities:", "", _table(["detector", *found.kinds], rows), ""]
    return lines


def _folded(what: str, content: str) -> list[str]:
    """Shown to whoever opens it."""
    return [f"<details><summary>{what}</summary>", "", content, "", "</details>", ""]


def _checks(board: Board, every: bool) -> list[str]:
    """How the checks before and after the attacks went: the sentences of those that failed, or every one, with the
    categories."""
    lines = ["<details><summary>Checks of these cells, before and after the attack (docs/checks.md)</summary>", ""]
    for name, results in board.entries:
        said: dict[tuple[bool, str], list[str]] = {}
        for r in results:
            for check in r.checks:
                if every or not check.passed:
                    said.setdefault((check.passed, f"{check.name}: {check.sentence}"), []).append(r.category)
        count, broken = (
            sum(len(r.checks) for r in results),
            sum(len(where) for (ok, _), where in said.items() if not ok),
        )
        lines.append(f"- **{_plain(name)}**: " + (f"{broken} of {count} failed" if broken else f"all {count} passed"))
        for (passed, sentence), where in said.items():
            scope = "" if len(where) == len(results) else f" ({', '.join(where)})"
            lines.append(f"  - {'pass' if passed else '**FAIL**'} {_plain(sentence + scope)}")
    return [*lines, "", "</details>", ""]


def _submitted(apart: Sequence[Result]) -> list[str]:
    """The section of what nobody has reproduced; empty if there is nothing."""
    if not apart:
        return []
    rows = [list(map(_plain, claim)) for claim in claims(apart)]
    more = [f"and {len(rows) - SHOWN} more, in submitted.csv", ""] * (len(rows) > SHOWN)
    lines = ["## Submitted, not reproduced", "", textwrap.fill(SUBMITTED, WIDTH), ""]
    return [*lines, _table(TITLES, rows[:SHOWN]), "", *more]


def _brackets(results: Sequence[Result]) -> list[str]:
    """The section that sets certificates beside attacks; empty without certificates."""
    rows = [_bracket(line) for line in bracket_table.lines(results)]
    if not rows:
        return []
    how_to_read = textwrap.fill(f"{BETWEEN} {HOW_TO_ATTACK} {IMPOSSIBLE}", WIDTH) + "\n"
    return ["## Certified and attacked", "", how_to_read, _table(bracket_table.TITLES, rows), ""]


def _bracket(line: BracketLine) -> list[str]:
    numbers = map(_number, (line.clean, line.certified, line.attacked))
    verdict = f"**VIOLATED**: {_plain('; '.join(line.violations))}" if line.violations else line.verdict
    return [*map(_plain, line[:4]), *numbers, _plain(line.by), verdict]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(map(_plain, titles)), ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
