"""What figures show, by their data; the style; which files a large report makes; the columns that are documented."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from conftest import Linear, NoisyLinear, made_record, small_data
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from rich.console import Console
from sklearn.metrics import roc_auc_score
from test_compare import random_scores
from test_page import unpacked
from torch import Tensor

import bench
from bench import Rng, Score, ThreatModel, Trace, UserError, evaluate
from bench.cells.reader import Results, tidy
from bench.cells.result import Result
from bench.cells.rows import Table
from bench.plugins.lookup import make_attack
from bench.report import figures as kinds_of_figures
from bench.report.figures import _style as figures
from bench.report.figures import kinds, write_figures
from bench.report.figures._figure import Figure
from bench.report.figures._labels import placed
from bench.report.figures.distributions import Distributions, Histograms
from bench.report.figures.heat import Heat
from bench.report.figures.progress import AttackProgress
from bench.report.figures.robustness import Robustness
from bench.report.figures.tradeoff import Tradeoff
from bench.report.page import page

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from report import write_cells

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/results.md"


def result(
    name: str, category: str = "one", eps: str = "2/255", seed: int = 0, gap: float = 2.0, **changes: Any
) -> Result:
    """A cell of 60 random scores, each moved by 0.7; `changes` are of the spec, or columns; `more`: of the detector."""
    clean = random_scores(seed, gap)
    anomalous = np.arange(60) >= 30
    targets = changes.get("targets", "both")
    moved = (targets == "both") | (anomalous == (targets == "anomalous"))
    worst = np.where(moved, clean + np.where(anomalous, -0.7, 0.7), clean)
    columns = {"clean": clean, "worst": worst, "distance": 0 * clean, "rounded": worst}
    columns |= {key: changes.pop(key) for key in list(changes) if isinstance(changes[key], np.ndarray)}
    record = made_record(
        kind=changes.pop("kind", "attack"), checks=changes.pop("checks", []),
        attack={"parts": changes.pop("parts", [])}, detector=changes.pop("more", {}),
        spec={"category": category, "detector": name, "eps": eps, **changes},
    )  # fmt: skip
    return Result(Path(f"{name}-{category}-{eps}"), record, Table(tuple(map(str, range(60))), anomalous, columns))


def axes() -> Axes:
    return Canvas().add_subplot()


def drawn(figure: Figure) -> Axes:
    found = axes()
    figure.draw(found)
    return found


def area(scores: np.ndarray) -> float:
    return float(roc_auc_score(np.arange(60) >= 30, scores))


# --- robustness


def test_curves_carry_what_one_class_alone_does() -> None:
    cells = [result("a", eps=eps) for eps in ("1/255", "2/255")]
    (found,) = Robustness.of(cells)
    start, *points = found.lines["a"]
    assert found.swept.targets == "both" and [p.eps for p in points] == [Fraction(1, 255), Fraction(2, 255)]
    assert start.sides == (start.auroc, start.auroc)
    columns = cells[0].table.columns
    for value, moved in zip(points[0].sides, (~cells[0].table.anomalous, cells[0].table.anomalous), strict=True):
        assert value.value == pytest.approx(area(np.where(moved, columns["worst"], columns["clean"])))
        assert points[0].auroc.value < value.value < start.auroc.value


def test_a_threat_that_moves_one_class_has_no_other_curve() -> None:
    (found,) = Robustness.of([result("a", targets="normal")])
    assert not any(p.sides for p in found.lines["a"])
    assert [t.get_text() for t in drawn(found).get_legend().get_texts()] == ["a"]  # type: ignore[union-attr]


def test_the_legend_names_the_thin_lines_once() -> None:
    (found,) = Robustness.of([result(name, eps=eps) for name in "abc" for eps in ("1/255", "2/255")])
    shown = drawn(found)
    names = [t.get_text() for t in shown.get_legend().get_texts()]  # type: ignore[union-attr]
    assert names == ["a", "b", "c", "only normal images attacked", "only anomalous ones attacked"]
    thin = [line for line in shown.lines if line.get_linestyle() == "--" and len(np.atleast_1d(line.get_xdata()))]
    assert [line.get_color() for line in thin] == list(figures.COLOURS[:3])


# --- boards


def test_the_tradeoff_is_the_mean_of_the_data_sets_table() -> None:
    cells = [result(name, category, seed=i, gap=1 + i % 2) for i, (name, category) in enumerate(
        (n, c) for n in "ab" for c in ("one", "two"))]  # fmt: skip
    cells.append(result("c", "one", checks=[{"name": "gradient", "passed": False, "sentence": "no"}]))
    (figure,) = Tradeoff.of(cells)
    assert figure.title == "d, 8 px: mean of 2 categories, linf 2/255"
    found = {p.detector: p for p in figure.points}
    assert {name: p.ranked for name, p in found.items()} == {"a": True, "b": True, "c": False}
    assert found["c"].label == "c (1 of 2 categories, not ranked)" and found["a"].label == "a"
    for name in "ab":
        mine = [r.table.columns for r in cells if r.detector == name]
        assert found[name].clean.value == pytest.approx(np.mean([area(c["clean"]) for c in mine]))
        assert found[name].robust.value == pytest.approx(np.mean([area(c["worst"]) for c in mine]))
        assert found[name].robust.low < found[name].robust.value < found[name].robust.high


def test_data_sets_without_a_tradeoff_are_left_out() -> None:
    assert Tradeoff.of([result("a")]) == []
    assert Tradeoff.of([result(name, goal="threshold") for name in "ab"]) == []


@pytest.mark.parametrize("count", [5, 20])
def test_labels_do_not_cover_each_other_or_leave_the_panel(count: int) -> None:
    at = np.random.default_rng(count).uniform(20, 400, (count, 2))
    sizes = np.tile([[60.0, 10.0]] if count == 5 else [[12.0, 10.0]], (count, 1))
    offsets, _ = placed(at, sizes, np.array([[0, 0], [420, 420]]))
    low, high = at + offsets - sizes / 2, at + offsets + sizes / 2
    assert (low >= 0).all() and (high <= 420).all()
    for i in range(count):
        for j in range(i):
            assert (np.minimum(high[i], high[j]) <= np.maximum(low[i], low[j])).any()


def test_many_detectors_are_labelled_by_number() -> None:
    (few,) = Tradeoff.of([result(name, seed=i) for i, name in enumerate("abc")])
    (many,) = Tradeoff.of([result(name, seed=i) for i, name in enumerate("abcdefghij")])
    assert not few.by_number and many.by_number
    texts = {t.get_text() for t in drawn(few).texts}
    assert {"a", "b", "c"} <= texts
    shown = drawn(many)
    assert {str(i + 1) for i in range(10)} <= {t.get_text() for t in shown.texts}
    legend = [t.get_text() for t in shown.get_legend().get_texts()]  # type: ignore[union-attr]
    assert legend == [f"{i + 1}  {p.detector}" for i, p in enumerate(many.points)]


def test_the_heat_map_is_the_cells_and_nan() -> None:
    cells = [result("a", "one", seed=1), result("a", "two", seed=2, gap=3), result("b", "two", seed=3, gap=0)]
    (found,) = Heat.of(cells)
    assert found.categories == ["one", "two"]
    assert found.names == ["a", "b (not ranked)"]  # its mean is over one category
    expected = [[area(cells[0].table.columns["worst"]), area(cells[1].table.columns["worst"])]]
    expected.append([np.nan, area(cells[2].table.columns["worst"])])
    np.testing.assert_allclose(found.values, expected)
    texts = [t.get_text() for t in drawn(found).texts]
    assert texts == [f"{v:.2f}" for row in expected for v in row if not np.isnan(v)]
    assert Heat.of([result("a"), result("b")]) == []


# --- cells


def test_distributions_are_shares_of_all_scores() -> None:
    cell = result("a")
    found = Histograms.of(cell)
    assert len(found.edges) <= 41 and Distributions(cell).threshold == 0.5
    for shares in found[1:5]:
        assert len(shares) == len(found.edges) - 1 and shares.sum() == pytest.approx(1)
    columns = cell.table.columns
    assert found.edges[0] == min(columns["clean"].min(), columns["worst"].min())
    middle = (found.edges[1:] + found.edges[:-1]) / 2
    width = found.edges[1] - found.edges[0]
    assert middle @ found.normal_after == pytest.approx(columns["worst"][:30].mean(), abs=width / 2)
    assert middle @ found.anomalous_before == pytest.approx(columns["clean"][30:].mean(), abs=width / 2)


def test_infinite_bounds_are_in_the_outermost_bins() -> None:
    worst = np.concatenate([np.full(30, np.inf), np.full(30, -np.inf)])
    found = Histograms.of(result("a", worst=worst))
    assert np.isfinite(found.edges).all()
    assert found.normal_after[-1] == found.anomalous_after[0] == 1


class Hilly(Linear):
    """Linear and waves on it: not climbed in one step."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) + torch.sin(40 * x * self.weight.to(x)).flatten(1).sum(1)


