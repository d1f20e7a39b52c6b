"""The kinds of certificates: what they are called in a record, their settings, their code, and who makes their rows."""

from __future__ import annotations

from ..cells.spec import DETERMINISTIC, SMOOTHING, RunSpec
from ..core.attack import Method
from ..core.data import Data
from ..core.progress import Tell
from . import bounder, certifier
from .bounder import Bounder, Deterministic
from .certifier import Certificate, Certifier
from .worker import Prepared

Settings = Certificate | Deterministic
SETTINGS: dict[str, type[Certificate] | type[Deterministic]] = {SMOOTHING: Certificate, DETERMINISTIC: Deterministic}
"""By `attack` of the cell."""


def name_of(settings: Method) -> str:
    """As in a record."""
    return next(name for name, kind in SETTINGS.items() if isinstance(settings, kind))


def code_of(name: str) -> str:
    """Hash of the code that makes such rows."""
    return bounder.own_code() if name == DETERMINISTIC else certifier.own_code()


def worker_of(
    spec: RunSpec,
    data: Data,
    prepared: Prepared,
    settings: Settings,
    batch_size: int,
    tell: Tell = lambda message: None,
    keep: bool = True,
) -> Certifier | Bounder:
    """Makes rows. keep: draws of noise are kept in the cache."""
    if isinstance(settings, Deterministic):
        return Bounder(spec, data, prepared, settings)
    return Certifier(spec, data, prepared, settings, batch_size, tell, keep)
