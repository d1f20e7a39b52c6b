"""Which folder holds the normal images: a defect must never count as normal, nor the other way round."""

from __future__ import annotations

import re
from pathlib import Path

from ..core.names import printable
from ..errors import UserError
from ._listing import child, entries, folders_in, is_folder, is_image

# What people call the folder of normal images, in any case; a blank or hyphen counts as an underscore.
NORMAL = ("good", "ok", "okay", "normal", "nominal", "non_defective", "no_defect", "defect_free", "healthy", "intact")
# `good_2` or `normal (copy)`: normal images, or a defect? `not_good` and `nok` are plain.
_NEARLY_NORMAL = re.compile(rf"({'|'.join(NORMAL)})s?([_\W\d].*)?")


def is_mvtec_category(folder: Path) -> bool:
    """Whether it is laid out as one, as far as its first folders tell."""
    return child(folder, "train") is not None and child(folder, "test") is not None


def _is_normal(name: str) -> bool:
    return re.sub(r"[\s-]+", "_", name.lower()) in NORMAL


def normal_folder(folder: Path) -> Path:
    """The one folder of normal images. Raises UserError if that is in doubt: a defect must never count as normal."""
    loose = next((f for f in entries(folder) if is_image(f) and not is_folder(f)), None)
    if loose:
        raise UserError(
            f"{printable(loose)} lies beside the folders of {printable(folder)}; move it into one of them "
            f"({printable(folder / 'good')} if it is normal)"
        )
    folders = folders_in(folder)
    found = [f for f in folders if _is_normal(f.name)]
    if len(found) > 1:
        raise UserError(
            f"{printable(folder)} holds {printable(found[0].name)} and {printable(found[1].name)}, both names of "
            "normal images; put them together, or give the one that holds defects another name"
        )
    if not found:
        held = ", ".join(printable(f.name) for f in folders[:5]) or "no folder"
        raise UserError(
            f"{printable(folder)} holds {held}, but no folder of normal images, which is called {', '.join(NORMAL)}; "
            f"so there is no normal {'training' if folder.name.lower() == 'train' else 'test'} image"
        )
    for other in folders:
        if other.name.lower() in ("ground_truth", "masks"):
            raise UserError(f"{printable(other)} would count as a defect; masks belong beside test, into ground_truth")
        if other != found[0] and _NEARLY_NORMAL.fullmatch(other.name.lower()):
            raise UserError(
                f"{printable(other)} may hold normal images or defects; put it together with "
                f"{printable(found[0].name)}, or give it the name of the defect"
            )
    return found[0]
