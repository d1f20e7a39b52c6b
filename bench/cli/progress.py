"""What a person sees while it works: a bar with an ETA per cell and per fit, plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from ..core.progress import Monitor, Progress

LINE_EVERY_SECONDS = 30.0  # where there is no terminal for a bar


class Bars:
    """Bars on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[dim]elapsed"),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def tell(self, message: str) -> None:
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def all_of(self, jobs: int) -> Iterator[Callable[[], None]]:
        """Shows how many detectors and categories are done, where there are several; call it after each."""
        if jobs < 2:
            yield lambda: None
            return
        task = self.bars.add_task("detectors and categories", total=jobs)
        try:
            yield lambda: self.bars.advance(task)
        finally:
            self.bars.remove_task(task)

    def already_there(self, label: str) -> None:
        """A cell that is finished, and was only read."""
        self.tell(f"{label}: already there")

    def fit(self, name: str) -> Progress:
        """Shows the fit of one detector."""
        return FitBar(self, name)

    @contextlib.contextmanager
    def cell(self, label: str) -> Iterator[Monitor]:
        """Shows one cell; the bar appears when its first batch begins."""
        task: TaskID | None = None
        begun: tuple[float, int] | None = None

        def on_rows(done: int, total: int) -> None:
            nonlocal task, begun
            if task is None:
                task, begun = self.bars.add_task(label, total=total), (time.monotonic(), done)
            self.bars.update(task, completed=done)

        try:
            yield Monitor(on_rows, self.tell)
        finally:
            if task is not None:
                self.bars.remove_task(task)
        if begun is None:
            self.already_there(label)
        else:
            self.tell(f"{label}: done in {time.monotonic() - begun[0]:.0f} s")


class FitBar(Progress):
    """The bar of a fit, with the training loss."""

    def __init__(self, screen: Bars, name: str):
        self.screen, self.name = screen, name
        self.task: TaskID | None = None
        self.begun = self.said = 0.0

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        label = f"fitting {self.name}" + (f"  loss {loss:.4f}" if loss is not None else "")
        bars = self.screen.bars
        if self.task is None:
            self.task = bars.add_task(label, total=total)
            self.begun = self.said = time.monotonic()
        bars.update(self.task, completed=step, total=total, description=label)
        if step >= total:
            bars.remove_task(self.task)
            self.task = None
            self.screen.tell(f"{label}, {total} steps in {time.monotonic() - self.begun:.0f} s")
        elif not self.screen.console.is_terminal and time.monotonic() - self.said > LINE_EVERY_SECONDS:
            self.said = time.monotonic()
            self.screen.tell(f"{label}, step {step} of {total}")
