"""Boards and runs for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..analysis.boards import Board, boards
from ..analysis.remarks import thresholds, without_anomalies, wrong_ways
from ..analysis.submitted import TITLES, claims
from ..analysis.table import Cost, Value, columns_of, table, value_of
from ..cells.metrics import METRICS, Metric
from ..cells.result import Result
from ..core.names import shown
from .wording import SCORE_SHOWN

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text


def rich_table(board: Board) -> Table:
    """A board; LEADERBOARD.md has more of its columns."""
    count = len(board.categories)
    scope = f"mean over {count} categories" if count > 1 else board.categories[0]
    found = _table(f"{board.title} ({scope})")
    found.add_column("detector", overflow="fold")
    columns = {title: name for title, name in columns_of(board).items() if _fits(METRICS[name], board)}
    for title in columns:
        found.add_column(title.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for line in table(board, columns):
        name = f"{line.detector} (not ranked)" if line.rank is None else line.detector
        found.add_row(_text(name), *(_text(value.stacked) for value in line.values.values()))
    return found


def _fits(metric: Metric, board: Board) -> bool:
    """Whether there is room for it: of scores what has an interval, of decisions what is about them, of maps what all
    else follows."""
    if board.of_shifts:
        return (metric.interval or board.of_box) and metric.name not in ("clean_misses", "shifted_misses")
    if board.of_maps:
        return metric.headline or metric.name == "transfer_pixel_auroc"
    if board.stops_at_threshold:
        return not metric.measure.ranks and not metric.interval
    return metric.interval


class Run(NamedTuple):
    """A detector under one attack and budget: a row."""

    detector: str
    setting: Mapping[str, str]
    """Title -> text; what all rows share is said above the table."""
    clean: Value
    worst: Value
    passes: float
    """Forward and backward, per image."""
    unranked: str
    """Why it would have no rank; empty where it would."""


SUBMITTED_SHOWN = 10
WIDEST_WORD = 12  # that is never broken, however narrow the terminal


def run_table(cells: Sequence[Result]) -> Group:
    """What became of the cells of a run, one or more: a row per detector, attack and budget, means over the categories
    that were run, and below it why a detector would have no rank."""
    from rich.console import Group

    runs = [run for board in boards(cells) for run in _runs(board)]
    shared = [column for column, text in runs[0].setting.items() if all(run.setting[column] == text for run in runs)]
    apart = [column for column in runs[0].setting if column not in shared]
    marks = {why: f"({i})" for i, why in enumerate(dict.fromkeys(run.unranked for run in runs if run.unranked), 1)}
    rows = [
        [" ".join(filter(None, (run.detector, marks.get(run.unranked)))), *(run.setting[column] for column in apart)]
        for run in runs
    ]
    found = _table()
    for title, texts in zip(("detector", *apart), zip(*rows, strict=True), strict=True):
        widest = max(len(word) for text in texts for word in text.split())
        found.add_column(title, overflow="fold", min_width=min(widest, WIDEST_WORD))
    for title in ("clean", cells[0].claim.replace("_", " "), "passes"):
        found.add_column(title, justify="right", no_wrap=True)
    for run, row in zip(runs, rows, strict=True):
        found.add_row(*map(_text, (*row, run.clean.text, run.worst.text, f"{run.passes:.0f}")))
    above = _text(", ".join(filter(None, (runs[0].setting[column] for column in shared))), "table.title")
    below = [*(f"{mark} not ranked: {why}" for why, mark in marks.items()), *wrong_ways(cells)]
    below += without_anomalies(cells)
    below += thresholds(cells) if cells[0].stops_at_threshold or cells[0].normal_only else []
    return Group(above, found, *map(_text, below))


def _runs(board: Board) -> Iterator[Run]:
    spec, score = board.cells[0].spec, board.score_name
    for name, cells in board.entries:
        setting = {
            "data": f"{spec.bed}, {spec.image_size} px",
            "attack": board.cells[0].attack,
            "eps": "" if board.of_shifts else f"{spec.norm} {spec.eps}",
            "on": cells[0].category if len(cells) == 1 else f"mean of {len(cells)}",
            "metric": "acc." if score == "accuracy" else SCORE_SHOWN[score],
        }
        clean, worst = value_of(cells, f"clean_{score}"), value_of(cells, board.ranked_by)
        yield Run(name, setting, clean, worst, Cost.of(cells).passes, "; ".join(board.unranked.get(name, ())))


def _table(title: str | None = None) -> Table:
    from rich import box
    from rich.table import Table

    shown = None if title is None else _text(title, "table.title")
    return Table(title=shown, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def submitted_table(results: Sequence[Result]) -> Table:
    """What nobody has reproduced here."""
    found = _table("submitted, not reproduced: claims")
    for title in TITLES:
        found.add_column(title, overflow="fold")
    for claim in claims(results)[:SUBMITTED_SHOWN]:
        found.add_row(*map(_text, claim))
    return found


def _text(text: str, style: str = "") -> Text:
    """As it is: Rich would read a string as markup, and a terminal more than that."""
    from rich.text import Text

    return Text("\n".join(map(shown, text.split("\n"))), style)