def climbed(name: str, steps: int, restarts: int = 1, goal: Any = "rank", **more: Any) -> tuple[Tensor, Trace, Score]:
    """Image, trace and score of an attack on five images."""
    attack: Any = make_attack(name, {"steps": steps, "restarts": restarts, **more})[2]
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    score = Score(Hilly(), threshold=float(Hilly().score(x).median()), goal=goal)
    trace = Trace(attack.budget)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    ids = [str(i) for i in range(5)]
    image = attack(score, x, sign, ThreatModel("linf", "8/255"), Rng(0, ids), trace=trace)
    score_without = Score(Hilly(), threshold=score.threshold, goal=goal)
    without = attack(score_without, x, sign, ThreatModel("linf", "8/255"), Rng(0, ids))
    assert torch.equal(image, without) and score.forwards == score_without.forwards
    assert [len(best) for best in trace.best] == [5] * len(trace.passes)
    torch.testing.assert_close(trace.best[-1], sign * score.detector.score(image))
    return torch.stack(trace.best), trace, score


def test_a_trace_notes_one_two_five_and_the_last() -> None:
    assert Trace(21).passes == (1, 2, 5, 10, 20, 21)
    assert Trace(101).columns[-2:] == ("after_100", "after_101")
    assert Trace(10).passes == (1, 2, 5, 10) and Trace(1).passes == (1,)


