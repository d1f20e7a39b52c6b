"""What a process that runs cells says to the one that shows them: events, sent through a pipe."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ..core.progress import Monitor, Progress
from ..core.score import where_it_failed
from ..errors import UserError

STEP_EVERY_SECONDS = 0.1  # of a fit: nobody reads more


class Planned(NamedTuple):
    """The names of all cells, those included that another process has done already."""

    labels: tuple[str, ...]


class Rows(NamedTuple):
    """Of the cell that runs now."""

    done: int
    total: int


class Told(NamedTuple):
    """Something worth knowing."""

    sentence: str


class Yielded(NamedTuple):
    """One of several things that were asked for."""

    value: Any


class FitStep(NamedTuple):
    """Of the fit of a detector, named as it was typed."""

    name: str
    step: int
    total: int
    loss: float | None


class Finished(NamedTuple):
    """The cell that runs now is done; its folder, or what else was asked for."""

    value: Any


class Failed(NamedTuple):
    """The cell that runs now, or before any of them everything, has failed."""

    why: str
    unexpected: bool = False
    """No UserError, which would name what it is about: `why` speaks of "it"."""


Event = Planned | Rows | Told | Yielded | FitStep | Finished | Failed
Cell = tuple[str, Callable[[Monitor], Path]]
"""Its name, and what runs it."""


class Reports:
    """The end of the pipe that belongs to the process that works."""

    def __init__(self, connection: Connection):
        self._connection, self._alone, self._home = connection, threading.Lock(), os.getpid()
        self.stopped = False
        """True: the other process has asked for the end."""

    def send(self, event: Event) -> None:
        if os.getpid() != self._home:  # what a plug-in has forked, and let return
            os._exit(1)
        with self._alone:
            self._connection.send(event)

    def tell(self, sentence: str) -> None:
        self.send(Told(sentence))

    def fit(self, name: str) -> Progress:
        """Passes on the steps of a fit."""
        return _Steps(self, name)

    def run(self, cells: Sequence[Cell], first: int) -> None:
        """Every cell from the first on; what fails is said, whatever it raises, and the others go on."""
        self.send(Planned(tuple(label for label, _ in cells)))
        for _, run in cells[first:]:
            monitor = Monitor(lambda done, total: self.send(Rows(done, total)), self.tell)
            self.answer(partial(run, monitor))

    def answer(self, ask: Callable[[], Any]) -> None:
        """Sends what it returns, or why it does not."""
        self.attempt(lambda: self.send(Finished(ask())))

    def attempt(self, work: Callable[[], None]) -> None:
        """Sends why it failed, if it does: a plug-in may raise anything, SystemExit too."""
        try:
            work()
        except UserError as error:
            self.send(Failed(str(error)))
        except BaseException as error:
            if self.stopped:
                raise
            self.send(Failed(f"it raised {where_it_failed(error)}", unexpected=True))


class _Steps(Progress):
    def __init__(self, reports: Reports, name: str):
        self._reports, self._name, self._said = reports, name, 0.0

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        if step >= total or time.monotonic() - self._said > STEP_EVERY_SECONDS:
            self._said = time.monotonic()
            with contextlib.suppress(TypeError, ValueError):  # a loss that is no number
                loss = None if loss is None else float(loss)
            self._reports.send(FitStep(self._name, int(step), int(total), loss))
