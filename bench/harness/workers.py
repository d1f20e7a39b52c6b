"""Jobs side by side, each in a process of its own: how many, with how many threads, and their ends in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from multiprocessing import Pipe, connection
from typing import NamedTuple, TypeVar

import torch

End = TypeVar("End")


class Workers(NamedTuple):
    """How the cores are shared out."""

    at_once: int
    """Jobs."""
    threads: int
    """Of torch, in each of them."""

    @classmethod
    def for_jobs(cls, jobs: int, wanted: int | None, on_gpu: bool) -> Workers:
        """So many as are wanted; else one job a thread that torch would use here (`OMP_NUM_THREADS` where it is set,
        else the cores), and on a GPU, whose memory they would share, one. Threads that are left are shared out."""
        threads = torch.get_num_threads()
        at_once = max(min(wanted or (1 if on_gpu else threads), jobs), 1)
        return cls(at_once, max(threads // at_once, 1))


Job = Callable[[connection.Connection], Iterable[End]]
"""Gives its ends as they come; to be broken off, by KeyboardInterrupt, as soon as there is something to be read."""


def side_by_side(jobs: Sequence[Job[End]], at_once: int, done: Callable[[], None] = lambda: None) -> list[End]:
    """All ends, in the order of the jobs. What interrupts the caller ends every job, and so does an error of one.

    done: called after each job, in a thread of it.
    """
    told, tell = Pipe(duplex=False)

    def work(job: Job[End]) -> list[End]:
        if told.poll():
            raise KeyboardInterrupt
        ends = list(job(told))
        done()
        return ends

    with told, tell, ThreadPoolExecutor(at_once) as pool:
        working = [pool.submit(work, job) for job in jobs]
        try:
            wait(working, return_when=FIRST_EXCEPTION)
            for broken in (future for future in working if future.done() and future.exception()):
                broken.result()
        except BaseException:
            tell.send_bytes(b"stop")
            raise
        return [end for future in working for end in future.result()]
