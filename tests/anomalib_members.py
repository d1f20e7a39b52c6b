"""Members of the family anomalib for the tests: fitted on the toy task, once for all."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import module
from torch import Tensor
from torch.utils.data import DataLoader

from bench import load_data
from bench.checks.probe import toy_data
from bench.plugins.fitting import DetectorSpec

pytest.importorskip("anomalib", reason="the library is not installed")
MEMBERS: dict[str, Any] = module("anomalib").MEMBERS


def member(name: str, **given: Any) -> Any:
    target = MEMBERS[name]
    return target(**{**target.toy_parameters, **given})


def spec(name: str) -> DetectorSpec:
    return DetectorSpec(f"anomalib:{name}", MEMBERS[name].toy_parameters, device="cpu")


_fitted: dict[str, Any] = {}


def fitted(name: str) -> Any:
    """A toy fit of each model serves all tests."""
    if name not in _fitted:
        _fitted[name] = spec(name).fitted(toy_data())
    return _fitted[name]


def images() -> Tensor:
    return toy_data().test.images([0, 1, 8, 9])


def normal_loader(count: int = 16, size: int = 64) -> DataLoader[Tensor]:
    train, _ = load_data("textures", category="brick", image_size=size).train.split(0)
    return DataLoader([train[i] for i in range(count)], batch_size=8)  # type: ignore[arg-type]
