"""The coreset equals the plain algorithm and anomalib's, however the search is arranged."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.plugins import registry

coreset: Any = importlib.import_module(
    f"{registry.load('detectors', 'patchcore').target.__module__.rpartition('.')[0]}._coreset"
)


def points(kind: str, count: int = 1500) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(count, 24, generator=generator)
    if kind == "clusters":
        centres = torch.randn(12, 24, generator=generator)
        made = centres[torch.randint(12, (count,), generator=generator)] + 0.05 * made
    elif kind == "few dimensions":
        made = made[:, :3] @ torch.randn(3, 24, generator=generator)
    return made.double()


@pytest.mark.parametrize("kind", ["independent", "clusters", "few dimensions"])
@pytest.mark.parametrize(("candidates", "block"), [(1024, 1 << 22), (20, 1000), (1, 100)])
def test_the_choice_is_that_of_measuring_everything(
    kind: str, candidates: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreset, "CANDIDATES", candidates)
    monkeypatch.setattr(coreset, "BLOCK", block)
    made = points(kind)
    torch.manual_seed(0)
    chosen = coreset.k_center_greedy(made, 150).tolist()
    expected = [chosen[0]]
    nearest = (made - made[chosen[0]]).norm(dim=1)
    while len(expected) < 150:
        expected.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (made - made[expected[-1]]).norm(dim=1))
    assert chosen == expected


def test_the_choice_is_anomalibs_on_the_same_points() -> None:
    """A third axis keeps its random projection away; both draw the first point from the same seed."""
    from anomalib.models.components import KCenterGreedy

    made = points("few dimensions", 800)
    torch.manual_seed(3)
    theirs = KCenterGreedy(made[:, None], 0.1).select_coreset_idxs()
    torch.manual_seed(3)
    assert coreset.k_center_greedy(made, 80).tolist() == theirs


def test_repeated_points_are_chosen_once_each_and_all_can_be_chosen() -> None:
    made = torch.randn(6, 4).repeat(5, 1)
    assert sorted(coreset.k_center_greedy(made, 30).tolist()) == list(range(30))
    assert len({i % 6 for i in coreset.k_center_greedy(made, 6).tolist()}) == 6


def test_progress_ends_at_the_count() -> None:
    told: list[tuple[int, int]] = []
    coreset.k_center_greedy(points("independent"), 700, lambda done, total: told.append((done, total)))
    assert told[-1] == (700, 700)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
