"""The user's cache folder: what a fit or an attack has cost, kept for the next run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import UserError


def cache_folder() -> Path:
    """Where fitted detectors are kept: the platform's cache folder (XDG_CACHE_HOME where it is set)."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("adv-anomaly-bench"))
    if folder.parts[0].startswith("~"):  # the system knows no home of this user
        raise UserError("there is no home folder here: set XDG_CACHE_HOME to a folder that can be written")
    return folder


def folder_of(kind: str, identity: Any) -> Path:
    """The cache folder of what is kept of one cell; `identity` is everything, as JSON, that it depends on."""
    return cache_folder() / kind / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
