"""Keeps freed memory in the process: training and attacks free and take the same large tensors at every step."""

from __future__ import annotations

import ctypes
import sys

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
