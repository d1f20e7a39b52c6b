"""Names of files as text that fits on one line, whatever bytes they were made of."""

from __future__ import annotations

BREAKS = "\u2028\u2029"  # beyond the control characters, Python ends a line at these


def printable(name: object) -> str:
    """The name with bytes that are no UTF-8, control characters and line breaks written as in a URL: `caf%E9`.

    Any other name is left as it is. The result is always one line and valid UTF-8, and as good a name of a file.
    """
    return "".join(_escaped(c) for c in str(name))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F or (code >= 0xA0 and not 0xD800 <= code < 0xE000 and character not in BREAKS):
        return character
    if 0xDC80 <= code <= 0xDCFF:  # how Python hands over a byte that is no UTF-8
        return f"%{code - 0xDC00:02X}"
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
