"""Small tables of text, for notebooks and terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from ..core import names

if TYPE_CHECKING:
    from rich.console import Group


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


def rich_table(shown: TextTable) -> Group:
    """For a terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in shown.frame.columns:
        table.add_column(name, overflow="fold")
    for row in shown.frame.itertuples(index=False):
        table.add_row(*(Text(names.shown(text)) for text in row))
    below = (Text(names.shown(text), "table.caption") for text in shown.below)
    return Group(Text(names.shown(shown.title), "table.title"), table, *below)
