"""Certificates beside attacks: broken ones are found, and brackets are shown."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from certified import SMALL, Run, counted_calls, own_cache  # noqa: F401  fixtures
from conftest import Linear
from torch import Tensor

from bench import Data, Rng, Score, ThreatModel, certify, evaluate, load_results
from bench.cells.bracket import brackets
from bench.cells.reader import read_results
from bench.engine.certifier import Certifier
from bench.plugins import registry
from bench.stats import smoothing as bounds


class Peeking(Linear):
    """Like AdvRAD's own score: it draws noise, and still sees the clean image beside it."""

    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return super().score(x) + 0.01 * super().score(noise)


def test_noise_of_the_score_itself_would_claim_what_an_attack_breaks(data: Data) -> None:
    """The shortcut: draws of the plain randomized score, taken for draws of a smoothing noise of the same size."""
    inner, radius, sigma = Peeking(), 0.2, 0.25
    x = data.test.images([0])
    draws = Score(inner).each(x, Rng(0, ["image"]), 1000).flatten().numpy()
    claimed = bounds.quantile_bounds(draws, 0.001, radius / sigma)[1]
    moved = ThreatModel("l2", radius).project(x + radius * inner.weight / inner.weight.norm(), x)
    reached = float(Score(inner).each(moved, Rng(1, ["image"]), 1000).median())
    assert reached > claimed
    honest = certify(inner, data, radius, sigma=sigma)
    assert honest.high[0] > reached and all(check["passed"] for check in honest.attrs["run"]["checks"])


def test_checks_find_bounds_that_rest_on_too_little_noise(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Certifier._bounded

    def shortcut(self: Certifier, index: int) -> Any:
        self.found = {index: Score(Peeking()).each(self.data.test.images([index]), Rng(0, [str(index)]), 1000)
                      .flatten().double().numpy()}  # fmt: skip
        return before(self, index)

    monkeypatch.setattr(Certifier, "_bounded", shortcut)
    rows = certify(Peeking(), data, 0.2, sigma=0.25)
    failed = {check["name"] for check in rows.attrs["run"]["checks"] if not check["passed"]}
    assert "inside the ball" in failed


def test_the_bracket_of_certificate_and_attack(data: Data, tmp_path: Path, run_cli: Run) -> None:
    smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=0.25)
    for radius in ("0.1", "0.2"):
        certify(smoothed, data, radius, sigma=0.25, samples=400, results=tmp_path)
        evaluate(smoothed, data, "apgd-l2", ThreatModel("l2", radius), attack_params={"steps": 5, "draws": 2},
                 results=tmp_path, draws=4)  # fmt: skip
    found = brackets(read_results(tmp_path)[0])
    assert [float(b.radius) for b in found] == [0.1, 0.2]
    for bracket in found:
        low, high, clean = bracket.certified(), bracket.attacked(), bracket.certified("clean_auroc")
        assert low is not None and high is not None and clean is not None and low.value <= high.value <= clean.value
    code, out, _ = run_cli("report", "--results", tmp_path)
    board = (tmp_path / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert code == 0 and "impossible" not in out and board.count("| holds |") == 2 and "VIOLATED" not in board
    assert "certified AUROC" in board and any(p.name.startswith("certified-") for p in tmp_path.glob("*.png"))

    # an attack that found what cannot be: every normal image above every anomalous one
    cell = next(p for p in tmp_path.rglob("apgd-l2-0.1*"))
    lines = (cell / "samples.csv").read_text().splitlines()
    for i, line in enumerate(lines[1:], 1):
        fields = line.split(",")
        fields[3] = "1e6" if fields[1] == "0" else "-1e6"
        lines[i] = ",".join(fields)
    text = "\n".join(lines) + "\n"
    (cell / "samples.csv").write_text(text)
    record = json.loads((cell / "run.json").read_text())
    record["samples_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (cell / "run.json").write_text(json.dumps(record))
    code, out, _ = run_cli("report", "--results", tmp_path)
    board = (tmp_path / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert code == 1 and "impossible" in out and "**VIOLATED**" in board and "bracket check failed" in board
    table = load_results(tmp_path)
    assert (table[(table.kind == "attack") & (table.eps == 0.1)].unranked != "").all()
    assert (table[(table.kind == "certificate") & (table.eps == 0.1)].unranked != "").all()


def test_a_bracket_is_shown_for_the_categories_that_were_attacked(data: Data, tmp_path: Path) -> None:
    smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=0.25)
    other = Data(data.name, "two", data.image_size, data.train, data.test)
    for bed in (data, other):
        certify(smoothed, bed, 0.1, results=tmp_path, **SMALL)
    evaluate(smoothed, other, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    whole, part = brackets(read_results(tmp_path)[0])
    assert whole.categories == ["one", "two"] and whole.attacked() is None
    assert part.categories == ["two"] and part.attacked() is not None
    assert [bracket.verdict for bracket in (whole, part)] == ["open", "holds"]


def test_a_detector_of_the_same_name_is_no_bracket(data: Data, tmp_path: Path) -> None:
    for seed in (0, 1):
        smoothed = registry.load("detectors", "smoothed").target(Linear(seed), sigma=0.25)
        if seed:
            certify(smoothed, data, 0.1, results=tmp_path, **SMALL)
        else:
            evaluate(smoothed, data, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    (found,) = brackets(read_results(tmp_path)[0])
    assert found.attacked() is None
    few = registry.load("detectors", "smoothed").target(Linear(1), sigma=0.25, n=5)
    evaluate(few, data, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    (found,) = brackets(read_results(tmp_path)[0])
    assert found.attacked() is not None and found.verdict == "open (attacked with n below 15)"


def test_the_plot_has_clean_certified_and_attacked(data: Data, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from bench.report.figures.brackets import Brackets

    for sigma in (0.2, 0.4):
        smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=sigma)
        for radius in (0.05, 0.1):
            certify(smoothed, data, radius, sigma=sigma, results=tmp_path, **SMALL)
        evaluate(smoothed, data, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    results = read_results(tmp_path)[0]
    (figure,) = Brackets.of(results)
    assert "small" in figure.title and list(figure.bands) == ["sigma 0.2", "sigma 0.4"]
    axes = Figure().add_subplot()
    figure.draw(axes)
    drawn: dict[str, Any] = {str(c.get_label()): cast(Any, c).lines[0].get_xydata() for c in axes.containers}
    assert set(drawn) == {f"sigma {s}, {w}" for s in (0.2, 0.4) for w in ("certified", "attacked")}
    certified = drawn["sigma 0.2, certified"]
    assert certified[:, 0].tolist() == [0, 0.05, 0.1] and (np.diff(certified[:, 1]) <= 0).all()
    assert drawn["sigma 0.2, attacked"][:, 0].tolist() == [0, 0.1]
    assert (drawn["sigma 0.2, attacked"][-1, 1] >= certified[-1, 1]).all()
