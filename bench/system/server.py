"""The server from which processes for cells are forked: it imports torch once, beside whoever asks for them."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOAD = ["torch", "bench.harness.process", "bench.harness.evaluate", "bench.harness.certify"]
_ALONE = threading.Lock()  # two threads would keep each other's stand-in


def start() -> None:
    """Starts the server, where there is to be one, and does not wait until it is ready. It ends with this process."""
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        context()
        with without_main():
            forkserver.ensure_running()


def context() -> Any:
    """What makes processes."""
    found = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        found.set_forkserver_preload(PRELOAD)
    return found


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Within, a process that is started does not import the script that somebody runs, which may be a notebook, the
    standard input, or one that would begin anew."""
    with _ALONE:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
