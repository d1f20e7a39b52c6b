"""Attacked images on the disk: a larger ball starts from those of a smaller one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..system import arrays, files


class WarmStarts:
    """Attacked images of one cell on the disk: a larger ball of the same sweep starts from them, and some are saved
    when the cell is finished.

    folder: where those of this cell go; None keeps nothing. smaller_folder: those of the next smaller ball.
    until_finished: no larger ball needs them; they are deleted when the cell is finished.
    """

    def __init__(self, folder: Path | None = None, smaller_folder: Path | None = None, until_finished: bool = False):
        self.folder, self.smaller_folder, self.until_finished = folder, smaller_folder, until_finished
        self.ignored = set[str]()
        """Images of the smaller ball that are there and were not used: damaged, or of another cell."""

    def put(self, ids: Sequence[str], images: Tensor) -> None:
        """One file per image, whole or not at all."""
        if self.folder is not None:
            for name, image in zip(ids, images.cpu().numpy(), strict=True):
                arrays.write_sealed(_path(self.folder, name), image, _words(self.folder, name))

    def smaller(self, ids: Sequence[str], x: Tensor) -> Tensor | None:
        """The images of the smaller ball, in place of x where there are any; None if there are none at all."""
        if self.smaller_folder is None:
            return None
        found, images = False, x.clone()
        for i, name in enumerate(ids):
            try:
                image = _read(self.smaller_folder, name, x[i])
            except arrays.Unsealed:
                self.ignored.add(name)
                continue
            if image is not None:
                found, images[i] = True, image
        return images if found else None

    def get(self, name: str, x: Tensor) -> Tensor | None:
        """The image of this cell that was made from x (3, H, W); None if it is not there, or not whole."""
        try:
            return None if self.folder is None else _read(self.folder, name, x)
        except arrays.Unsealed:
            return None

    def what_was_ignored(self) -> str:
        """A sentence, or empty: the rows are what they would be without these images, and that is worth saying."""
        if not self.ignored:
            return ""
        count = len(self.ignored)
        return (
            f"{count} attacked image{'s' * (count > 1)} of the smaller eps in {self.smaller_folder} "
            f"{'were' if count > 1 else 'was'} damaged or not of this sweep, and not used: `worst` may be better for "
            "the detector there than at the smaller eps"
        )

    def discard(self) -> None:
        """The cell is finished."""
        if self.folder is not None and self.until_finished:
            shutil.rmtree(self.folder, ignore_errors=True)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{files.digest(name)}.npy"


def _words(folder: Path, name: str) -> str:
    """What an image is: the folder's name stands for the cell and all that it depends on."""
    return f"{folder.name}/{name}"


def _read(folder: Path, name: str, x: Tensor) -> Tensor | None:
    array = arrays.read_sealed(_path(folder, name), _words(folder, name))
    return None if array is None else torch.from_numpy(array).to(x)
