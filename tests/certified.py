"""What the tests of certificates share: a cache of their own, and the draws that were scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from bench.engine.certifier import Certifier

Run = Callable[..., tuple[int, str, str]]


PROBES = 16  # draws of a run and of its checks, at eight images each


SMALL: dict[str, Any] = {"samples": 150, "alpha": 0.05}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the draws of another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(name="calls")
def counted_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the batches of noisy images that were scored for bounds."""
    seen: list[int] = []
    before = Certifier._scores

    def counted(self: Certifier, image: Tensor, name: str, first: int, count: int) -> Any:
        seen.append(count)
        return before(self, image, name, first, count)

    monkeypatch.setattr(Certifier, "_scores", counted)
    monkeypatch.setattr("bench.checks.of_certificate.CHECKS", {})  # they draw as well
    yield seen


def rows_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("samples.csv"))]
