"""A cell whose rows are about anomaly maps: `--goal map`."""

from __future__ import annotations

from dataclasses import dataclass

from ..cells.rows import Row
from ..cells.schema import Record
from ..checks.of_map import checks_of_maps
from ..core.attack import Attack, Method
from ..core.check import Outcome
from ..core.data import Data
from ..core.detector import Detector
from ..core.progress import Monitor
from ..engine.localiser import Localiser, MapScale
from ..engine.worker import Prepared, Work
from ..errors import UserError
from .cell import Cell


def refuse_attack(attack: Attack, name: str) -> None:
    """UserError for an attack that is about more than a number to be raised."""
    if attack.needs_threshold or attack.parts or attack.surveyed or attack.settles:
        raise UserError(
            f"--goal map moves anomaly maps, and {name} is about image scores; attacks that fit: apgd-linf, pgd-linf, "
            "eot-pgd-linf, square-linf, noise-linf"
        )


@dataclass(frozen=True)
class MapCell(Cell):
    """A cell whose rows say where the pixels of anomaly maps lie, before an attack on them and after."""

    kind = "localisation"

    def _worker(self, data: Data, prepared: Prepared, attack: Method, batch_size: int, monitor: Monitor) -> Work:
        assert isinstance(attack, Attack)
        return Localiser(self.spec, data, prepared, attack, self.warm_starts, monitor.tell)

    def _work(
        self, data: Data, worker: Work, rows: list[Row], record: Record, batch_size: int, monitor: Monitor
    ) -> None:
        """All rows of a cell are on one scale: that of the first ones."""
        assert isinstance(worker, Localiser)
        if record.map_scale is None:
            record.map_scale = worker.scale.record
        else:
            worker.scale = MapScale.of(record.map_scale)
        super()._work(data, worker, rows, record, batch_size, monitor)

    def _scores_are_those(self, detector: Detector, data: Data, rows: list[Row]) -> bool:
        return True  # they are no scores: the state and the code must do

    def _checks(self, data: Data, worker: Work, attack: Method, rows: list[Row], record: Record) -> Outcome:
        assert isinstance(attack, Attack) and isinstance(worker, Localiser)
        return checks_of_maps(self.spec, data, worker, attack, rows)
