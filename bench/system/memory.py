"""Memory of the process: keeps what is freed, since training takes the same large tensors at every step; its peak."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Options of glibc's mallopt(3), from malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 * 2**20


def keep_freed_memory() -> None:
    """On Linux with glibc, stop handing every freed tensor back to the kernel, which would have to clear each page
    again at the next step (a quarter of the time of a small network's training); elsewhere do nothing."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, TOP_PAD)):
        mallopt(option, value)


def free_memory() -> None:
    """After a GPU ran out of memory: what nothing holds any more goes back to it."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class PeakMemory:
    """The most memory in use since this object was made: the GPU's on a GPU, else that of the process (on Linux)."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the kernel forgets the old peak

    def mebibytes(self) -> int | None:
        """None where the system does not say."""
        if self.device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self.device) // 2**20
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        except OSError:
            return None
        return int(found[1]) // 2**10 if found else None
