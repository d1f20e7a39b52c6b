"""Draws belong to an image: not to the batch, the order, or what another purpose consumed."""

from __future__ import annotations

import hashlib

import pytest
import torch

from bench import Rng
from bench.core.rng import fit_seed, held_out_lot, probe_lot

LIKE = torch.zeros(3, 2, 4, 4)


def test_draws_follow_the_image_through_any_batch() -> None:
    together = Rng(7, ["a", "b", "c"]).normal(LIKE)
    reordered = Rng(7, ["c", "a"]).normal(LIKE[:2])
    assert torch.equal(together[[2, 0]], reordered)


def test_seeds_images_and_purposes_are_independent() -> None:
    draws = [Rng(0, ["a"]), Rng(1, ["a"]), Rng(0, ["b"]), Rng(0, ["a"]).child("x"), Rng(0, ["a"]).child("x", 1)]
    values = [rng.uniform(LIKE[:1]) for rng in draws]
    assert all(not torch.equal(values[i], values[j]) for i in range(5) for j in range(i))


def test_a_child_does_not_depend_on_what_its_parent_consumed() -> None:
    used, fresh = Rng(0, ["a"]), Rng(0, ["a"])
    used.normal(LIKE[:1])
    assert torch.equal(used.child("x").normal(LIKE[:1]), fresh.child("x").normal(LIKE[:1]))


def test_the_numbers_are_the_same_in_any_precision() -> None:
    single, double = (Rng(0, ["a"]).normal(LIKE[:1].to(t)) for t in (torch.float32, torch.float64))
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)


def test_every_second_draw_of_a_pair_is_the_one_before_turned_round() -> None:
    rng, alone = Rng(0, ["a", "b", "c"]), Rng(0, ["a", "b", "c"])
    rng = rng.rows([0, 2])
    draws = [(source.normal(LIKE[:2]), source.uniform(LIKE[:2])) for source in rng.paired(3)]
    (z, u), (opposite_z, opposite_u), (next_z, _) = draws
    assert torch.equal(opposite_z, -z)
    assert torch.allclose(opposite_u, 1 - u)
    assert opposite_u.min() >= 0 and opposite_u.max() < 1
    # the source itself goes on as if nobody had turned anything round
    alone = alone.rows([0, 2])
    assert torch.equal(alone.normal(LIKE[:2]), z)
    assert torch.equal(alone.uniform(LIKE[:2]), u)
    assert torch.equal(alone.normal(LIKE[:2]), next_z)


def test_a_uniform_draw_that_is_turned_round_stays_below_1() -> None:
    """0 is drawn once in 2 ** 24."""

    class Zero(Rng):
        def _draw(self, kind: object, like: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(like)

    _, opposite = Zero(0, ["a"]).paired(2)
    assert opposite.uniform(LIKE[:1]).max() < 1


def test_what_a_detector_draws_from_a_child_is_turned_round_as_well() -> None:
    first, second = (source.child("x").rows([0]).normal(LIKE[:1]) for source in Rng(0, ["a"]).paired(2))
    assert torch.equal(second, -first)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = Rng(0, ["a"]).normal(LIKE[:1])
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(Rng(0, ["a"]).normal(LIKE[:1]), first)


def test_a_batch_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected a batch of 1"):
        Rng(0, ["a"]).normal(LIKE)


@pytest.mark.parametrize(
    ("source", "purpose"),
    [
        (Rng.of_run(3, ["a", "b"]), "test"),
        (Rng.evaluation(3, ["a", "b"]), "test/evaluate"),
        (Rng.of_run(3, ["a", "b"]).for_attack(), "test/attack"),
        (Rng.of_run(3, ["a", "b"]).for_another_attack(), "test/another attack"),
        (Rng.of_run(3, ["a", "b"]).for_attack_on_known_noise(), "test/attack/known noise"),
        (Rng.of_run(3, ["a", "b"]).for_choice(), "test/choose"),
        (Rng.of_run(3, ["a", "b"]).for_check(), "test/check"),
        (Rng.of_run(3, ["a", "b"]).known(), "known noise"),
        (Rng.held_out(3, ["a", "b"]), "held out"),
        (Rng.against_certificate(3, ["a", "b"]), "certificate/attack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_stream_of_the_benchmark_keeps_its_name(source: Rng, purpose: str) -> None:
    """Published rows rest on these draws: another name is another number."""
    assert torch.equal(source.normal(LIKE[:2]), Rng(3, ["a", "b"], purpose).normal(LIKE[:2]))


def test_each_draw_of_a_certificate_has_a_source_of_its_own() -> None:
    first, second = Rng.certificate(3, "a", range(2)), Rng.certificate(3, "a", range(1, 2))
    assert torch.equal(first.normal(LIKE[:2])[1:], second.normal(LIKE[:1]))
    assert torch.equal(
        Rng(3, ["a\tdraw 1"], "certificate").normal(LIKE[:1]), Rng.certificate(3, "a", range(1, 2)).normal(LIKE[:1])
    )


def test_lots_and_seeds_are_those_of_the_published_splits() -> None:
    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    assert held_out_lot(3, "a") == digest("held out\t3\ta") and probe_lot(3, "a") == digest("probe\t3\ta")
    assert fit_seed(3) == int(digest("fit\t3")[:12], 16)
