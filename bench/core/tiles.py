"""Parts of images to learn from, for detectors that see one part at a time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property

from torch import Tensor

from ..errors import UserError
from .data import Data, TrainSet
from .images import Record


def corners(size: int, tile: int, stride: int) -> list[int]:
    """Where tiles begin along a side, the last at its end."""
    return sorted({*range(0, size - tile + 1, stride), size - tile})


class TileSet(TrainSet):
    """All tiles of the images of a set, image by image; what is held out is whole images."""

    def __init__(self, whole: TrainSet, tile: int, stride: int):
        self.whole, self.tile, self.stride = whole, tile, stride
        places = corners(whole.image_size, tile, stride)
        self.places = [(i, y, x) for i in range(len(whole)) for y in places for x in places]
        records = [
            Record(f"{whole.records[i].id} at {y},{x}", whole.records[i].source, whole.records[i].label)
            for i, y, x in self.places
        ]
        super().__init__(records, tile)

    def image(self, index: int) -> Tensor:
        """The tile as float (3, tile, tile) in [0, 1]."""
        i, y, x = self.places[index]
        return self.whole.image(i)[:, y : y + self.tile, x : x + self.tile]

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.whole.fingerprint}\t{self.tile}\t{self.stride}".encode()).hexdigest()

    def split(self, seed: int) -> tuple[TrainSet, TrainSet]:
        fit, held = self.whole.split(seed)
        return TileSet(fit, self.tile, self.stride), TileSet(held, self.tile, self.stride)


def tiled(data: Data, tile: int, stride: int) -> Data:
    """The same data, with tiles to learn from. Raises UserError for a tile that is larger than an image."""
    if tile > data.image_size:
        raise UserError(f"a tile of {tile} pixels is larger than an image of {data.image_size}: --param tile=N")
    return replace(data, train=TileSet(data.train, tile, stride), image_size=tile)
