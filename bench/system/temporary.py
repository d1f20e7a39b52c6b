"""Files and folders that are only there while something is written, and go when their process was killed.

Their names say which process of which machine they are of: one of a dead process is removed when somebody next writes
into that folder, one of another machine when it is a day old.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import time
from pathlib import Path

DAY = 24 * 3600.0
LONGEST = 100  # characters of a name: there are file systems with room for 255 bytes
OURS = re.compile(r"\..+\.(?P<machine>[0-9a-f]{6})-(?P<process>[0-9]+)\.[a-z0-9_]{8}")
OLDER_VERSION = re.compile(
    r"\.(run\.json|samples\.csv|fit\.json|model\.safetensors|training\.pt|[0-9a-f]{24}\.np[yz])\.[a-z0-9_]{8}"
    r"|\.unpacking-[a-z0-9_]{8}"
)
"""Names that say no process."""
_swept: set[Path] = set()
"""Folders that this process has looked through."""


def prefix(name: str) -> str:
    """How the temporary name begins of what will be called `name`; 8 random characters follow."""
    return f".{name[:LONGEST]}.{_machine()}-{os.getpid()}."


def sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder (not below it); once in a process, and never with an error."""
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):
        for path in folder.glob(".*"):
            if _is_left(path):
                _remove(path)


@functools.cache
def _machine() -> str:
    """Of those whose process numbers can be compared with ours: this machine, in this container."""
    space = ""
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    return hashlib.sha256(f"{platform.node()} {space}".encode("utf-8", "surrogateescape")).hexdigest()[:6]


def _is_left(path: Path) -> bool:
    ours = OURS.fullmatch(path.name)
    if ours is not None and ours["machine"] == _machine() and not _is_alive(int(ours["process"])):
        return True
    if ours is None and not OLDER_VERSION.fullmatch(path.name):
        return False
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > DAY
    return False


def _is_alive(process: int) -> bool:
    """True where nobody can say."""
    if os.name != "posix":  # where os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
