"""What `check-run` and `verify` share: stored cells, where things lie that they name, and a line per finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UserError
from .common import DEVICE, Request, assignments, complain, known, option, place, say, tell, together

if TYPE_CHECKING:
    from ..audit.check_run import Rechecked
    from ..audit.rebuild import Overrides
    from ..audit.verify import Verified
    from ..cells.submission import CellLocation


@dataclass(frozen=True, kw_only=True)
class StoredRequest(Request):
    """Cells below a path, and what their records cannot hold: where files lie on this computer."""

    path: Path
    data_root: Path | None
    params: Mapping[str, str]
    detector: str | None
    attack: str | None
    dataset: str | None
    device: str

    def overrides(self, attack_params: Mapping[str, str]) -> Overrides:
        """For those who build a cell's detector again."""
        from ..audit.rebuild import Overrides

        return Overrides(
            self.params,
            attack_params,
            self.detector,
            self.attack,
            self.dataset,
            self.data_root,
            self.device,
            tell,
        )


where_things_lie = together(
    option("--data-root", type=click.Path(), callback=place, metavar="DIR",
           help="folder of the images, where the cell had one"),
    option("--param", "params", multiple=True, callback=assignments, metavar="K=FILE",
           help="a parameter that was a file (repeatable)"),
    option("--detector", metavar="FILE:CLASS", shell_complete=known("detectors"),
           help="where the detector came from a file"),
    option("--attack", metavar="FILE:CLASS", help="where the attack came from a file"),
    option("--dataset", metavar="FILE", help="where the data set came from a file"),
    DEVICE,
)  # fmt: skip


def each_cell(
    cells: Sequence[CellLocation], lines_of: Callable[[CellLocation], Iterable[Rechecked] | Iterable[Verified]]
) -> int:
    """Print the lines of every cell, which is named where there are several; the exit code.

    Whatever is wrong with a cell of a submission is one line, and the others are looked at.
    """
    worst = 0
    for cell in cells:
        if len(cells) > 1:
            say(cell.name)
        try:
            for line in lines_of(cell):
                say(line)
                worst = max(worst, int(line.status in ("FAIL", "changed")))
        except UserError as error:
            complain(str(error).replace(str(cell.folder), cell.name))
            worst = 2
        except Exception as error:
            if not cell.source:
                raise
            complain(f"{cell.name}: it cannot be read ({type(error).__name__})")
            worst = 2
    return worst
