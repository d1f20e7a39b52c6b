"""How threads wait for each other: asleep, so that other processes have the cores meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""By which a user says how; then nothing is changed."""


def wait_asleep(environment: MutableMapping[str, str] | None = None) -> None:
    """OpenMP's threads sleep at a barrier, in this process and in those that it starts, unless the user has said how
    they wait, or torch is here already.

    By default they spin: with another busy process on two cores a training step then takes several times as long.
    """
    values = os.environ if environment is None else environment
    if "torch" not in sys.modules and not any(name in values for name in SETTINGS):
        values["OMP_WAIT_POLICY"] = "PASSIVE"
