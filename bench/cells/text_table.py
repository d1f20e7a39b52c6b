"""Small tables of text, for notebooks and terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table


class TextTable(NamedTuple):
    """A table as text, and what is said below it."""

    title: str
    frame: pd.DataFrame
    below: list[str]


def html(shown: TextTable) -> str:
    """For a notebook."""
    from html import escape

    table = shown.frame.to_html(index=False, border=0, justify="left")
    below = "".join(f"<div>{escape(sentence)}</div>" for sentence in shown.below)
    return f"<div><strong>{escape(shown.title)}</strong></div>{table}{below}"


def rich_table(shown: TextTable) -> Table:
    """For a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(title=Text(shown.title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD)
    if shown.below:
        found.caption, found.caption_justify = Text("\n".join(shown.below), "table.caption"), "left"
    for name in shown.frame.columns:
        found.add_column(name, overflow="fold")
    for row in shown.frame.itertuples(index=False):
        found.add_row(*map(Text, row))
    return found
