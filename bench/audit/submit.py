"""`bench submit`: finished cells in one file; `cells/submission.py` reads it again.

A submission is a zip of DATASET/CATEGORY/DETECTOR/ATTACK-NORM-EPS/{run.json, samples.csv, images/*.npz}, as in a
results folder, and of weights/SHA256.safetensors, each once. The same cells give the same bytes.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..cells.metrics import METRICS
from ..cells.reader import differ
from ..cells.record import cells_below, read_record
from ..cells.schema import FinishedRecord
from ..cells.spec import RunSpec
from ..cells.submission import SUFFIX, WEIGHTS
from ..errors import UserError
from ..plugins import kept_fits
from ..plugins.lookup import default_size
from ..system import files
from ..system.files import file_sha256
from .rebuild import Overrides
from .verify import verify

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold, of every file


class Packed(NamedTuple):
    """A cell of a submission."""

    place: PurePosixPath
    """Below a results folder."""
    folder: Path
    record: FinishedRecord

    @property
    def files(self) -> list[str]:
        return ["run.json", "samples.csv", *sorted({image.file for image in self.record.images})]

    def __str__(self) -> str:
        record = self.record
        metrics = record.metrics or {}
        headlines = [name for name, metric in METRICS.items() if metric.headline and name in metrics]
        shown = [f"{METRICS[name].title} {metrics[name]:.3f}" for name in headlines]
        counts = [f"{record.rows} rows", f"{len(self.files) - 2} images"]
        failed = [f"{check.name} check failed" for check in record.failed]
        return f"{self.place}: {', '.join([*counts, *shown, *failed])}"


def submit(path: Path, out: Path, weights: bool = True) -> Iterator[str]:
    """Pack a cell, or every finished cell below a folder, into `out`; yields a sentence on each cell and on the file.

    weights: with what the detectors have learned, from the cache.
    Raises UserError, and writes nothing, if there is none, one is not what its record says, or weights are not there.
    """
    if path.suffix == SUFFIX and path.is_file():
        raise UserError(f"{path} is a submission already; `bench verify {path}` looks into it")
    cells = []
    for folder in cells_below(path):
        record = read_record(folder)
        if not isinstance(record, FinishedRecord):
            yield f"left out, not finished: {folder}"
            continue
        if record.kind not in ("attack", "certificate"):  # nobody could reproduce it
            yield f"left out, of kind {record.kind}, which `bench verify --rerun` does not run again: {folder}"
            continue
        failed = [line for line in verify(folder, Overrides(), scores=False, submitted=True) if line.status == "FAIL"]
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise UserError(f"{folder} is not submitted: {failed[0].name}: {failed[0].sentence}{more}")
        cells.append(Packed(_place(record.spec), folder, record))
    if not cells:
        raise UserError(f"no finished cell in {path}; `bench run` makes some")
    cells = _without_twins(cells)
    carried = _weights_of(cells) if weights else {}
    _pack(cells, carried, out)
    for cell in cells:
        yield str(cell)
    count = f"{len(cells)} cells" if len(cells) > 1 else "1 cell"
    learned = f"{len(carried)} fit{'s' * (len(carried) > 1)}, " if carried else ""
    yield f"written: {out} ({count}, {learned}{out.stat().st_size / 2**10:.0f} KiB, sha256 {file_sha256(out)[:8]})"
    yield (
        "next: publish it, with the code of detectors and attacks that are not built in; below a results folder "
        f"`bench report` shows it, and ranks it once `bench verify {out} --rerun` has reproduced it there"
    )


def _place(spec: RunSpec) -> PurePosixPath:
    """Where `bench run` would have put it."""
    return PurePosixPath(spec.folder(Path(), default_size(spec.dataset)))


def _without_twins(cells: Sequence[Packed]) -> list[Packed]:
    found: dict[PurePosixPath, Packed] = {}
    for cell in sorted(cells, key=lambda cell: (cell.place, cell.folder)):
        twin = found.setdefault(cell.place, cell)
        if twin.record.samples_sha256 != cell.record.samples_sha256:
            raise UserError(differ(str(twin.folder), str(cell.folder)))
    alike: dict[str, PurePosixPath] = {}
    for place in found:
        if (other := alike.setdefault(str(place).lower(), place)) != place:
            raise UserError(
                f"{other} and {place} differ only in capital letters, which not every file system tells apart: submit "
                "them in two files"
            )
    return list(found.values())


def _weights_of(cells: Sequence[Packed]) -> dict[str, Path]:
    """The files of all that the detectors have learned, by hash."""
    hashes = [(cell, cell.record.detector.fit.hashes) for cell in cells if cell.record.detector.fit]
    found = kept_fits.find({digest for _, own in hashes for digest in own.values()})
    for cell, own in hashes:
        if lost := [digest for digest in own.values() if digest not in found]:
            raise UserError(
                f"{cell.folder} is not submitted: the weights {lost[0][:8]} that it was run with are not in the cache "
                "here; submit it where it was run, or --without-weights"
            )
    return dict(sorted(found.items()))


def _pack(cells: Sequence[Packed], weights: Mapping[str, Path], out: Path) -> None:
    members = sorted((f"{cell.place}/{name}", cell.folder / name) for cell in cells for name in cell.files)
    members += [(f"{WEIGHTS}/{digest}{path.suffix}", path) for digest, path in weights.items()]
    with files.writing(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in members:
            member = zipfile.ZipInfo(name, EARLIEST)
            member.create_system, member.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # Unix, wherever it is made
            learned = path.suffix == ".safetensors"  # of which next to nothing could be pressed out
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_STORED if learned else zipfile.ZIP_DEFLATED)
