"""What a stranger wrote, as text and nothing else: one function for each kind of file that it may get into."""

from __future__ import annotations

import html
import re
from typing import Any

import pandas as pd

from ..core.names import shown

MEANS_SOMETHING = re.compile(r"[\\`*~|]|](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|://|(?<=\bwww)\.|^[#+=-]", re.IGNORECASE)
"""To Markdown as GitHub reads it: code, emphasis, columns, links, images, addresses; first of all, headings, lists."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute."""


def markdown_text(text: object) -> str:
    """On one line; it is no link, no image, no code, no column, nothing in bold, and no HTML."""
    line = html.escape(shown(" ".join(str(text).split())), quote=False)
    return MEANS_SOMETHING.sub(lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", line)


def for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table, in which no text is a formula: such a one begins with an apostrophe. Numbers stay numbers."""
    return frame.map(_no_formula)


def from_spreadsheet(text: str) -> str:
    """The text that `for_spreadsheets` made a cell of."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
