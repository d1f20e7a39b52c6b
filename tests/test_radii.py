"""Radii in the files, the report and the plots, and what is refused on the way there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Linear
from torch import Tensor

from bench import Data, ThreatModel, evaluate, load_results
from bench.cells.reader import Results, read_results
from bench.cells.rows import Row, from_csv, to_csv
from bench.report.figures.radii import Radii, still_right
from bench.report.write import FORMATS, write_report
from bench.stats.metrics import median
from bench.stats.resampling import RESAMPLES, resampled_medians, weights_of

Run = Callable[..., tuple[int, str, str]]


def column(frame: object, name: str) -> Tensor:
    return torch.tensor(frame[name].to_numpy(), dtype=torch.float64)  # type: ignore[index]


def test_infinite_radii_survive_the_file_and_the_report(tmp_path: Path, data: Data) -> None:
    row = Row("a", 0, 1.0, 2.0, 0.1, 1.5, {"radius": float("inf")})
    other = Row("b", 1, 1.0, 2.0, 0.1, 1.5, {"radius": float("nan")})
    read = from_csv(to_csv([row, other]), tmp_path)
    assert read[0] == row and np.isnan(read[1].more["radius"])

    for targets in ("both", "normal"):
        threat = ThreatModel("linf", "2/255", targets)
        evaluate(Linear(), data, "fab", threat, results=tmp_path, attack_params={"steps": 5})
    table = load_results(tmp_path).set_index("targets")
    assert table.robust_accuracy.notna().all() and table.clean_auroc.notna().all()
    assert "robust_auroc" not in table or table.robust_auroc.isna().all()
    both = next(r for r in read_results(tmp_path)[0] if r.spec.targets == "both")
    assert both.radii is not None
    assert table.median_radius_normal["both"] == pytest.approx(np.median(both.radii[0]))
    assert np.isnan(table.median_radius_anomalous["normal"]) and np.isfinite(table.median_radius_normal["normal"])


def test_json_has_every_digit_and_null_for_what_it_cannot_say(tmp_path: Path, data: Data) -> None:
    evaluate(Linear(), data, "fab", ThreatModel("linf", "2/255"), results=tmp_path, attack_params={"steps": 5})
    (cell,) = read_results(tmp_path).results
    cell.table.columns["radius"][~cell.table.anomalous] = np.inf
    (path,) = FORMATS["json"](Results([cell], [], []), tmp_path, "")
    (found,) = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert cell.metrics["median_radius_normal"].value == np.inf and found["median_radius_normal"] is None
    for name in ("clean_auroc", "robust_accuracy", "median_radius_anomalous"):
        assert found[name] == pytest.approx(cell.metrics[name].value, rel=1e-14)
    assert found["threshold"] == pytest.approx(cell.record.threshold.value, rel=1e-14)


def test_the_report_shows_radii_and_ranks_nothing_by_them(tmp_path: Path, data: Data) -> None:
    steps = {"steps": 5}
    evaluate(Linear(), data, "fab", ThreatModel("linf", "2/255"), results=tmp_path, attack_params=steps)
    evaluate(Linear(), data, "pgd", ThreatModel("linf", "2/255"), results=tmp_path, goal="threshold")
    evaluate(Linear(), data, "pgd", ThreatModel("linf", "2/255"), results=tmp_path)
    (results, *_), written = write_report(tmp_path)
    board = (tmp_path / "LEADERBOARD.md").read_text()
    assert board.count("This attack leaves an image alone") == 2 and board.count("*median radius*:") == 1
    assert "pgd (goal=threshold)" in board
    (overview, *header) = [line for line in board.splitlines() if line.startswith("| rank |")]
    (_, *lines) = [line for line in board.splitlines() if line.startswith("| 1 |")]
    assert "robust AUROC linf 2/255" in overview and len(header) == 3
    for title, line in zip(header, lines, strict=True):
        cells = dict(zip(title.split("|"), line.split("|"), strict=True))
        stops = " normal right " in cells
        for name in (" robust AUROC ", " normal only ", " robust AP ", " robust FPR95 "):
            assert (name not in cells) == stops
        assert cells[" clean AUROC "] != " – " and cells[" robust acc. "] != " – "  # noqa: RUF001
        if stops:
            rates = [float(cells[f" {side} right "]) for side in ("normal", "anomalous")]
            mean = (8 * rates[0] + 7 * rates[1]) / 15  # the images of each class
            assert float(cells[" robust acc. "]) == pytest.approx(mean, abs=2e-3)
    assert len([path for path in written if path.name.startswith("robustness-")]) == 1
    (plot,) = [path for path in written if path.name.startswith("radii-")]
    assert plot.stat().st_size > 0
    (figure,) = Radii.of(results)
    assert figure.norm == "linf" and [len(found) for found in figure.lines.values()] == [15]


def test_the_curve_of_radii_is_the_accuracy() -> None:
    found = np.array([0.0, 0.0, 0.1, 0.2, np.inf])
    x, share = still_right(found)
    for at, value in zip(x, share, strict=True):
        assert value == pytest.approx((found > at).mean())
    assert share[0] == pytest.approx(0.6) and share[-1] == pytest.approx(0.2)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_median_is_numpys_in_every_resample(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    samples = resampled_medians(values, "salt")
    assert median(values).value == np.median(values) and len(samples) == RESAMPLES
    weights = np.concatenate(list(weights_of(n, "salt")), axis=1).T.astype(int)
    expected = [np.median(np.repeat(values, w)) for w in weights[:200]]  # the weight of an image, not of a rank
    assert samples[:200] == pytest.approx(expected)
    infinite = median(np.append(values, [np.inf] * (n + 1))).estimate()
    assert infinite.value == np.inf and infinite.high == np.inf and not np.isnan(infinite.low)
    assert np.isnan(median([]).estimate()).all()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--attack", "fab-linf", "--attack-param", "steps=0"), "steps must be at least 1, got 0"),
        (("--attack", "fab-linf", "--attack-param", "restarts=0"), "restarts must be at least 1, got 0"),
        (("--attack", "fab-linf", "--attack-param", "back=2"), "back must be in [0, 1], got 2"),
        (("--attack", "ddn-l2", "--attack-param", "change=1"), "change must be in (0, 1), got 1"),
        (("--attack", "ddn-l2", "--attack-param", "step_size=0"), "step_size must be above 0, got 0"),
        (("--attack", "ddn-linf", "--eps", "1/255"), "attack ddn has no norm linf; it has l2"),
        (("--attack", "autoattack-linf", "--attack-param", "queries=0"), "queries must be at least 1, got 0"),
        (("--attack", "autoattack-linf", "--attack-param", "draws=0"), "draws must be at least 1, got 0"),
        (("--goal", "accuracy"), "'accuracy' is not one of 'rank', 'threshold'"),
    ],
)
def test_bad_input_is_one_line(run_cli: Run, arguments: tuple[str, ...], expected: str) -> None:
    code, _, err = run_cli("run", "--detector", "autoencoder", "--param", "steps=1", "--limit", "2", *arguments)
    assert code == 2 and expected in " ".join(err.split()) and len(err.strip().splitlines()) == 1
