"""Where cells lie, those of a submission included: a zip that somebody else made, of which nothing is believed.
Nothing else opens one.

A submission is a zip of DATASET/CATEGORY/DETECTOR/ATTACK-NORM-EPS/{run.json, samples.csv, images/*.npz}, as in a
results folder, and of weights/SHA256.safetensors: what the detectors had learned, each once, by its hash.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.names import shown
from ..errors import UserError
from ..system import files, temporary
from ..system.cache import cache_folder
from ..system.files import file_sha256
from .images import IMAGE
from .record import cells_below


class CellLocation(NamedTuple):
    """Where a cell lies."""

    folder: Path
    source: str = ""
    """The submission that it came in; empty for one of our own."""
    inside: str = ""
    """Where it lies in the submission."""
    weights: Path | None = None
    """The folder of what detectors had learned, as far as the submission carries it."""
    sha256: str = ""
    """Of the submission."""

    @property
    def name(self) -> str:
        """As a sentence says it: of a submission, not where it was unpacked."""
        return f"{self.source}: {self.inside}" if self.source else str(self.folder)


def submissions_below(root: Path) -> list[Path]:
    """The submissions that lie below a folder."""
    return sorted(path for path in root.rglob("*.zip") if path.is_file())


SUFFIX = ".zip"
MEMBER = re.compile(rf"(?:[A-Za-z0-9_+-][A-Za-z0-9._+-]*/){{1,8}}(?:run\.json|samples\.csv|{IMAGE})")
WEIGHTS = "weights"
WEIGHTS_MEMBER = re.compile(rf"{WEIGHTS}/[0-9a-f]{{64}}\.safetensors")
MEMBERS = 100_000
MEMBER_BYTES = 256 * 2**20
RECORD_BYTES, ROWS_BYTES, WEIGHTS_BYTES = 4 * 2**20, 32 * 2**20, 2**30
BYTES = 2 * 2**30  # of a submission, packed or not
EXPECTED = "run.json, samples.csv and images/*.npz in folders of cells, and weights/*.safetensors"


def cells_in(path: Path) -> list[CellLocation]:
    """A cell, or those of a submission, or those below a folder and in its submissions."""
    if path.is_file() and path.name != "run.json":
        return cells_of_submission(path, str(path))
    submissions = submissions_below(path) if path.is_dir() else []
    within = [place for submission in submissions for place in cells_in(submission)]
    if not within or any(path.rglob("run.json")):
        return [CellLocation(folder) for folder in cells_below(path)] + within
    return within


def cells_of_submission(path: Path, source: str) -> list[CellLocation]:
    """Its cells, unpacked; see `unpacked`. source: how it is called."""
    _refuse_large(path)
    digest = file_sha256(path)
    root = unpacked(path, digest)
    folders = sorted(found.parent for found in root.rglob("run.json"))
    return [
        CellLocation(folder, source, folder.relative_to(root).as_posix(), root / WEIGHTS, digest) for folder in folders
    ]


def weights_of_submission(folder: Path, hashes: Iterable[str]) -> dict[str, Path]:
    """Of what is carried in that folder, by hash: files are called by it, and whoever uses one compares."""
    paths = {digest: folder / f"{digest}.safetensors" for digest in hashes}
    return {digest: path for digest, path in paths.items() if path.is_file()}


def _refuse_large(path: Path) -> None:
    with files.says_why(path):
        if path.stat().st_size > BYTES:
            raise UserError(f"{path} is not a submission: it is larger than {BYTES // 2**30} GiB")


def unpacked(path: Path, sha256: str | None = None) -> Path:
    """The folder below the cache that holds what is in the submission; unpacked once for each content.

    sha256: of the file, where it is known. Raises UserError, and leaves nothing behind, for a file that is damaged, too
    large, or holds anything but cells.
    """
    _refuse_large(path)
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)
    folder = cache_folder() / "submissions" / f"{stem}-{(sha256 or file_sha256(path))[:24]}"
    if folder.is_dir():
        return folder
    with files.says_why(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.sweep(folder.parent)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=temporary.prefix("unpacking")))
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
        name = shown(member.filename)
        if not MEMBER.fullmatch(member.filename) and not WEIGHTS_MEMBER.fullmatch(member.filename):
            raise wrong(f"it holds {name[:200]!r}; expected {EXPECTED}")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise wrong(f"{name} is a link or a device, not a file")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise wrong(f"{name} is compressed in a way that is not supported")
        if member.file_size > (most := _most_bytes(name)):
            raise wrong(f"{name} is larger than {most // 2**20} MiB")
        cell = re.sub(rf"/(run\.json|samples\.csv|{IMAGE})$", "", name)
        if not WEIGHTS_MEMBER.fullmatch(name) and not {f"{cell}/run.json", f"{cell}/samples.csv"} <= names:
            raise wrong(f"{cell} is no cell: a run.json and a samples.csv belong to it")
    if all(map(WEIGHTS_MEMBER.fullmatch, names)) or len({name.lower() for name in names}) < len(members):
        raise wrong("it is empty, or holds a name twice")


def _most_bytes(name: str) -> int:
    """Of one file, by what it is."""
    of = {"run.json": RECORD_BYTES, "samples.csv": ROWS_BYTES}
    return WEIGHTS_BYTES if WEIGHTS_MEMBER.fullmatch(name) else of.get(name.rpartition("/")[2], MEMBER_BYTES)
