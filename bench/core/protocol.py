"""The evaluation protocol: by which rules test images are chosen under a limit, and how many draws make a score.

A cell says by which it was made. One of an older protocol is read, and verified by its own rules; it is never gone on
with, and never stands on a board with others.

1: images with an even stride through the ids; 8 draws.
2: images stratified by class and kind of defect (`choice`); 32 draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Protocol = Literal[1, 2]

PROTOCOL: Protocol = 2
"""Of what is run now."""

DRAWS: Mapping[Protocol, int] = MappingProxyType({1: 8, 2: 32})
"""Noise draws whose mean is the reported score of a randomized detector, unless somebody asks for another number."""

STANDARD: Literal["standard-v4"] = "standard-v4"
"""Version of the standard evaluation, the attack `standard`; cells of an earlier one never stand on a board with it."""
