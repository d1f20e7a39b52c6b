"""Writing so that a crash, a full disk or a second process never leaves a half file under its final name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import temporary
from .cache import cache_folder

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}
"""What the system says of a full disk, a spent quota and a limit; NumPy says only how much it could not write."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it if the block succeeds and deleted if it does not."""
    with says_why(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.sweep(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=temporary.prefix(path.name))
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.chmod(0o644)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def at_home(path: str | Path) -> Path:
    """The path, with the home folder for `~` in front; UserError where nobody knows it, and of a URL: what lies there
    has no locks, and no renames that are done at once."""
    if isinstance(path, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise UserError(
            f"{path} is no folder: cells need locks and renames, which object stores do not have; mount it as a file "
            "system that has them, or work in a local folder and copy that there afterwards"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such home folder; write the whole path") from None


def digest(text: str, digits: int = 24) -> str:
    """A file name for any text: the first hex digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


NAME_LENGTH = 200  # file systems end at 255, and a cell's folder gets a suffix, its lock another one
PLAIN_NAME = re.compile(r"[A-Za-z0-9_+-]([A-Za-z0-9._+-]*[A-Za-z0-9_+-])?")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows


def safe_name(name: str) -> str:
    """The name of a file or folder for any text, that every file system takes: letters, digits and . _ + - stay.

    Where another character was replaced, or something was cut, 8 hex digits of the whole text follow, so that two texts
    have two names. (But for capital letters, which some file systems do not tell apart.)
    """
    if PLAIN_NAME.fullmatch(name) and len(name) <= NAME_LENGTH and not RESERVED.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9._+-]", "_", name[:NAME_LENGTH])
    return f"{re.sub(r'^[.]', '_', readable)}-{digest(name, 8)}"


def write_text(path: Path, text: str) -> None:
    """The whole text, or an error and the file as it was."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError for a file that is not there or not JSON; half of a surrogate pair is no text either."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        return found
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON: it was changed or cut short; delete its folder to start over") from None


def append(path: Path, text: str) -> None:
    """Added at the end and on the disk when this returns."""
    with says_why(path), path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_at(path: Path, offset: int, content: bytes) -> None:
    """Into a file that may be longer already: who else writes the same there does no harm.

    A file that is too short, because somebody deleted it meanwhile, is left alone.
    """
    with says_why(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(handle).st_size >= offset:
                os.lseek(handle, offset, os.SEEK_SET)
                with os.fdopen(handle, "r+b", closefd=False) as file:
                    file.write(content)
                os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def says_why(path: Path) -> Iterator[None]:
    """The operating system's reason (disk full, not permitted, ...) becomes the user's one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}{_remedy(path, error)}") from error


def _remedy(path: Path, error: OSError) -> str:
    full = error.errno in NO_ROOM
    elsewhere = f"set XDG_CACHE_HOME to a folder that {'has room' if full else 'can be written'}"
    ways = ["make room there"] * full + [elsewhere] * _is_cached(path)
    return f"; {' or '.join(ways)}, and the same command goes on" if ways else ""


def _is_cached(path: Path) -> bool:
    try:
        return path.absolute().is_relative_to(cache_folder().absolute())
    except (UserError, OSError):  # no home, or no working folder
        return False


def content_sha256(path: Path) -> str:
    """Of a file, with the weights that lie beside it; or of a folder: names and contents of all files in it."""
    if path.is_dir():
        return _of_all(sorted(p for p in path.rglob("*") if p.is_file()), path)
    beside = _weights_beside(path)
    return _of_all([path, *beside], path.parent) if beside else file_sha256(path)


def _of_all(paths: Sequence[Path], root: Path) -> str:
    found = hashlib.sha256()
    for file in paths:
        found.update(f"{file.relative_to(root).as_posix()}\t{file_sha256(file)}\n".encode())
    return found.hexdigest()


def _weights_beside(path: Path) -> list[Path]:
    """Of a model whose file holds the graph alone: OpenVINO's .bin, and what torch.onnx calls external data."""
    names = {".xml": [path.stem + ".bin"], ".onnx": [path.name + ".data", path.name + "_data"]}
    return [path.with_name(name) for name in names.get(path.suffix.lower(), ()) if path.with_name(name).is_file()]


def file_sha256(path: Path) -> str:
    """Of a file of any size; UserError where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                found.update(chunk)
        return found.hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # half of a surrogate pair, a null character
        raise UserError(f"cannot read {str(path)!r}: no file can have that name") from None
