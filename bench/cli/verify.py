"""`bench verify`: do the files of a cell still say what was computed? One line per test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .common import complain, option, place, say, whole
from .stored import StoredRequest, each_cell, where_things_lie

if TYPE_CHECKING:
    from ..audit.rebuild import Overrides
    from ..audit.rerun import Rerun
    from ..cells.submission import CellLocation

IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class VerifyRequest(StoredRequest):
    """Cells, our own or of a submission, whose numbers are computed again."""

    no_scores: bool
    rerun: bool
    images: int | None
    seed: int | None
    refit: bool
    other_versions: bool
    cell_timeout: int | None

    def __post_init__(self) -> None:
        given = {
            "--images": self.images is not None, "--seed": self.seed is not None, "--refit": self.refit,
            "--other-versions": self.other_versions, "--cell-timeout": self.cell_timeout is not None,
        }  # fmt: skip
        if not self.rerun and any(given.values()):
            raise UserError(f"{next(name for name, is_given in given.items() if is_given)} is of --rerun")
        if self.rerun and self.no_scores:
            raise UserError("--rerun scores and attacks: leave out --no-scores")

    def carry_out(self) -> int:
        """1 if something differs."""
        from ..audit.verify import verify
        from ..cells.submission import cells_in

        overrides, found = self.overrides({}), cells_in(self.path)
        if self.rerun:
            return self._rerun(found, overrides)
        return each_cell(
            found, lambda cell: verify(cell.folder, overrides, not self.no_scores, submitted=bool(cell.source))
        )

    def _rerun(self, cells: list[CellLocation], overrides: Overrides) -> int:
        """Each submission as a whole, and our own cells without a record of it."""
        import secrets

        from ..audit.rerun import Rerun

        seed = secrets.randbelow(2**31) if self.seed is None else self.seed
        how = Rerun(seed, self.images or IMAGES, self.refit, self.other_versions)
        sources = list(dict.fromkeys(cell.source for cell in cells))
        codes = [
            self._one(source, [cell for cell in cells if cell.source == source], overrides, how) for source in sources
        ]
        say(f"images were chosen with --seed {seed}")
        return max(codes)

    def _one(self, source: str, cells: list[CellLocation], overrides: Overrides, how: Rerun) -> int:
        """One submission, whose cells are those; the exit code."""
        from ..audit.reproduce import rerun_all, write_verdict
        from ..audit.rerun import Reran
        from ..harness.process import Broken

        worst, found = 0, dict[str, Reran]()
        for cell, reran in rerun_all(cells, overrides, how, self.cell_timeout):
            if len(cells) > 1:
                say(cell.name)
            if isinstance(reran, UserError):
                broken = isinstance(reran, Broken)
                text = str(reran).replace(str(cell.folder), cell.name)
                say(f"FAIL    rerun: {text}") if broken else complain(text)
                worst = max(worst, 1 if broken else 2)
                continue
            for test in reran.tests:
                say(test)
            found[cell.inside] = reran
            worst = max(worst, int(not reran.reproduced))
        if source and len(found) == len(cells):
            path = write_verdict(Path(source), cells[0].sha256, found, how, self.device)
            say(f"{'not reproduced' if worst else 'reproduced'}: written to {path}")
        elif source:
            say(f"nothing is written beside {source}: not all of its cells could be run here")
        return worst


@click.command()
@click.argument("path", type=click.Path(), default="results", callback=place)
@click.option("--no-scores", is_flag=True, help="fit nothing and score nothing")
@click.option(
    "--rerun", is_flag=True, help="score everything and attack a few images again; only then a submission is ranked"
)
@option("--images", callback=whole(2), metavar="N", help=f"of a cell, to attack again  [default: {IMAGES}]")
@option("--seed", callback=whole(0), metavar="S", help="chooses them; drawn anew where it is left out")
@click.option("--refit", is_flag=True, help="fit the detector here, although its weights are carried")
@click.option("--other-versions", is_flag=True, help="accept other packages and code than those of the run")
@option("--cell-timeout", callback=whole(1), metavar="S", help="seconds that a cell may take")
@where_things_lie
def command(**options: Any) -> VerifyRequest:
    """Do the files of a cell still say what was computed?

    PATH is a cell's folder, a folder of cells, or a submission; by default `results`.

    Computes every published metric of a cell from its rows, looks at hashes, budgets and columns, and scores its
    stored images again: one line per test. With --rerun the detector is loaded or fitted, all clean scores, the
    threshold and the checks are made again, and images of your choice are attacked again; what came of it is written
    beside a submission, and ranks it. Exit code 0 if nothing differs, 1 if something does or nothing could be
    compared, 2 on bad input.
    """
    return VerifyRequest(**options)
