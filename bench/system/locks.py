"""One process at a time on a cell, a fit or kept draws: a lock of the operating system, which ends with its owner.

The lock is on an empty hidden file beside what is worked on, and the file goes with it. A killed process leaves the
file and not the lock: whoever comes next takes it. On a network folder it is as good as the locks of that file system;
one that has none is said, and the work goes on without.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from . import files

POLL_SECONDS = 0.2
NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
REMOVED = {errno.ENOENT, errno.ESTALE}  # the owner took away the file, and the folder that it had made for it
PATIENCE = 100
_without: set[int] = set()
"""Devices of which it was said that they have no locks."""


class _Gone(Exception):
    """The lock is on a file that its last owner has removed meanwhile: others would lock another one."""


@contextlib.contextmanager
def alone(path: Path, doing: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Within, no other process and no other thread is inside `alone` of this path, which need not exist.

    Waits for as long as it takes, and tells once: "waiting for another process that `doing`". Leaves behind neither
    its file nor a folder that it made and nobody uses. Raises UserError where nothing can be written.
    """
    file = path.absolute().with_name(f".{path.name}.lock")
    made = [folder for folder in file.parents if not folder.exists()]  # the innermost first
    with files.says_why(file):
        lock = _locked(file, doing, tell)
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):  # an open file cannot be removed everywhere
                file.unlink()  # while the lock is held: see `_Gone`
            lock.release()
        with contextlib.suppress(OSError):  # the first that is in use, or is gone already
            for folder in made:
                folder.rmdir()


def is_held(path: Path) -> bool:
    """Whether another process is inside `alone` of this path now; nobody is kept waiting."""
    file = path.absolute().with_name(f".{path.name}.lock")
    if not file.exists():
        return False
    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # no locks here, or it is gone
        return False
    with contextlib.suppress(OSError):  # of an owner that was killed, or made by looking
        file.unlink()
    lock.release()
    return False


def _locked(file: Path, doing: str, tell: Callable[[str], None]) -> BaseFileLock | None:
    """The lock, taken; None where the file system has no locks."""

    def look(handle: int) -> None:
        if not _same_file(handle, file):
            raise _Gone

    said, gone = False, 0
    while True:
        # a soft lock would outlive a killed owner
        lock = FileLock(file, fallback_to_soft=False, on_acquired=look)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=said, poll_interval=POLL_SECONDS)
            return lock
        except Timeout:
            tell(f"waiting for another process that {doing}")
            said = True
        except _Gone:
            continue
        except OSError as error:
            if error.errno in NO_LOCKS_HERE:
                _say_without(file, tell)
                return None
            gone += 1
            if error.errno not in REMOVED or gone > PATIENCE:
                raise


def _same_file(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _say_without(file: Path, tell: Callable[[str], None]) -> None:
    device = file.parent.stat().st_dev
    if device not in _without:
        _without.add(device)
        tell(f"{file.parent} is on a file system without locks: let no other process work on the same cells or fits")
    file.unlink(missing_ok=True)
