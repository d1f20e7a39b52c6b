"""Which images a limit leaves: nested, stratified, and the same for every order of the files."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from conftest import small_data

from bench import TestSet, UserError, load_data
from bench.core.choice import evenly_spread, stratified

MANY = {f"good/{i:03}": 0 for i in range(41)} | {
    f"{kind}/{i:03}": 1
    for kind, count in (("cut", 50), ("hole", 7), ("print", 20), ("thread", 1))
    for i in range(count)
}


def counts(ids: set[str]) -> Counter[str]:
    return Counter(name.partition("/")[0] for name in ids)


def test_a_larger_limit_only_adds_images() -> None:
    before: set[str] = set()
    for limit in range(2, len(MANY) + 5):
        chosen = stratified(MANY, limit)
        assert before <= chosen and len(chosen) == min(limit, len(MANY))
        before = chosen
    assert before == set(MANY)


@pytest.mark.parametrize("normal, anomalous", [(30, 10), (1, 60), (60, 1), (5, 5)])
def test_both_classes_are_there_in_their_proportion(normal: int, anomalous: int) -> None:
    labels = {f"good/{i}": 0 for i in range(normal)} | {f"bad/{i}": 1 for i in range(anomalous)}
    for limit in range(2, len(labels)):
        found = counts(stratified(labels, limit))["bad"]
        assert 0 < found < limit
        assert abs(found - limit * anomalous / len(labels)) <= 1


def test_every_kind_comes_before_a_second_image_of_any_and_then_in_proportion() -> None:
    kinds = Counter(name.partition("/")[0] for name, label in MANY.items() if label)
    for limit in range(2, len(MANY)):
        found = {kind: counts(stratified(MANY, limit))[kind] for kind in kinds}
        total = sum(found.values())
        if total <= len(kinds):
            assert max(found.values()) == 1
            continue
        assert min(found.values()) >= 1
        for kind, count in found.items():  # within two of their share: the smallest kind takes one early
            assert abs(count - total * kinds[kind] / kinds.total()) < 2, (limit, kind)


def test_the_order_of_the_files_does_not_matter() -> None:
    names = list(MANY)
    for seed in range(5):
        random.Random(seed).shuffle(names)
        assert all(stratified({n: MANY[n] for n in names}, k) == stratified(MANY, k) for k in (2, 9, 40))
    test = small_data(normal=30, anomalous=10).test
    backwards = TestSet(test.records[::-1], test.image_size)
    assert backwards.chosen(9).ids == test.chosen(9).ids[::-1]


def test_the_images_of_a_kind_are_spread_over_its_ids() -> None:
    """Of a hundred in a row, ten chosen leave no gap of more than a quarter."""
    labels = {"good/0": 0} | {f"bad/{i:03}": 1 for i in range(100)}
    chosen = sorted(int(name[4:]) for name in stratified(labels, 12) if name[:3] == "bad")
    assert len(chosen) in (10, 11)
    assert max(b - a for a, b in zip([-1, *chosen], [*chosen, 100], strict=True)) <= 25


@pytest.mark.parametrize(
    "limit, at_least, hardest_and_plainest", [(8, 4, False), (16, 6, True), (24, 7, True), (32, 8, True)]
)
def test_a_limit_on_textures_sees_many_grades_of_every_kind(
    limit: int, at_least: int, hardest_and_plainest: bool
) -> None:
    test = load_data(category="brick").limited(limit).test
    defects = [record.id.split("/") for record in test.records if record.label]
    grades = {int(grade) for _, grade in defects}
    assert len(defects) == limit // 2 and len({kind for kind, _ in defects}) == 4
    assert len(grades) >= at_least and max(grades) >= 7 and min(grades) <= 2
    assert not hardest_and_plainest or {1, 8} <= grades


def test_protocol_1_is_the_stride_that_it_was() -> None:
    test = load_data(category="brick").test
    old = test.chosen(16, protocol=1)
    assert [name for name in old.ids if name[0] == "s"] == ["scratch/01", "scratch/05", "stain/01", "stain/05"]
    assert evenly_spread({"a": 0, "b": 0, "c": 1, "d": 0}, 3) == {"a", "b", "c"}


def test_a_limit_of_one_cannot_hold_both_classes() -> None:
    test = small_data(normal=30, anomalous=10).test
    assert [len(test.chosen(n)) for n in (2, 8, 39, 99)] == [2, 8, 39, 40]
    with pytest.raises(UserError, match="at least 2"):
        test.chosen(1)
