"""What an evaluation gives back: a row per test image, and above them what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from ..cells.metrics import METRICS
from ..cells.result import metrics_of, with_settings
from ..cells.rows import COLUMNS, Row
from ..cells.schema import FinishedRecord

ROWS_SHOWN = 10


class Evaluated(pd.DataFrame):
    """One row per test image, and what they come to: shown above the rows, and in `metrics`.

    `.attrs` has the record of the run as `run`, its metrics as `metrics` and the cell's folder, if it has one, as
    `folder`. What is selected from it is a plain DataFrame with the same `.attrs`.
    """

    @classmethod
    def of(cls, rows: Sequence[Row], record: FinishedRecord, folder: Path | None) -> Evaluated:
        frame = pd.DataFrame([row[: len(COLUMNS)] for row in rows], columns=list(COLUMNS))
        found = cls(frame.join(pd.DataFrame([row.more for row in rows])))
        found.attrs["run"] = record.as_json()
        # cells were finished before metrics were recorded
        found.attrs["metrics"] = record.metrics or metrics_of(folder or Path(), record, rows)
        if folder is not None:
            found.attrs["folder"] = str(folder)
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """Name -> value, as `bench.load_results` has them in its columns: `clean_auroc`, `robust_auroc`, ..."""
        return dict(self.attrs["metrics"])

    def __repr__(self) -> str:
        with pd.option_context("display.max_rows", ROWS_SHOWN):
            return "\n".join([*self._headline(), super().__repr__()])

    def _repr_html_(self) -> str:
        above = "".join(f"<div>{escape(line)}</div>" for line in self._headline())
        with pd.option_context("display.max_rows", ROWS_SHOWN):
            return f"{above}{pd.DataFrame(self)._repr_html_()}"

    def _headline(self) -> list[str]:
        """What was run, what it came to, and why it must not be ranked."""
        if "run" not in self.attrs:
            return []
        record = FinishedRecord.model_validate(self.attrs["run"])
        spec, own = record.spec, record.detector.unranked
        headlines = [metric for metric in METRICS.values() if metric.headline and metric.name in self.metrics]
        reasons = ([own] if own else []) + [f"the check {check.name} failed" for check in record.failed]
        return [
            f"{with_settings(spec.detector, spec.detector_parameters)}, {spec.attack}-{spec.norm} {spec.eps} on "
            f"{spec.dataset}/{spec.category}",
            ", ".join(f"{metric.title} {self.metrics[metric.name]:.3f}" for metric in headlines),
            *[f"not ranked: {'; '.join(reasons)}"] * bool(reasons),
        ]
