"""The user's cache folder: what a fit or an attack has cost, kept for the next run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import files


def cache_folder() -> Path:
    """Where fitted detectors are kept: the platform's cache folder (XDG_CACHE_HOME where it is set)."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("adv-anomaly-bench"))


def folder_of(kind: str, identity: Any) -> Path:
    """The cache folder of what is kept of one cell; `identity` is everything, as JSON, that it depends on."""
    return cache_folder() / kind / files.digest(json.dumps(identity, sort_keys=True))