@pytest.mark.parametrize("goal", ["rank", "threshold"])
@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_a_trace_rises_to_what_the_attack_returns_and_costs_nothing(name: str, restarts: int, goal: str) -> None:
    """The same image and the same number of passes as without; the last value is the score of that image."""
    best, trace, score = climbed(name, 12, restarts, goal)
    assert (best[1:] >= best[:-1]).all()
    assert trace.passes[-1] == 13 * restarts
    assert score.forwards <= 5 * trace.passes[-1]
    if goal == "rank":
        assert (best[-1] > best[0]).all()


def test_more_steps_extend_the_same_columns() -> None:
    same: dict[str, Any] = {"schedule": "constant", "step_size": 0.002}
    short, few, _ = climbed("pgd", 9, **same)
    long, many, _ = climbed("pgd", 40, **same)
    assert few.passes == (1, 2, 5, 10) and many.passes[:4] == few.passes
    assert torch.equal(short, long[:4]) and (long[-1] > short[-1]).any()


def test_rows_have_the_progress(tmp_path: Path) -> None:
    for targets in ("both", "normal"):
        threat = ThreatModel("linf", "8/255", targets)
        frame = evaluate(Hilly(), small_data(), "apgd-linf", threat, attack_params={"steps": 20}, results=tmp_path)
        names = [f"after_{k}" for k in (1, 2, 5, 10, 20, 21)]
        assert list(frame.columns[6:]) == names
        sign = (1 - 2 * frame["label"]).to_numpy()[:, None]
        reached = sign * frame[["clean", *names]].to_numpy()
        assert (np.diff(reached) >= 0).all()
        np.testing.assert_allclose(frame["after_21"], frame["worst"], rtol=1e-5)
        if targets == "normal":
            kept = frame[frame["label"] == 1]
            assert (kept[names].to_numpy() == kept[["clean"]].to_numpy()).all()
    found = {figure.board: figure.lines for figure in AttackProgress.of(bench.read_results(tmp_path).results)}
    assert len(found) == 2
    points = found["small, 8 px: apgd (steps=20), linf 8/255"]["Hilly"]
    (cell,) = (r for r in bench.read_results(tmp_path).results if r.spec.targets == "both")
    assert [p.passes for p in points] == [1, 2, 5, 10, 20, 21]
    assert points[-1].auroc == pytest.approx(cell.metrics["robust_auroc"].value)
    assert points[0].auroc > points[-1].auroc


