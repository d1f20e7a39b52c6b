"""From the results folder to files that people read: tables, plots, the page."""

from __future__ import annotations

import contextlib
import gc
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from threadpoolctl import threadpool_limits

from ..analysis.boards import order, refuse_unknown_column
from ..cells.filters import Filters
from ..cells.reader import Results, read_results, tidy
from ..cells.result import Result
from ..errors import UserError, unknown
from ..system import files
from .text import for_spreadsheets

DEFAULT_FORMATS = ("md", "html", "csv")


class Report(NamedTuple):
    """What was read, and the files that were written."""

    found: Results
    written: list[Path]


def write_report(
    root: Path,
    out: Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    filters: Filters | None = None,
    sort: str = "",
) -> Report:
    """Reads the cells below `root` and writes below `out`, by default the same folder.

    formats: of FORMATS. sort: see `boards.order`.
    Raises UserError for an unknown format or column, where there is nothing to report, and where `out` cannot be
    written; nothing is written before everything that can be refused is.
    """
    out = root if out is None else out
    _refuse(formats, out)
    # thousands of small products: threads would only wait for each other; and millions of objects without a cycle
    with threadpool_limits(1), _uncollected():
        found = read_results(root, filters)
        refuse_unknown_column(sort, [*found.results, *found.submitted])
        with files.says_why(out):
            out.mkdir(parents=True, exist_ok=True)
        written = [path for name in dict.fromkeys(formats) for path in FORMATS[name](found, out, sort)]
    return Report(found, written)


def _refuse(formats: Sequence[str], out: Path) -> None:
    """What can be known before the cells are read."""
    for name in formats:
        if name not in FORMATS:
            raise unknown("--format", name, FORMATS)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; a folder is expected")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which takes a sixth of the time of a large report and finds next to nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _markdown(found: Results, out: Path, sort: str) -> list[Path]:
    from .figures import write_figures
    from .leaderboard import markdown

    plots, left_out = write_figures(found.results, out)
    path = out / "LEADERBOARD.md"
    notes = [*found.damaged, *found.notes, *left_out]
    files.write_text(path, markdown(found.results, notes, plots, sort, found.submitted))
    return [path, *plots]


def _page(found: Results, out: Path, sort: str) -> list[Path]:
    from .page import write_page

    return write_page(found, out / "report", sort)


def _csv(found: Results, out: Path, sort: str) -> list[Path]:
    return _tables(found, out, sort, "csv", lambda frame: for_spreadsheets(frame).to_csv(index=False).encode())


def _json(found: Results, out: Path, sort: str) -> list[Path]:
    return _tables(
        found, out, sort, "json", lambda frame: frame.to_json(orient="records", indent=1, double_precision=15).encode()
    )


def _parquet(found: Results, out: Path, sort: str) -> list[Path]:
    return _tables(found, out, sort, "parquet", _parquet_of)


def _parquet_of(frame: pd.DataFrame) -> bytes:
    """Settings are JSON in it: their keys differ from row to row."""
    for column in frame:
        if frame[column].map(lambda value: isinstance(value, dict)).any():
            frame[column] = frame[column].map(json.dumps)
    content = io.BytesIO()
    try:
        frame.to_parquet(content, index=False)
    except ImportError:
        raise UserError("--format parquet needs pyarrow: pip install pyarrow") from None
    return content.getvalue()


def _tables(found: Results, out: Path, sort: str, kind: str, content: Callable[[pd.DataFrame], bytes]) -> list[Path]:
    """leaderboard.KIND; and submitted.KIND of what nobody has reproduced, which goes when there is nothing left."""
    board, apart = (out / f"{name}.{kind}" for name in ("leaderboard", "submitted"))
    with files.writing(board) as partial:
        partial.write_bytes(content(_sorted(found.results, sort)))
    if not found.submitted:
        with files.says_why(apart):
            apart.unlink(missing_ok=True)
        return [board]
    with files.writing(apart) as partial:
        partial.write_bytes(content(tidy(found.submitted)))
    return [board, apart]


def _sorted(results: Sequence[Result], sort: str) -> pd.DataFrame:
    """A row per cell."""
    cells = {str(r.folder): [r] for r in results}
    return tidy([cells[name][0] for name in order(cells, sort)] if sort else results)


FORMATS: Mapping[str, Callable[[Results, Path, str], list[Path]]] = {
    "md": _markdown,
    "html": _page,
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
}
