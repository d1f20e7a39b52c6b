"""Numbers as somebody typed or recorded them: read exactly, and strictly."""

from __future__ import annotations

import math
import re
from fractions import Fraction

LONGEST_TEXT = 1000  # characters: room for the exact fraction of any float, and read at once
PLAIN = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
LARGEST_DENOMINATOR = 10**6  # no two such fractions below 1000 are the same float
NUMBER = re.compile(rf"[ \t]*({PLAIN})[ \t]*(?:/[ \t]*({PLAIN})[ \t]*)?")


def read_number(value: str | float | Fraction) -> Fraction | None:
    """A number, or the text of a number or of a fraction of two (`0.5/255`), exactly; None for anything else.

    Text is ASCII and has no spaces inside a number, so that no two numbers are read as one. A float that is the nearest
    to a simple fraction is that fraction: `2 / 255` in Python is the text `2/255`. What is found is finite as a float,
    and 0 only if it is 0.
    """
    if isinstance(value, float) and math.isfinite(value) and (simple := _simple(value)) is not None:
        number = simple
    elif isinstance(value, Fraction):
        number = value
    else:
        text = str(value)
        match = NUMBER.fullmatch(text) if len(text) <= LONGEST_TEXT else None
        if match is None or (match[2] and not Fraction(match[2])):
            return None
        number = Fraction(match[1]) / Fraction(match[2] or 1)
    try:
        return number if bool(number) == bool(float(255 * number)) else None  # as `eps_text` may write it
    except OverflowError:
        return None


def _simple(value: float) -> Fraction | None:
    found = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
    return found if float(found) == value else None
