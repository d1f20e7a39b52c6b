"""The benchmark for adversarially robust image anomaly detection.

`from bench import Detector` is what a plug-in needs; `bench.load_data`, `bench.fit_or_load`, `bench.evaluate` and
`bench.load_results` are the harness, `bench.read_results` and `bench.plot` are for notebooks. Nothing heavy is imported
before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import plot
    from .api import categories, evaluate, fit_or_load, load_data
    from .cells import load_results, read_results
    from .certificate import certify
    from .data import Data, Record, TestSet, TrainSet
    from .detector import Detector, Hints, Progress, Purifier, Wrapper, bpda, identity_backward
    from .errors import UserError
    from .metrics import Estimate
    from .rng import Rng
    from .run import Attack, Attacked, Context, Row, Trace
    from .score import Score
    from .threat import ThreatModel

_HOMES = {
    "api": ("categories", "evaluate", "fit_or_load", "load_data"),
    "cells": ("load_results", "read_results"),
    "certificate": ("certify",),
    "data": ("Data", "Record", "TestSet", "TrainSet"),
    "detector": ("Detector", "Hints", "Progress", "Purifier", "Wrapper", "bpda", "identity_backward"),
    "errors": ("UserError",),
    "metrics": ("Estimate",),
    "rng": ("Rng",),
    "run": ("Attack", "Attacked", "Context", "Row", "Trace"),
    "score": ("Score",),
    "threat": ("ThreatModel",),
}
_MODULES = ("plot",)
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Attack", "Attacked", "Context", "Data", "Detector", "Estimate", "Hints", "Progress", "Purifier", "Record", "Rng",
    "Row", "Score", "TestSet", "ThreatModel", "Trace", "TrainSet", "UserError", "Wrapper", "bpda", "categories",
    "certify", "evaluate", "fit_or_load", "identity_backward", "load_data", "load_results", "plot", "read_results",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
