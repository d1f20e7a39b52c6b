"""Names of files as text that fits on one line, whatever bytes they were made of."""

from __future__ import annotations

BREAKS = "\u2028\u2029"  # beyond the control characters, Python ends a line at these
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of what follows, so that a text reads as another one."""


def printable(name: object) -> str:
    """The name with bytes that are no UTF-8, control characters and line breaks written as in a URL: `caf%E9`.

    Any other name is left as it is. The result is always one line and valid UTF-8, and as good a name of a file.
    """
    return "".join(_escaped(c) for c in str(name))


def shown(text: object) -> str:
    """Any text, as a terminal may be given it: `printable`, and nothing in it turns the direction of the rest."""
    line = printable(text)
    return line if set(line).isdisjoint(BIDI) else "".join(_bytes(c) if c in BIDI else c for c in line)


def is_plain(text: str) -> bool:
    """Whether all of it is text: no control character, none that turns the direction, no break, no half of a pair."""
    return shown(text) == text


def _escaped(character: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F or (code >= 0xA0 and not 0xD800 <= code < 0xE000 and character not in BREAKS):
        return character
    if 0xDC80 <= code <= 0xDCFF:  # how Python hands over a byte that is no UTF-8
        return f"%{code - 0xDC00:02X}"
    return _bytes(character)


def _bytes(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
