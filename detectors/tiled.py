"""A detector that looks at one part of an image after another: for images larger than its network, and small defects.

The inner detector is fitted on tiles of normal images. Tiles overlap by what `stride` leaves; the last ones end at the
edge. It costs as many passes of the inner detector as there are tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from bench import Data, Detector, Rng, UserError, Wrapper
from bench.core.tiles import corners, tiled


class Tiled(Wrapper):
    """Score = the largest inner score of a tile.

    tile: side of a tile in pixels. stride: from one tile to the next; half a tile where nothing is said.
    """

    toy_parameters: ClassVar = {"tile": 32}

    def __init__(self, inner: Detector, *, tile: PositiveInt = 64, stride: PositiveInt | None = None):
        super().__init__(inner)
        self.tile, self.stride = tile, stride
        if inner.anomaly_map is None:
            self.anomaly_map = None  # type: ignore[assignment]

    @classmethod
    def inner_data(cls, data: Data, values: Mapping[str, Any]) -> Data:
        """Tiles of the normal images."""
        tile = values.get("tile", 64)
        return tiled(data, tile, values.get("stride") or max(tile // 2, 1))

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x, rng)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        """The evidence (B, tiles) is the inner scores."""
        tiles, count = self._tiles(x), len(self._places(x))
        sources = None if rng is None else rng.rows([i for i in range(len(x)) for _ in range(count)])
        scores = self.inner_score(tiles, sources).view(len(x), count)
        return scores.amax(1), scores

    def anomaly_map(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B, 1, H, W): of every pixel the mean over the tiles that hold it."""
        build, places = self.inner.anomaly_map, self._places(x)
        assert build is not None
        sources = None if rng is None else rng.rows([i for i in range(len(x)) for _ in places])
        tiles = self._tiles(x)
        maps = build(tiles, sources) if self.inner.randomized else build(tiles)
        maps = maps.view(len(x), len(places), 1, self.tile, self.tile)
        total, count = torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, :1])
        for k, (top, left) in enumerate(places):
            area = (slice(None), slice(None), slice(top, top + self.tile), slice(left, left + self.tile))
            total[area] = total[area] + maps[:, k]
            count[area] += 1
        return total / count

    def _tiles(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B * tiles, 3, tile, tile), image by image."""
        if min(x.shape[2:]) < self.tile:
            raise UserError(f"a tile of {self.tile} pixels is larger than an image of {min(x.shape[2:])}")
        parts = [x[:, :, top : top + self.tile, left : left + self.tile] for top, left in self._places(x)]
        return torch.stack(parts, 1).flatten(0, 1)

    def _places(self, x: Tensor) -> list[tuple[int, int]]:
        stride = self.stride or max(self.tile // 2, 1)
        rows, columns = (corners(side, self.tile, stride) for side in x.shape[2:])
        return [(top, left) for top in rows for left in columns]
