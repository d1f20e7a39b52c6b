"""Attacks and parameters inside one parameter: `transfer[source=autoencoder;steps=50]`."""

from __future__ import annotations

import re


def assignments(text: str) -> dict[str, str]:
    """`a=1;b=2` -> {"a": "1", "b": "2"}; ValueError for anything else."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"expected name=value, separated by semicolons, got {part!r}")
        found[name.strip()] = value.strip()
    return found


def spelled(text: str) -> tuple[str, dict[str, str]]:
    """`apgd[steps=50;restarts=2]` -> ("apgd", {"steps": "50", "restarts": "2"}); a bare name has none."""
    match = re.fullmatch(r"\s*([^\[\]]+?)\s*(?:\[(.*)\])?\s*", text)
    if match is None:
        raise ValueError(f"expected a name, or name[parameter=value;...], got {text!r}")
    return match[1], assignments(match[2] or "")
