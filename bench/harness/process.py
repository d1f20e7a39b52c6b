"""Processes for cells: what a plug-in breaks is its own process, and the run goes on.

One process runs the cells of one detector on one category, so that it fits once. It is forked from a server that has
imported torch already, which takes a fraction of a second; where the system cannot fork, it is started anew. It lives
no longer than the process that started it, whatever happens to either of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from ..core.progress import Monitor, Progress, Tell
from ..errors import UserError
from ..system import server
from .protocol import Failed, Finished, FitStep, Planned, Reports, Rows, Told, Yielded

GRACE = 2.0  # seconds that a process has to end by itself

Job = Callable[[Reports, int], None]
"""Runs cells, from the one with that number on: `reports.run(cells, first)`. It can be pickled."""


class Screen(Protocol):
    """Where a person sees what happens in the process."""

    @property
    def tell(self) -> Tell: ...

    def cell(self, label: str) -> contextlib.AbstractContextManager[Monitor]: ...

    def fit(self, name: str) -> Progress: ...


class Failure(NamedTuple):
    """A cell that has no result, and why."""

    cell: str
    why: str
    whose: str = ""
    """Name of the detector, where `why` speaks of "it"."""


class Broken(UserError):
    """Something happened that nobody foresaw; the message speaks of "it"."""


class Died(Broken):
    """The process ended before it had said all, or was stopped because it took too long."""


def run_cells(
    job: Job,
    name: str,
    screen: Screen,
    patience: float | None = None,
    threads: int | None = None,
    stop: connection.Connection | None = None,
) -> Iterator[Path | Failure]:
    """The folder of every cell of a job, or why there is none; one after another, in as few processes as possible.

    A process that dies costs the cell that it worked on: a fresh one does the rest. What dies before its first cell
    has no cells, or loses all that are left. name: of the job, where its cells are not known. patience: seconds that a
    cell may take, the fit included. threads: of torch in these processes, by default as many as in this one. stop:
    KeyboardInterrupt as soon as it has something to be read.
    """
    labels: tuple[str, ...] | None = None
    done = 0
    while labels is None or done < len(labels):
        with Child(partial(_from, job, done), patience, threads=threads, stop=stop) as child:
            try:
                labels = child.planned(screen)
            except UserError as error:
                yield from (_failure(label, error, name) for label in (labels[done:] if labels else (name,)))
                return
            alive = True
            while alive and done < len(labels):
                try:
                    end: Path | Failure = child.cell(labels[done], screen)
                except UserError as error:
                    end, alive = _failure(labels[done], error, name), not isinstance(error, Died)
                done += 1
                yield end


def _failure(label: str, error: UserError, name: str) -> Failure:
    return Failure(label, str(error), name if isinstance(error, Broken) else "")


def ask(
    function: Callable[..., Any],
    *arguments: Any,
    patience: float | None = None,
    environment: dict[str, str] | None = None,
) -> Any:
    """What a function returns, called in a process of its own; what goes there and comes back is pickled.

    environment: that process's, if not this one's as it is now.

    Raises UserError if it does; Broken if it raises anything else or never returns.
    """
    with Child(partial(_answer, function, arguments), patience, environment) as child:
        for event in child.events():
            if isinstance(event, Finished):
                return event.value
            if isinstance(event, Failed):
                raise _error(event)
    raise AssertionError("events end with an error")


def each(function: Callable[..., Iterable[Any]], *arguments: Any, patience: float | None = None) -> Iterator[Any]:
    """What a function yields, called in a process of its own, as it comes; errors as `ask` raises them.

    patience: seconds to the first and between any two.
    """
    with Child(partial(_yield, function, arguments), patience) as child:
        for event in child.events():
            if isinstance(event, Yielded):
                yield event.value
                child.restart_clock()
            if isinstance(event, Finished):
                return
            if isinstance(event, Failed):
                raise _error(event)


def _error(event: Failed) -> UserError:
    return Broken(event.why) if event.unexpected else UserError(event.why)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], reports: Reports) -> None:
    reports.answer(lambda: function(*arguments))


def _yield(function: Callable[..., Iterable[Any]], arguments: tuple[Any, ...], reports: Reports) -> None:
    def send_all() -> None:
        for value in function(*arguments):
            reports.send(Yielded(value))

    reports.answer(send_all)


def _from(job: Job, first: int, reports: Reports) -> None:
    job(reports, first)


class Child:
    """A process that calls `work(reports)`; it is gone when the block ends."""

    def __init__(
        self,
        work: Callable[[Reports], None],
        patience: float | None = None,
        environment: dict[str, str] | None = None,
        threads: int | None = None,
        stop: connection.Connection | None = None,
    ):
        self._patience, self._stop = patience, stop
        context = server.context()
        self._ours, theirs = context.Pipe()
        surroundings = (environment or dict(os.environ), list(sys.path), threads or torch.get_num_threads())
        self._process = context.Process(target=_main, args=(theirs, surroundings, work))
        with server.without_main():
            self._process.start()
        theirs.close()
        self.restart_clock()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Nobody waits for threads that never end, and nothing that it has forked is left."""
        if kind is not None:
            self._process.terminate()
        self._process.join(0 if self._overdue else GRACE)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(GRACE)
        with contextlib.suppress(OSError, AttributeError):  # all gone; or no groups on this system
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._ours.close()

    def planned(self, screen: Screen) -> tuple[str, ...]:
        """The names of its cells. Raises UserError if it cannot say them."""
        for event in self.events():
            if isinstance(event, Planned):
                return event.labels
            if isinstance(event, Failed):
                raise _error(event)
            if isinstance(event, Told):
                screen.tell(event.sentence)
        raise AssertionError("events end with an error")

    def cell(self, label: str, screen: Screen) -> Path:
        """The folder of the next cell, which is shown meanwhile. Raises UserError; Died if there is no next one."""
        self.restart_clock()
        bars: dict[str, Progress] = {}
        with screen.cell(label) as monitor:
            for event in self.events():
                match event:
                    case Rows():
                        monitor.on_rows(event.done, event.total)
                    case Told():
                        monitor.tell(event.sentence)
                    case FitStep():
                        bar = bars.setdefault(event.name, screen.fit(event.name))
                        bar.update(event.step, event.total, event.loss)
                    case Finished():
                        return Path(event.value)
                    case Failed():
                        raise _error(event)
        raise AssertionError("events end with an error")

    def events(self) -> Iterator[Any]:
        """As they come; the last thing that comes is Died."""
        while True:
            left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
            listened = [self._ours, self._process.sentinel, *([self._stop] if self._stop else [])]
            ready = connection.wait(listened, left)
            if self._stop in ready:
                raise KeyboardInterrupt
            if not ready or self._overdue:
                raise Died(f"took longer than {self._patience:g} s (--cell-timeout)")
            if self._ours not in ready:
                raise Died(self._how_it_died())
            try:
                event = self._ours.recv()
            except Exception:  # the end, or what a plug-in has written there
                raise Died(self._how_it_died()) from None
            yield event

    @property
    def _overdue(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def restart_clock(self) -> None:
        """Patience begins anew."""
        self._deadline = None if self._patience is None else time.monotonic() + self._patience

    def _how_it_died(self) -> str:
        self._process.join(GRACE)
        code = self._process.exitcode
        if code is None:
            return "it closed the pipe through which its process speaks"
        if code >= 0:
            return f"it ended its process with exit status {code}"
        why = {signal.SIGSEGV: ", a segmentation fault", signal.SIGKILL: ", as a system does that is out of memory"}
        return f"its process was killed by {signal.Signals(-code).name}{why.get(signal.Signals(-code), '')}"


def _main(
    pipe: connection.Connection, surroundings: tuple[dict[str, str], list[str], int], work: Callable[[Reports], None]
) -> None:
    """Of the new process, which never returns from it."""
    reports = Reports(pipe)
    with contextlib.suppress(BaseException):  # told to stop, or nobody listens any more
        _obey(reports)
        _take_over(*surroundings)
        threading.Thread(target=_end_with_the_other, args=(pipe,), daemon=True).start()
        reports.attempt(lambda: work(reports))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):  # a plug-in may have closed them
            stream.flush()
    os._exit(0)  # threads of a plug-in may never end


def _obey(reports: Reports) -> None:
    """Ends as after Ctrl-C when it is told to, and not by Ctrl-C itself, which the other process hears too."""

    def stop(*_: object) -> None:
        reports.stopped = True
        raise KeyboardInterrupt

    with contextlib.suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)


def _take_over(environment: dict[str, str], path: list[str], threads: int) -> None:
    """The server is older than what has been set since; mp itself takes over the current folder."""
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    torch.set_num_threads(threads)


def _end_with_the_other(pipe: connection.Connection) -> None:
    """Nothing is ever sent here: what comes is the end of the process at the other side."""
    with contextlib.suppress(EOFError, OSError):
        pipe.poll(None)
    os._exit(1)
