"""What lies in a folder: images, folders, and what file managers leave behind, which is looked past."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.images import SUFFIXES
from ..core.names import printable
from ..errors import UserError

# of Windows, macOS, Synology; those that begin with a dot need no list
LEFT_BEHIND = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}


def entries(folder: Path) -> list[Path]:
    """By name, without hidden ones and without what file managers leave behind."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot list {printable(folder)}: {error.strerror}") from None
    return [p for p in found if not p.name.startswith(".") and not _left_behind(p.name.lower())]


def _left_behind(name: str) -> bool:
    return name in LEFT_BEHIND or name.endswith(":zone.identifier")


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder by name. Raises UserError, naming it, for anything else: it may have been meant."""
    images = []
    for entry in entries(folder):
        if is_folder(entry):
            _refuse_images_below(entry)
        else:
            images.append(image(entry))
    return images


def folders_in(folder: Path) -> list[Path]:
    return [entry for entry in entries(folder) if is_folder(entry)]


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # may not be looked at, or cannot exist: too long a name, a zero byte
        return False


def image(entry: Path) -> Path:
    """The entry, if its name is that of an image; what it holds is looked at when the data are made."""
    if entry.suffix.lower() in SUFFIXES:
        return entry
    raise UserError(
        f"{printable(entry)} is not an image ({', '.join(sorted(SUFFIXES))}); convert it to PNG, or move it away"
    )


def is_image(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")


def _refuse_images_below(folder: Path) -> None:
    """A folder without images is looked past."""
    for place, _, names in os.walk(folder):
        for name in names:
            if is_image(Path(name)):
                raise UserError(
                    f"{printable(folder)} is a folder among images and holds images itself "
                    f"({printable(Path(place, name).relative_to(folder))}); move them into {printable(folder.parent)}, "
                    "or the folder away"
                )


def child(folder: Path, *names: str) -> Path | None:
    """The folder of one of these names, lower case here, in any case there; None too if that may not be looked up.

    Raises UserError if there are two.
    """
    try:
        found = [entry for entry in folder.iterdir() if entry.name.lower() in names and is_folder(entry)]
    except OSError:
        return None
    if len(found) > 1:
        first, second = sorted(printable(f.name) for f in found)[:2]
        raise UserError(f"{printable(folder)} holds {first} and {second}; keep one of them")
    return found[0] if found else None
