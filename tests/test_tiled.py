"""Tiles: what is learned from, what is scored, and what a pixel of the map comes to."""

from __future__ import annotations

import pytest
import torch
from conftest import small_data
from test_localisation import Bright, Drawn
from torch import Tensor

from bench import Data, Rng, UserError, evaluate, fit_or_load
from bench.core.tiles import TileSet, corners, tiled
from bench.plugins import registry

Tiled = registry.load("detectors", "tiled").target


@pytest.fixture
def data() -> Data:
    return small_data(size=16)


def test_corners_reach_the_edge() -> None:
    assert corners(16, 8, 4) == [0, 4, 8] and corners(17, 8, 4) == [0, 4, 8, 9] and corners(8, 8, 3) == [0]


def test_tiles_are_parts_of_images_and_whole_images_are_held_out(data: Data) -> None:
    tiles = TileSet(data.train, 8, 8)
    assert len(tiles) == 4 * len(data.train) and tiles.image_size == 8
    assert torch.equal(tiles[3], data.train[0][:, 8:, 8:]) and len(set(tiles.ids)) == len(tiles)
    fit, held = tiles.split(0)
    whole = data.train.split(0)
    assert len(fit) == 4 * len(whole[0]) and len(held) == 4 * len(whole[1])
    assert fit.fingerprint != whole[0].fingerprint != TileSet(whole[0], 8, 4).fingerprint != fit.fingerprint
    with pytest.raises(UserError, match="a tile of 32 pixels is larger than an image of 16"):
        tiled(data, 32, 16)


def test_the_score_is_the_largest_of_a_tile(data: Data) -> None:
    detector, x = Tiled(Bright(), tile=8, stride=4), data.test.images(range(4))
    scores, evidence = detector.score_with_evidence(x)
    assert evidence is not None and evidence.shape == (4, 9)
    assert torch.equal(evidence[:, 8], Bright().score(x[:, :, 8:, 8:])) and torch.equal(scores, evidence.amax(1))


def test_the_map_is_the_mean_over_tiles(data: Data) -> None:
    x = data.test.images(range(4))
    for tile, stride in ((8, 4), (8, 3), (16, 8)):
        found: Tensor = Tiled(Bright(), tile=tile, stride=stride).anomaly_map(x)
        assert torch.allclose(found, Bright().anomaly_map(x), atol=1e-6)  # each pixel has one value in every tile


def test_a_detector_inside_that_draws_noise(data: Data) -> None:
    detector, x = Tiled(Drawn(), tile=8), data.test.images(range(4))
    ids = data.test.ids[:4]
    together = detector.score(x, Rng(0, ids))
    alone = torch.cat([detector.score(x[i : i + 1], Rng(0, ids[i : i + 1])) for i in range(4)])
    assert torch.allclose(together, alone, rtol=1e-5) and detector.randomized


def test_the_inner_detector_learns_from_tiles(data: Data) -> None:
    detector = fit_or_load("tiled+autoencoder", data, params={"tiled.tile": 8, "steps": 2})
    assert detector.origin is not None and detector.origin.fit is not None
    inner = fit_or_load("autoencoder", data, params={"steps": 2})
    assert isinstance(detector, Tiled) and inner.origin is not None
    weights = [next(one.parameters()) for one in (detector.inner, inner)]
    assert not torch.equal(*weights)
    found = evaluate("tiled+autoencoder", data, params={"tiled.tile": 8, "steps": 2}, attack_params={"steps": 2})
    assert found.metrics["robust_auroc"] <= found.metrics["clean_auroc"]
    with pytest.raises(UserError, match="a tile of 64 pixels is larger than an image of 16: --param tile=N"):
        evaluate("tiled+autoencoder", data, params={"steps": 2})