def test_what_makes_the_passes_unclear_has_no_progress() -> None:
    """Lucky draws of a randomized detector, and the parts of a list, whose passes are not the list's."""
    noisy = evaluate(NoisyLinear(), small_data(), attack_params={"steps": 3})
    listed = evaluate(Linear(), small_data(), "worst-linf", attack_params={"attacks": "pgd[steps=3],apgd[steps=3]"})
    assert not any(name.startswith("after_") for frame in (noisy, listed) for name in frame.columns)


def test_progress_is_the_mean_over_categories() -> None:
    columns = [random_scores(seed) for seed in range(4)]
    cells = [result("a", c, after_1=columns[2 * i], after_3=columns[2 * i + 1]) for i, c in enumerate(("one", "two"))]
    (figure,) = AttackProgress.of([*cells, result("b")])
    lines = figure.lines
    expected = [np.mean([area(columns[i]), area(columns[i + 2])]) for i in (0, 1)]
    assert [p.passes for p in lines["a"]] == [1, 3] and list(lines) == ["a"]
    assert [p.auroc for p in lines["a"]] == pytest.approx(expected)
    shown = drawn(figure)
    assert shown.get_xscale() == "log" and [int(t) for t in shown.get_xticks()] == [1, 3]


def test_a_trace_that_is_not_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pgd = type(make_attack("pgd")[2])
    monkeypatch.setattr(pgd, "__call__", lambda self, score, x, sign, threat, rng, trace=None: x)
    with pytest.raises(UserError, match="does not keep it"):
        evaluate(Linear(), small_data())


# --- style and files


def test_the_style_has_the_colours_and_leaves_the_users_settings() -> None:
    before = dict(matplotlib.rcParams)
    with figures.style():
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
        assert not matplotlib.rcParams["axes.spines.top"]
    assert tuple(f"#{colour.lstrip('#')}" for colour in cycle) == figures.COLOURS
    assert dict(matplotlib.rcParams) == before
    with matplotlib.style.context("bench.bench"):
        assert matplotlib.rcParams["savefig.dpi"] == 150


def test_lines_differ_in_colour_or_marker() -> None:
    lines = range(len(figures.COLOURS) * len(figures.MARKERS))
    assert len({(figures.colour(i), figures.marker(i)) for i in lines}) == len(lines)
    assert [figures.MARKERS[figures.shape(i)] for i in lines] == [figures.marker(i) for i in lines]


@dataclass(frozen=True)
class Toy(Figure):
    """A figure of nothing."""

    group = "Toys"
    needs = "a toy"

    name: str = "toy"
    shows: int = 1
    heading = "toy"
    inches = (2, 2)

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Toy]:
        return [cls()]

    def draw(self, axes: Axes) -> None:
        axes.set_title(self.heading)

    def spec(self) -> dict[str, Any]:
        return {"data": [], "layout": {}, "caption": self.heading}


