"""Jobs as tasks of a Ray cluster: one that runs already, or one of this machine for as long as it takes.

A task is a job: a detector on a category, in a process of its own on whichever node has room for it. Results and fitted
detectors lie on a file system that all nodes share, with locks, so a task that is begun again, because its node was
lost, goes on with the rows that are there.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..core.progress import Monitor, Progress
from ..errors import UserError
from .process import Failure, Job, Screen, run_cells

RETRIES = 5  # of a task whose node is lost
LOOK_EVERY = 0.5  # seconds
ANSWERS_WITHIN = 5.0  # seconds: a cluster at its address
MISSING = "--executor ray needs Ray: pip install 'adv-anomaly-bench[cluster]'"


class Cluster(NamedTuple):
    """Where tasks go, and what each of them takes."""

    address: str | None = None
    """Of a running cluster, `auto` for the one of this machine; None starts one."""
    workers: int | None = None
    """Tasks at once, at most; None leaves it to the resources."""
    threads: int = 1
    """Of each task: so many cores it takes."""
    gpus: float = 0.0
    """Of each task; a fraction shares one."""


class Named(NamedTuple):
    """A job, and the name of its detector."""

    job: Job
    name: str


def run_on_ray(
    jobs: Sequence[Named],
    cluster: Cluster,
    screen: Screen,
    patience: float | None = None,
    done: Callable[[int, Sequence[Path | Failure]], None] = lambda number, ends: None,
) -> list[Path | Failure]:
    """All ends, in the order of the jobs. A task that Ray gives up is a failure, and the others go on.

    done: called after each job, with its number and its ends. Raises UserError where there is no Ray, or no cluster at
    that address.
    """
    ray = _ray()
    theirs = ray.is_initialized()  # by whoever calls this from Python
    if not theirs:
        _connect(ray, cluster)
    try:
        return _run(ray, jobs, cluster, screen, patience, done)
    finally:
        if not theirs:
            ray.shutdown()


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise UserError(MISSING) from None


def _connect(ray: Any, cluster: Cluster) -> None:
    """To the cluster at its address, or to one of this machine that ends with the run."""
    _refuse_silence(cluster.address)
    own = {
        "num_cpus": cluster.workers * cluster.threads if cluster.workers else None,
        "include_dashboard": False,
    }
    given: dict[str, Any] = {"address": cluster.address} if cluster.address else own
    try:
        ray.init(**given, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = cluster.address or "this machine"
        raise UserError(f"--address {where}: no Ray cluster can be used there ({str(error).splitlines()[0]})") from None


def _refuse_silence(address: str | None) -> None:
    """Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: nothing answers there ({error})") from None


def _run(
    ray: Any,
    jobs: Sequence[Named],
    cluster: Cluster,
    screen: Screen,
    patience: float | None,
    done: Callable[[int, Sequence[Path | Failure]], None],
) -> list[Path | Failure]:
    task = ray.remote(num_cpus=cluster.threads, num_gpus=cluster.gpus, max_retries=RETRIES)(_task)
    ends: dict[int, list[Path | Failure]] = {}
    waiting, running = list(range(len(jobs))), dict[Any, int]()
    try:
        while waiting or running:
            while waiting and (cluster.workers is None or len(running) < cluster.workers):
                number = waiting.pop(0)
                running[task.remote(*jobs[number], cluster.threads, patience, str(Path.cwd()))] = number
            ready, _ = ray.wait(list(running), timeout=LOOK_EVERY)
            for reference in ready:
                number = running.pop(reference)
                ends[number] = _ends(ray, reference, jobs[number].name, screen)
                done(number, ends[number])
    except BaseException:
        for reference in running:
            ray.cancel(reference, force=True)
        raise
    return [end for number in range(len(jobs)) for end in ends[number]]


def _ends(ray: Any, reference: Any, name: str, screen: Screen) -> list[Path | Failure]:
    try:
        sentences, found = ray.get(reference)
    except ray.exceptions.RayError as error:
        return [Failure(name, f"Ray gave it up: {str(error).strip().splitlines()[0]}")]
    for sentence in sentences:
        screen.tell(sentence)
    return list(found)


def _task(
    job: Job, name: str, threads: int, patience: float | None, folder: str
) -> tuple[list[str], list[Path | Failure]]:
    """On a node: what was told meanwhile, and the ends. folder: in which the command was typed."""
    if Path(folder).is_dir():
        os.chdir(folder)
    torch.set_num_threads(threads)
    screen = _Quiet()
    return screen.sentences, list(run_cells(job, name, screen, patience, threads))


class _Quiet:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def tell(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def cell(self, label: str) -> contextlib.AbstractContextManager[Monitor]:
        self.tell(f"{label}: on {platform.node()}")
        return contextlib.nullcontext(Monitor(lambda done, total: None, self.tell))

    def fit(self, name: str) -> Progress:
        return Progress()
