"""The folder behind --data-root: is there one, and if it is not the right one, which is?"""

from __future__ import annotations

from pathlib import Path

from ..core.names import printable
from ..errors import UserError
from ._listing import child, folders_in
from ._normal import is_mvtec_category

VISA_TABLE = Path("split_csv", "1cls.csv")
SEARCHED = 30  # folders per level, for a hint


def require_root(root: Path | None, dataset: str, layout: str, home: str) -> Path:
    """The root if it is a folder; otherwise an error with the layout and where the data set is to be had."""
    hint = f"expected {layout}; home page: {home}" if home else f"expected {layout}"
    if root is None:
        raise UserError(f"data set {dataset!r} needs --data-root (nothing is downloaded); {hint}")
    shown = printable(root)
    try:
        if not root.exists():
            root = root.expanduser()  # the shell leaves the ~ of --data-root=~/images alone
        found, folder = root.exists(), root.is_dir()
    except (OSError, RuntimeError) as error:  # too long a name, a folder that may not be entered, no home folder
        raise UserError(f"--data-root {shown} cannot be looked at ({error.args[-1]}); {hint}") from None
    if not found:
        raise UserError(f"--data-root {shown} does not exist; {hint}")
    if not folder:
        raise UserError(f"--data-root {shown} is a file; a folder is needed; {hint}")
    return root


def hint(root: Path) -> str:
    """What would help, for a root in which no category was found; '' if there is no telling."""
    here = root.resolve()
    for category in (here, *here.parents[:2]):
        if is_mvtec_category(category):
            name = printable(category.name)
            return f"{name} is itself a category: --data-root {printable(category.parent)} --category {name}"
    for folder in (here, *_below(here)):
        if child(folder, "test_public"):
            return (
                f"{printable(folder)} is laid out as MVTec AD 2: --dataset mvtec-ad-2 --data-root "
                f"{printable(folder.parent)}"
            )
        if (folder / VISA_TABLE).is_file():
            return f"this is VisA as it is downloaded: --dataset visa --data-root {printable(folder)}"
    holder = holder_of_categories(here)
    if holder in (None, here):
        return ""
    return f"there are categories in {printable(holder)}: --data-root {printable(holder)}"


def holder_of_categories(root: Path) -> Path | None:
    """The root or a folder below whose folders are laid out like MVTec AD."""
    return next((f for f in (root, *_below(root)) if any(map(is_mvtec_category, _some_folders(f)))), None)


def _below(root: Path) -> list[Path]:
    """Folders one and two levels down."""
    first = _some_folders(root)
    return [*first, *(f for folder in first for f in _some_folders(folder))]


def _some_folders(folder: Path) -> list[Path]:
    try:
        return folders_in(folder)[:SEARCHED]
    except UserError:  # may not be listed
        return []
