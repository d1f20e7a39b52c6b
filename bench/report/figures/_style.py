"""What all figures share: one style, one way to draw a line with intervals, one way to a file."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...stats.intervals import Estimate
from ...system import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).parents[2] / "bench.mplstyle"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of the style, in its order."""
MARKERS = "osD^vPX"
FAINT = "0.6"  # of what is there to compare with: chance, no loss
CHANCE = 0.5  # the AUROC of a detector that knows nothing
LONGEST_NAME = 150
SEPARATED = re.compile(r"[A-Za-z0-9.\s,:/_-]*")
"""A title of which a hyphen for what separates its words loses nothing."""
LEGEND_INSIDE = 6  # more lines than this would lie under their names


@contextlib.contextmanager
def style() -> Iterator[None]:
    """What is made meanwhile looks like a figure of this package; the user's own settings come back."""
    import matplotlib.style

    with matplotlib.style.context(STYLE):
        yield


def colour(i: int) -> str:
    """Of the i-th line."""
    return COLOURS[i % len(COLOURS)]


def shape(i: int) -> int:
    """Which of as many markers as MARKERS has is that of the i-th line: another one where the colours begin again."""
    return (i + i // len(COLOURS)) % len(MARKERS)


def marker(i: int) -> str:
    """Of the i-th line."""
    return MARKERS[shape(i)]


def arms(values: Sequence[Estimate]) -> list[list[float]]:
    """How far the intervals reach below and above their values: (2, values)."""
    return [[max(v.value - v.low, 0) for v in values], [max(v.high - v.value, 0) for v in values]]


def with_intervals(axes: Axes, x: Sequence[float], values: Sequence[Estimate], label: str, i: int, **more: Any) -> None:
    """The i-th line, with a bar for the interval of each value."""
    axes.errorbar(
        x,
        [v.value for v in values],
        yerr=arms(values),
        label=label,
        color=colour(i),
        marker=marker(i),
        clip_on=False,
        **more,
    )


def auroc_axis(axes: Axes, label: str = "AUROC") -> None:
    """From 0 to 1 upwards, with a line at chance."""
    axes.axhline(CHANCE, color=FAINT, linewidth=0.8, linestyle=":")
    axes.set(ylabel=label, ylim=(0, 1.02))


def legend(axes: Axes, lines: int) -> None:
    """Inside where there is room for so many lines, else beside the plot."""
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    entries = zip(*axes.get_legend_handles_labels(), strict=True)
    first = sorted(entries, key=lambda entry: not isinstance(entry[0], tuple))  # lines with intervals, in their order
    axes.legend(*zip(*first, strict=True), **(beside if lines > LEGEND_INSIDE else {"loc": "best"}))


def size(lines: int) -> tuple[float, float]:
    """Of a figure, in inches: wider and taller where the legend is beside it."""
    return (11, max(4.2, 0.22 * lines + 0.6)) if lines > LEGEND_INSIDE else (6.4, 4.2)


def new(inches: tuple[float, float]) -> Figure:
    """A figure that no window knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
    return figure


def stem(name: str, hashed: bool = False) -> str:
    """Of a file: `name` with a hyphen for what is no letter, digit or full stop.

    With 8 digits of its hash where `hashed` asks for them, and where too much is lost: another name (`x=-1` and `x=1`)
    may be left with the same letters.
    """
    found = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    # every setting is in a name, and file systems have limits
    if hashed or len(found) > LONGEST_NAME or not SEPARATED.fullmatch(name):
        found = f"{found[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")
    return found


def save(figure: Figure, path: Path) -> Path:
    """As a PNG."""
    with style(), files.writing(path) as partial:
        figure.savefig(partial, format="png")
    return path
