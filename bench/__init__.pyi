from . import plot
from .cells.reader import load_results, read_results
from .cells.rows import Row
from .core.attack import Attack, Attacked, Context, Trace
from .core.data import Data, TestSet, TrainSet
from .core.detector import Detector, Hints, Purifier, Wrapper, bpda, identity_backward
from .core.images import ArraySource, FileSource, Record
from .core.progress import Progress
from .core.rng import Rng
from .core.score import Score
from .core.threat import ThreatModel
from .errors import UserError
from .harness.certify import certify
from .harness.evaluate import evaluate
from .harness.shift import shift
from .plugins.lookup import categories, fit_or_load, load_data
from .stats.intervals import Estimate
from .stats.metrics import auroc

__all__ = [
    "ArraySource",
    "Attack",
    "Attacked",
    "Context",
    "Data",
    "Detector",
    "Estimate",
    "FileSource",
    "Hints",
    "Progress",
    "Purifier",
    "Record",
    "Rng",
    "Row",
    "Score",
    "TestSet",
    "ThreatModel",
    "Trace",
    "TrainSet",
    "UserError",
    "Wrapper",
    "auroc",
    "bpda",
    "categories",
    "certify",
    "evaluate",
    "fit_or_load",
    "identity_backward",
    "load_data",
    "load_results",
    "plot",
    "read_results",
    "shift",
]
