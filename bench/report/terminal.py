"""Boards and runs for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..analysis.boards import Board, boards
from ..analysis.table import Cost, Value, columns_of, table, value_of
from ..cells.result import Result

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

OF_SCORES = ("clean_auroc", "robust_auroc", "certified_auroc", "normal_only_auroc", "anomalous_only_auroc")
OF_DECISIONS = (
    "clean_accuracy", "robust_accuracy", "certified_accuracy", "robust_normal_right", "robust_anomalous_right",
    "certified_normal_right", "certified_anomalous_right",
)  # fmt: skip


def rich_table(board: Board) -> Table:
    """A board; LEADERBOARD.md has more of its columns."""
    count = len(board.categories)
    scope = f"mean over {count} categories" if count > 1 else board.categories[0]
    found = _table(f"{board.title} ({scope})")
    found.add_column("detector", overflow="fold")
    about = OF_DECISIONS if board.stops_at_threshold else OF_SCORES
    titles = [title for title, metric in columns_of(board).items() if metric in about]
    for title in titles:
        found.add_column(title.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for line in table(board):
        name = f"{line.detector} (not ranked)" if line.rank is None else line.detector
        found.add_row(_text(name), *(_text(line.values[title].stacked) for title in titles))
    return found


class Run(NamedTuple):
    """A detector under one attack and budget: a row."""

    detector: str
    data: str
    attack: str
    eps: str
    on: str
    """The category, or over how many of them the values are means."""
    metric: str
    clean: Value
    worst: Value
    passes: str
    """Forward + backward, per image."""
    unranked: str
    """Why it would have no rank; empty where it would."""


SAID_ONCE = ("data", "attack", "eps", "on", "metric")
"""Columns that go into the title where all rows are the same."""


def run_table(cells: Sequence[Result]) -> Group:
    """What became of the cells of a run, one or more: a row per detector, attack and budget, means over the categories
    that were run, and below it why a detector would have no rank."""
    from rich.console import Group

    runs = [run for board in boards(cells) for run in _runs(board)]
    apart = [column for column in SAID_ONCE if len({getattr(run, column) for run in runs}) > 1]
    found = _table(", ".join(getattr(runs[0], column) for column in SAID_ONCE if column not in apart))
    for title in ("detector", *apart):
        found.add_column(title, overflow="fold")
    for title in ("clean", cells[0].claim, "passes"):
        found.add_column(title, justify="right", no_wrap=True)
    marks = {why: f"({i})" for i, why in enumerate(dict.fromkeys(run.unranked for run in runs if run.unranked), 1)}
    for run in runs:
        name = f"{run.detector} {marks[run.unranked]}" if run.unranked else run.detector
        texts = (name, *(getattr(run, column) for column in apart), run.clean.text, run.worst.whole, run.passes)
        found.add_row(*map(_text, texts))
    return Group(found, *(_text(f"{mark} not ranked: {why}") for why, mark in marks.items()))


def _runs(board: Board) -> Iterator[Run]:
    spec, score = board.cells[0].spec, board.ranked_by.rpartition("_")[2]
    for name, cells in board.entries:
        cost = Cost.of(cells)
        yield Run(
            name,
            f"{spec.dataset}, {spec.image_size} px",
            board.cells[0].attack,
            f"{spec.norm} {spec.eps}",
            cells[0].category if len(cells) == 1 else f"mean of {len(cells)}",
            "AUROC" if score == "auroc" else score,
            value_of(cells, f"clean_{score}"),
            value_of(cells, board.ranked_by),
            cost.texts["passes per image"],
            "; ".join(board.unranked.get(name, ())),
        )


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=_text(title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
        show_edge=False,
    )  # fmt: skip


def _text(text: str, style: str = "") -> Text:
    """As it is: Rich would read a string as markup."""
    from rich.text import Text

    return Text(text, style)
