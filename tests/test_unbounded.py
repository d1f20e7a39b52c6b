"""The check `unbounded`: where nothing bounds the adversary, every image can become any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Linear

from bench import Data, ThreatModel, evaluate, read_results


@pytest.mark.parametrize(
    ("attack", "eps", "tried"),
    [
        ("pgd-l0", 20, "l0 64"),
        ("pgd-l1", 30, "l1 192"),
        ("pgd-l2", "0.5", "l2 4"),
        ("pgd-linf", "8/255", "linf 0.251"),
    ],
)
def test_each_norm_has_a_whole_range_of_its_own(
    attack: str, eps: str | float, tried: str, data: Data, tmp_path: Path
) -> None:
    """In l0 and l1 it is no square root: less than eps was tried, or a part of a pixel, and the cell not ranked."""
    threat = ThreatModel(attack.rpartition("-")[2], eps)
    frame = evaluate(Linear(), data, attack, threat, attack_params={"steps": 40}, results=tmp_path)
    (check,) = (check for check in frame.attrs["run"]["checks"] if check["name"] == "unbounded")
    assert check["passed"] and check["sentence"].startswith(f"at {tried} ")
    (result,) = read_results(tmp_path).results
    assert result.unranked == []


@pytest.mark.parametrize(("attack", "whole"), [("pgd-l0", 64), ("pgd-l1", 192), ("pgd-linf", 1)])
def test_no_wider_attack_is_made_where_eps_is_the_whole_range(attack: str, whole: int, data: Data) -> None:
    threat = ThreatModel(attack.rpartition("-")[2], whole)
    frame = evaluate(Linear(), data, attack, threat, attack_params={"steps": 40})
    (check,) = (check for check in frame.attrs["run"]["checks"] if check["name"] == "unbounded")
    assert check["passed"] and check["sentence"].startswith(f"at {threat} ")
