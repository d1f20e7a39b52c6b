"""`bench compare`: is one detector better than another? Paired by image, and over data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .common import RESULTS, Request, complain, console, option, place

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..analysis.compare import Ranks
    from ..cells.result import Result


@dataclass(frozen=True, kw_only=True)
class CompareRequest(Request):
    """Two detectors or more, the first against each of the others."""

    names: tuple[str, ...]
    """As the leaderboard has them, or folders of cells; each once."""
    metric: str | None
    """None is what a board ranks by."""
    results: Path
    plot: Path | None
    """Where the critical-difference diagram goes."""

    def __post_init__(self) -> None:
        if self.plot is None:
            return
        if self.plot.suffix.lower() != ".png":
            raise UserError(f"--plot {self.plot}: a file that ends in .png is expected")
        if len(self.names) < 3:
            raise UserError("--plot draws the ranks of three detectors or more; two are compared in the table alone")

    def carry_out(self) -> int:
        """Prints the differences; writes nothing but the plot, if it is asked for. 2 if there is none to write."""
        from ..cells.reader import read_results

        results, _, damaged, submitted = read_results(self.results)
        apart = [f"{len(submitted)} submitted cells are not compared: nobody has reproduced them here"]
        for sentence in (*damaged, *apart * bool(submitted)):
            complain(sentence)
        screen = console()
        for other in self.names[1:]:
            screen.print(_differences(self.names[0], other, results, self.metric))
        for sentence in _over_seeds(self.names, results):
            screen.print(sentence, highlight=False, markup=False)
        return _over_data_sets(self, results, screen)


def _over_seeds(names: Sequence[str], results: Sequence[Result]) -> list[str]:
    """How far apart the seeds of each are: the differences above are of one seed each."""
    from ..analysis.compare import chosen
    from ..analysis.remarks import over_seeds

    return over_seeds([r for cells in chosen(names, results).values() for r in cells])


def _differences(one: str, other: str, results: Sequence[Result], metric: str | None) -> Table:
    """A row for each board that has both."""
    from rich import box
    from rich.table import Table

    from ..analysis.compare import compare
    from ..analysis.table import Value

    table = Table(title=f"{one} - {other}", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("on", overflow="fold")
    for column in (one, other, "difference", "in std. errors", "p"):
        table.add_column(column, justify="right", overflow="fold")
    for found in compare(one, other, results, metric):
        scope = f"mean of {len(found.categories)}" if len(found.categories) > 1 else found.categories[0]
        numbers = [Value(value, with_interval=True) for value in (found.a, found.b, found.difference)]
        shown = (*(number.stacked for number in numbers), f"{found.errors:+.1f}", f"{found.p:.3g}")
        table.add_row(f"{found.title} ({scope})", *shown)
    return table


def _over_data_sets(request: CompareRequest, results: Sequence[Result], screen: Console) -> int:
    """Wilcoxon's test of two, Friedman's of more; the exit code."""
    from ..analysis.compare import FEWEST_BLOCKS, over_data_sets

    ranks = over_data_sets(request.names, results, request.metric)
    if ranks is None:
        screen.print(f"over data sets: fewer than {FEWEST_BLOCKS} in common, too few for a test", style="dim")
        if request.plot is not None:
            complain(f"{request.plot} is not written: the plot needs at least {FEWEST_BLOCKS} data sets in common")
        return 0 if request.plot is None else 2
    test = "Wilcoxon" if ranks.critical is None else "Friedman"
    order = ", ".join(f"{name} {rank:.2f}" for name, rank in sorted(ranks.ranks.items(), key=lambda item: item[1]))
    screen.print(f"over {ranks.blocks} data sets: mean rank {order}; {test} p = {ranks.p:.3g}", highlight=False)
    if ranks.critical is not None:
        _critical_difference(request, ranks, screen)
    return 0


def _critical_difference(request: CompareRequest, ranks: Ranks, screen: Console) -> None:
    from ..analysis.compare import cliques
    from ..report.figures.ranks import write_ranks

    alike = "; ".join(" = ".join(group) for group in cliques(ranks)) or "all are told apart"
    screen.print(f"critical difference {ranks.critical:.2f} (Nemenyi, 0.05): {alike}", highlight=False)
    if path := write_ranks(ranks, request.metric or "ranking metric", out=request.plot):
        screen.print(f"written: {path}", style="dim", highlight=False)


def _two_or_more(_: click.Context, __: click.Parameter, typed: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(typed))
    if len(names) < 2:
        raise UserError("two different detectors are needed, for example: bench compare advrad autoencoder")
    return names


@click.command()
@click.argument("names", nargs=-1, metavar="A B [C ..]", callback=_two_or_more)
@option("--metric", metavar="M", help="a column of leaderboard.csv  [default: what the board ranks by: robust_auroc]")
@RESULTS
@option(
    "--plot",
    type=click.Path(),
    callback=place,
    metavar="FILE.png",
    help="write the critical-difference diagram of three detectors or more",
)
def command(**options: Any) -> CompareRequest:
    """Is one detector better than another?

    The names are detectors as the leaderboard has them, or folders of two cells.

    The difference of a metric between two detectors (or two cells), image by image, with an interval and a p-value.
    With six data sets or more in common (a category is one; its attacks and budgets share
    images, so their mean counts): Wilcoxon's test of two detectors, Friedman's of more.
    """
    return CompareRequest(**options)