def kind(found: Sequence[Toy]) -> type[Toy]:
    return type("Kind", (Toy,), {"of": classmethod(lambda cls, results: found)})


def test_a_large_report_makes_the_plots_of_the_most_detectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    numbers = {"many": range(100), "few": range(3), "none": range(0)}
    own = {name: kind([Toy(f"{name} {n}", n) for n in each]) for name, each in numbers.items()}
    monkeypatch.setattr(kinds_of_figures, "kinds", lambda: own)
    monkeypatch.setattr(Toy, "write_below", lambda self, folder, hashed: folder / self.name)
    paths, notes = write_figures([], tmp_path)
    assert len(paths) == kinds_of_figures.MOST_FILES
    left = 100 - (kinds_of_figures.MOST_FILES - 3)
    assert {p.name for p in paths} == {*(f"few {n}" for n in range(3)), *(f"many {n}" for n in range(left, 100))}
    assert len(notes) == 1 and notes[0].startswith(f"{left} of 100 many plots are left out")


def test_file_names_keep_what_they_can_say(tmp_path: Path) -> None:
    first = Toy("robustness-folder, 16 px-pgd-linf").write_below(tmp_path)
    assert first.name == "robustness-folder-16-px-pgd-linf.png"
    titles = ["x=-1", "x=1", "\u7816", "\u74e6", "a" * 300, "a" * 299 + "b", "../up", "a+b", "a b", "-1"]
    written = [Toy(title).write_below(tmp_path) for title in titles]
    assert len({path.name.casefold() for path in written}) == len(titles)
    assert all(path.parent == tmp_path and path.is_file() and len(path.name) < 200 for path in written)
    assert [Toy(title).write_below(tmp_path) for title in titles] == written


def test_plots_whose_file_names_collide_have_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    titles = ["metal nut", "metal-nut", "metal, nut", "Metal nut", "screw"]
    own = {"one": kind(list(map(Toy, titles[:2]))), "other": kind(list(map(Toy, titles[2:])))}
    monkeypatch.setattr(kinds_of_figures, "kinds", lambda: own)
    names = [path.name for path in write_figures([], tmp_path).paths]
    assert len({name.casefold() for name in names}) == len(titles) and "screw.png" in names
    assert sum(bool(re.fullmatch("(?i)metal-nut-[0-9a-f]{8}.png", name)) for name in names) == 4


TOY_FILE = '''
from dataclasses import dataclass
from ._figure import Figure

@dataclass(frozen=True)
class Toy(Figure):
    """How many cells there are."""

    group = "Cells in numbers"
    needs = "a cell"
    place = 0

    count: int
    shows = 1
    inches = (2, 2)

    @classmethod
    def of(cls, results):
        return [cls(len(results))] if results else []

    @property
    def heading(self):
        return f"{self.count} cells"

    @property
    def name(self):
        return f"toy {self.count}"

    def draw(self, axes):
        axes.bar([0], [self.count])
        axes.set_title(self.heading)

    def spec(self):
        return {"data": [{"type": "bar", "x": [0], "y": [self.count]}], "layout": {}, "caption": "cells, counted"}
'''


