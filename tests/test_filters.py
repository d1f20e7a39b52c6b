"""`--filter`: what it leaves out still counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stored_cells import first, rewrite, three_cells, with_rows

from bench import UserError
from bench.cells.filters import Filters
from bench.cells.reader import find_cells, read_results
from bench.cells.rows import Row, to_csv


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return three_cells(tmp_path / "results")


def test_a_detector_with_its_parameters_is_one_value(results: Path) -> None:
    rewrite(
        first(results), lambda record: record["spec"].update(detector_parameters={"backbone": "x", "layers": [2, 3]})
    )
    for text in ("detector=detector_00 (backbone=x, layers=2,3),eps=0.5/255", "detector=* (*layers=2,3)"):
        assert [r.folder for r in read_results(results, Filters([text])).results] == [first(results)]
    for text in ("colour=red", "detector=detector_00 (backbone=x, layers=2,3),colour=red"):
        with pytest.raises(UserError, match="no --filter named 'colour'"):
            Filters([text])


def test_a_filter_leaves_a_contradicted_attack_without_its_rank(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = first(results)
    rewrite(folder, lambda record: record["spec"].update(norm="l2", eps="0.1", detector="smoothed+mean"))
    rewrite(folder, lambda record: record["detector"].update(parameters={"smoothed.n": 15}))
    (attack,) = (r for r in find_cells(results).results if r.folder == folder)
    labels = attack.table.anomalous
    rows = [
        Row(name, int(label), float(label), float(label), 0.1, float("nan"),
            {"low": float(label), "high": float(label), "low_0": 0.0, "high_0": 1.0, "certified_radius": 0.0})
        for name, label in zip(attack.table.ids, labels, strict=True)
    ]  # fmt: skip
    certificate = Path(shutil.copytree(folder, results / "certificate"))
    with_rows(certificate, to_csv(rows).encode())
    rewrite(certificate, lambda record: record.update(kind="certificate"))
    rewrite(certificate, lambda record: record["spec"].update(attack="certificate"))
    (alone,) = read_results(results, Filters(["attack=apgd,norm=l2"])).results
    assert alone.metrics["robust_auroc"].value < 1
    assert any("certified AUROC 1.0000 at l2 0.1 is above" in why for why in alone.unranked)
