"""What a figure is: its data, read once from results, and the two forms in which people see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...cells.result import Result
from ._plotly import Spec
from ._style import new, save, size, stem, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Drawing(ABC):
    """One panel, before it is drawn."""

    @property
    @abstractmethod
    def heading(self) -> str:
        """Above the panel, in one line or more."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of its file, before `stem` takes out what a file system cannot have."""

    @property
    @abstractmethod
    def inches(self) -> tuple[float, float]:
        """Width and height."""

    @abstractmethod
    def draw(self, axes: Axes) -> None:
        """With matplotlib; whoever calls has set the style."""

    def write(self, path: Path) -> Path:
        """As a PNG."""
        figure = new(self.inches)
        with style():
            self.draw(figure.add_subplot())
        return save(figure, path)

    def write_below(self, folder: Path, hashed: bool = False) -> Path:
        """As a PNG in `folder`, called as `stem` says."""
        return self.write(folder / f"{stem(self.name, hashed)}.png")


class Figure(Drawing):
    """A figure of a kind. Each file in this folder that holds one is a kind of its own, called as the file is: its PNGs
    are in a report, its `spec` is on the page, and `bench.plot` has a function of that name with the docstring of the
    class."""

    group: ClassVar[str]
    """The kind in words, as the page lists it."""
    needs: ClassVar[str]
    """What the results must hold for there to be any, as an error says it."""
    place: ClassVar[int] = 100
    """Kinds come by it, those of one place by name."""
    about: ClassVar[Literal["scores", "shifts"]] = "scores"
    """Of which cells: attacks and certificates, or shifts."""
    of_cells: ClassVar[bool] = False
    """There is one per cell, too many for a report: the page has it beside the cell."""

    @classmethod
    @abstractmethod
    def of(cls, results: Sequence[Result]) -> Sequence[Figure]:
        """Every one that these results have something for; no two of them have the same title."""

    @classmethod
    def made_of(cls, results: Sequence[Result]) -> Sequence[Figure]:
        """`of` those that the kind is about."""
        if cls.about == "shifts":
            return cls.of([r for r in results if r.of_shifts])
        return cls.of([r for r in results if (r.of_scores if cls.of_cells else r.of_both_classes)])

    @property
    def title(self) -> str:
        """In one line."""
        return self.heading.replace("\n", ", ")

    @property
    @abstractmethod
    def shows(self) -> int:
        """How many detectors: where there are too many figures, those of the most are written."""

    @abstractmethod
    def spec(self) -> Spec:
        """As the page draws it; see `chart`."""


class Lines(Figure):
    """A line per detector, and a legend that names them."""

    called: ClassVar[str]
    """How the names of its files begin."""

    lines: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.called} {self.heading}"

    @property
    def shows(self) -> int:
        return len(self.lines)

    @property
    def inches(self) -> tuple[float, float]:
        return size(len(self.lines))