@pytest.fixture
def a_file_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beside the figures: a kind called toy."""
    (tmp_path / "toy.py").write_text(TOY_FILE, encoding="utf-8")
    monkeypatch.setattr(kinds_of_figures, "__path__", [*kinds_of_figures.__path__, str(tmp_path)])
    kinds.cache_clear()
    yield
    monkeypatch.undo()
    kinds.cache_clear()
    sys.modules.pop(f"{kinds_of_figures.__name__}.toy", None)


def test_a_figure_is_one_file(a_file_more: None, tmp_path: Path) -> None:
    """With its PNG, its place on the page, its function in bench.plot and the error where there is nothing to draw."""
    write_cells(tmp_path / "results", 2, 12)
    cells = bench.read_results(tmp_path / "results").results
    assert "toy-2.png" in [path.name for path in write_figures(cells, tmp_path).paths]
    text = page(Results(cells, [], []))
    assert '<optgroup label="Cells in numbers"><option value="0">2 cells</option>' in text
    assert unpacked(text)["plots"][0]["caption"] == "cells, counted"
    assert bench.plot.toy(cells, axes=axes()).get_title() == "2 cells"
    assert bench.plot.toy.__doc__ == "How many cells there are." and "toy" in dir(bench.plot)
    with pytest.raises(UserError, match="nothing for a plot of toy in these results: it needs a cell"):
        bench.plot.toy([])


def every_kind() -> list[Result]:
    """Cells that every kind has something for."""
    scores, sizes = random_scores(1), np.abs(random_scores(2))
    cells = [
        result(name, category, eps, after_1=scores, after_3=scores)
        for name in "ab" for category in ("one", "two") for eps in ("1/255", "2/255")
    ]  # fmt: skip
    cells += [result("a", category, attack="ddn", norm="l2", eps="1", radius=sizes) for category in ("one", "two")]
    for value in (0.1, 0.2):
        purification = {"parameter": "p.level", "value": value, "inner": "a"}
        cells.append(
            result("p+a", detector_parameters={"p.level": value}, attack="other", more={"purification": purification})
        )
    for eps in ("0.1", "0.2"):
        noise = {"parameters": {"smoothed.sigma": 0.12}}
        cells.append(
            result("smoothed+a", eps=eps, norm="l2", kind="certificate", attack="certificate", more=noise,
                   low_0=scores, high_0=scores)
        )  # fmt: skip
    return cells


@pytest.mark.parametrize("name", kinds())
def test_every_kind_has_both_forms(name: str, tmp_path: Path) -> None:
    found = kinds()[name].of(every_kind())
    assert found and len({figure.title for figure in found}) == len(found)
    assert not any("\n" in figure.title for figure in found)
    path = found[0].write_below(tmp_path)
    assert path.suffix == ".png" and path.stat().st_size > 1000
    assert drawn(found[0]).get_title() == found[0].heading
    spec = found[0].spec()
    assert set(spec) == {"data", "layout", "caption"} and spec["data"] and spec["caption"]
    assert {"xaxis", "yaxis"} <= set(spec["layout"])
    json.dumps(spec, allow_nan=False)


def test_a_report_writes_each_kind_and_no_distributions(tmp_path: Path) -> None:
    cells = [result(name, category, after_1=random_scores(1)) for name in "ab" for category in ("one", "two")]
    written, notes = write_figures(cells, tmp_path)
    assert [p.name.partition("-")[0] for p in written] == ["robustness", "tradeoff", "heat", "progress"]
    assert notes == [] and all(p.stat().st_size > 1000 for p in written)


# --- notebooks


def test_a_notebook_draws_into_the_axes_it_gives(tmp_path: Path) -> None:
    evaluate(Linear(), small_data(), results=tmp_path, attack_params={"steps": 2})
    given = axes()
    for results in (tmp_path, str(tmp_path), bench.read_results(tmp_path), bench.read_results(tmp_path).results):
        given.clear()
        assert bench.plot.robustness(results, axes=given) is given
        assert [str(c.get_label()) for c in given.containers] == ["Linear"]
    for draw in (bench.plot.distributions, bench.plot.progress):
        assert draw(tmp_path, axes=axes()).get_title()


def test_a_notebook_gets_axes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    cells = [result(name, category, eps) for name in "ab" for category in ("one", "two") for eps in ("1/255", "2/255")]
    for draw in (bench.plot.tradeoff, bench.plot.heat):
        found = draw(cells, "2/255")
        assert found.get_title().endswith("linf 2/255")
        plt.close(found.figure)  # type: ignore[arg-type]


def test_titles_are_chosen_or_refused_in_one_line() -> None:
    cells = [result(name, eps=eps) for name in "ab" for eps in ("1/255", "2/255")]
    assert bench.plot.titles("tradeoff", cells) == ["d, 8 px: one, linf 1/255", "d, 8 px: one, linf 2/255"]
    for title, message in (("3/255", "is part of no title"), ("linf", "is part of several titles")):
        with pytest.raises(UserError, match=message):
            bench.plot.tradeoff(cells, title, axes())
    with pytest.raises(UserError, match="certificates"):
        bench.plot.brackets(cells, axes=axes())
    with pytest.raises(UserError, match="two categories"):
        bench.plot.heat(cells, axes=axes())
    with pytest.raises(UserError, match="distributions"):
        bench.plot.titles("distribution", cells)


@pytest.mark.parametrize("name", kinds())
def test_every_kind_is_a_function_of_the_same_name(name: str) -> None:
    function = getattr(bench.plot, name)
    assert name in dir(bench.plot) and function.__name__ == name and function.__doc__
    with pytest.raises(UserError, match=f"nothing for a plot of {name}"):
        function([])


def test_what_is_no_kind_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="robustnes"):
        _ = bench.plot.robustnes


def test_results_show_themselves() -> None:
    cell = result("a<b", checks=[{"name": "gradient", "passed": False, "sentence": "no & never"}])
    found = Results([cell, result("c")], ["unfinished: d"], [])
    console = Console(width=200)
    for shown, texts in (
        (cell, ["a<b", str(cell.metrics["robust_auroc"].estimate()), "no & never", "not ranked"]),
        (found, ["2 finished cells", "a<b (not ranked)", f"{cell.metrics['clean_auroc'].value:.3f}", "unfinished: d"]),
    ):
        html = shown._repr_html_()
        with console.capture() as captured:
            console.print(shown)
        for text in texts:
            assert text in captured.get()
            assert text.replace("&", "&amp;").replace("<", "&lt;") in html


def test_results_fit_a_screen() -> None:
    checks = [{"name": f"check {i}", "passed": True, "sentence": "all is well"} for i in range(14)]
    cells = [result(f"detector_{i}", checks=checks, parts=["apgd"], apgd=random_scores(1)) for i in range(60)]
    found = Results(cells, [f"unfinished: {i}" for i in range(40)], ["left out: x"])
    console = Console(width=80)
    for shown, texts in (
        (found, ["60 finished cells", "detector_11", "and 48 more", "left out: x"]),
        (cells[0], ["robust_auroc", "apgd_auroc", "all 14 checks passed"]),
    ):
        with console.capture() as captured:
            console.print(shown)
        lines = captured.get().splitlines()
        assert len(lines) <= 36 and max(map(len, lines)) <= 80
        assert all(text in captured.get() for text in texts)


# --- columns


def documented() -> set[str]:
    """Every column of docs/results.md, with those of the intervals of its metrics; PART is one called `apgd`."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found: set[str] = set()
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        names = [name.replace("PART", "apgd") for name in re.findall(r"^\| `(\w+)` \|", section, re.M)]
        found |= set(names)
        if section.startswith("Metrics"):
            found |= {f"{name}_{end}" for name in names for end in ("low", "high")}
    return found


def test_every_column_is_documented_and_no_other(tmp_path: Path) -> None:
    evaluate(Linear(), small_data(), results=tmp_path, attack_params={"steps": 2})
    real = bench.load_results(tmp_path)
    assert set(real.columns) <= documented()
    half = np.where(np.arange(60) % 2, 0.3, np.nan)
    scores = random_scores(1)
    kinds = [
        result("a", apgd=scores, parts=["apgd"], worst_draw=scores, known_noise=scores, broken=half),
        result("a", radius=np.abs(scores)),
        result("a", kind="certificate", low_0=scores, high_0=scores, certified_radius=np.abs(scores)),
    ]
    assert set(real.columns) | set(tidy(kinds).columns) == documented()
