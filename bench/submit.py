"""`bench submit`: finished cells in one file, and how such a file is read again.

A submission is a zip of DATASET/CATEGORY/DETECTOR/ATTACK-NORM-EPS/{run.json, samples.csv, images/*.npz}, as in a
results folder. The same cells give the same bytes. Of a file that somebody else made nothing is believed.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from . import files
from .api import default_size
from .cells import Place, differ, submissions_below
from .check_run import Given, cells_below
from .errors import UserError
from .fitting import cache_folder
from .parameters import file_sha256
from .run import RunSpec, read_record
from .schema import IMAGE
from .threat import ThreatModel
from .verify import verify

SUFFIX = ".zip"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold, of every file
MEMBER = re.compile(rf"(?:[A-Za-z0-9_+-][A-Za-z0-9._+-]*/){{1,8}}(?:run\.json|samples\.csv|{IMAGE})")
MEMBERS = 100_000
MEMBER_BYTES = 256 * 2**20
BYTES = 2 * 2**30  # of a submission, packed or not


class Packed(NamedTuple):
    """A cell of a submission."""

    place: PurePosixPath
    """Below a results folder."""
    folder: Path
    record: dict[str, Any]

    @property
    def files(self) -> list[str]:
        return ["run.json", "samples.csv", *sorted({entry["file"] for entry in self.record.get("images", ())})]

    def __str__(self) -> str:
        record = self.record
        metrics = record.get("metrics") or {}
        names = ("clean_auroc", "robust_auroc", "certified_auroc", "robust_accuracy", "certified_accuracy")
        shown = [f"{name.replace('_', ' ')} {metrics[name]:.3f}" for name in names if name in metrics]
        counts = [f"{record['rows']} rows", f"{len(self.files) - 2} images"]
        failed = [f"{check['name']} check failed" for check in record["checks"] if not check["passed"]]
        return f"{self.place}: {', '.join([*counts, *shown, *failed])}"


def submit(path: Path, out: Path) -> Iterator[str]:
    """Pack a cell, or every finished cell below a folder, into `out`; yields a sentence on each cell and on the file.

    Raises UserError, and writes nothing, if there is none or one is not what its record says.
    """
    if path.suffix == SUFFIX and path.is_file():
        raise UserError(f"{path} is a submission already; `bench verify {path}` looks into it")
    cells = []
    for folder in cells_below(path):
        record = read_record(folder)
        if record.get("status") == "running":
            yield f"left out, not finished: {folder}"
            continue
        failed = [line for line in verify(folder, Given(), scores=False, submitted=True) if line.status == "FAIL"]
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise UserError(f"{folder} is not submitted: {failed[0].name}: {failed[0].sentence}{more}")
        cells.append(Packed(_place(record), folder, record))
    if not cells:
        raise UserError(f"no finished cell in {path}; `bench run` makes some")
    cells = _without_twins(cells)
    _pack(cells, out)
    for cell in cells:
        yield str(cell)
    count = f"{len(cells)} cells" if len(cells) > 1 else "1 cell"
    yield f"written: {out} ({count}, {out.stat().st_size / 2**10:.0f} KiB, sha256 {file_sha256(out)[:8]})"
    yield (
        "next: publish it, with the code of detectors and attacks that are not built in; below a results folder, "
        f"`bench report` ranks it, and `bench verify {out}` lets anybody check it"
    )


def _place(record: dict[str, Any]) -> PurePosixPath:
    """Where `bench run` would have put it."""
    spec = dict(record["spec"])
    threat = ThreatModel(spec.pop("norm"), spec.pop("eps"), spec.pop("targets"))
    placed = RunSpec(**spec, threat=threat, default_image_size=default_size(spec["dataset"])).folder(Path())
    # of what another tool wrote: no part may be hidden, or mean a folder above
    return PurePosixPath(*(re.sub(r"^\.", "_", part) for part in placed.parts))


def _without_twins(cells: Sequence[Packed]) -> list[Packed]:
    found: dict[PurePosixPath, Packed] = {}
    for cell in sorted(cells, key=lambda cell: (cell.place, cell.folder)):
        twin = found.setdefault(cell.place, cell)
        if twin.record["samples_sha256"] != cell.record["samples_sha256"]:
            raise UserError(differ(str(twin.folder), str(cell.folder)))
    return list(found.values())


def _pack(cells: Sequence[Packed], out: Path) -> None:
    members = sorted((f"{cell.place}/{name}", cell.folder / name) for cell in cells for name in cell.files)
    with files.writing(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in members:
            member = zipfile.ZipInfo(name, EARLIEST)
            member.create_system, member.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # Unix, wherever it is made
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)


def cells_in(path: Path) -> list[Place]:
    """A cell, or those of a submission, or those below a folder and in its submissions."""
    if path.is_file() and path.name != "run.json":
        return cells_of_submission(path, str(path))
    submissions = submissions_below(path) if path.is_dir() else []
    within = [place for submission in submissions for place in cells_in(submission)]
    if not within or any(path.rglob("run.json")):
        return [Place(folder) for folder in cells_below(path)] + within
    return within


def cells_of_submission(path: Path, source: str) -> list[Place]:
    """Its cells, unpacked; see `unpacked`. source: how it is called."""
    root = unpacked(path)
    folders = sorted(found.parent for found in root.rglob("run.json"))
    return [Place(folder, source, folder.relative_to(root).as_posix()) for folder in folders]


def unpacked(path: Path) -> Path:
    """The folder below the cache that holds what is in the submission; unpacked once for each content.

    Raises UserError, and leaves nothing behind, for a file that is damaged, too large, or holds anything but cells.
    """
    with files.says_why(path):
        if path.stat().st_size > BYTES:
            raise UserError(f"{path} is not a submission: it is larger than {BYTES // 2**30} GiB")
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)
    folder = cache_folder() / "submissions" / f"{stem}-{file_sha256(path)[:24]}"
    if folder.is_dir():
        return folder
    with files.says_why(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpacking-"))
        try:
            _unpack(path, partial)
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # nor has another process been faster
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _refuse(path, members)
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy)  # never more than the size that was looked at
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is no whole submission ({reason}); get it again, or remove it") from None


def _refuse(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """UserError for a zip with anything in it that `submit` would not have written."""

    def wrong(why: str) -> UserError:
        return UserError(f"{path} is not a submission: {why}")

    if len(members) > MEMBERS or sum(member.file_size for member in members) > BYTES:
        raise wrong(f"it holds more than {MEMBERS:,} files or {BYTES // 2**30} GiB")
    names = {member.filename for member in members}
    for member in members:
        name = member.filename
        if not MEMBER.fullmatch(name):
            raise wrong(f"it holds {name[:200]!r}; expected run.json, samples.csv and images/*.npz in folders of cells")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise wrong(f"{name} is a link or a device, not a file")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise wrong(f"{name} is compressed in a way that is not supported")
        if member.file_size > MEMBER_BYTES:
            raise wrong(f"{name} is larger than {MEMBER_BYTES // 2**20} MiB")
        cell = re.sub(rf"/(run\.json|samples\.csv|{IMAGE})$", "", name)
        if not {f"{cell}/run.json", f"{cell}/samples.csv"} <= names:
            raise wrong(f"{cell} is no cell: a run.json and a samples.csv belong to it")
    if not names or len({name.lower() for name in names}) < len(members):
        raise wrong("it is empty, or holds a name twice")
