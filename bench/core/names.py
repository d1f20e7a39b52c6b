"""Names of files as text that fits on one line, whatever bytes they were made of."""

from __future__ import annotations

BREAKS = "\x85\u2028\u2029"  # characters beyond ASCII's at which Python ends a line


def printable(name: object) -> str:
    """The name with control characters, line breaks and bytes that are no UTF-8 written as escapes, `caf\\xe9`.

    Any other name is left as it is. The result is always one line and valid UTF-8.
    """
    return "".join(_escaped(c) for c in str(name))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python hands over a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or character in BREAKS:
        return character.encode("unicode_escape").decode()
    return character
