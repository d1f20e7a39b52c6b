"""Boards for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.boards import DECISIONS, NOT_RANKED, WITH_INTERVAL, Board, columns_of, table

if TYPE_CHECKING:
    from rich.table import Table


def rich_table(board: Board) -> Table:
    """A board for a terminal of 80 columns; LEADERBOARD.md has more of them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text  # a string would be read as markup

    count = len(board.categories)
    scope = f"mean over {count} categories" if count > 1 else board.categories[0]
    found = Table(
        title=Text(f"{board.title} ({scope})", "table.title"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    found.add_column("detector", overflow="fold")
    about = DECISIONS if board.stops_at_threshold else WITH_INTERVAL
    titles = [title for title in about if title in columns_of(board)]
    for title in titles:
        found.add_column(title.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in table(board)[["rank", "detector", *titles]].itertuples(index=False):
        name = f"{row[1]} (not ranked)" if row[0] == NOT_RANKED else row[1]
        found.add_row(Text(name), *(Text(cell.replace(" ", "\n", 1)) for cell in row[2:]))
    return found
