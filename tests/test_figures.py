"""What figures show, by their data; their style."""

from __future__ import annotations

from fractions import Fraction

import matplotlib
import numpy as np
import pytest
from made_up import area, moved, random_scores
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.analysis.compare import Ranks
from bench.report.figures import Figure
from bench.report.figures import _style as figures
from bench.report.figures._labels import placed
from bench.report.figures.distributions import Distributions, Histograms
from bench.report.figures.heat import Heat
from bench.report.figures.progress import AttackProgress
from bench.report.figures.ranks import RanksDiagram
from bench.report.figures.robustness import Robustness
from bench.report.figures.tradeoff import Tradeoff


def drawn(figure: Figure) -> Axes:
    found = Canvas().add_subplot()
    figure.draw(found)
    return found


def test_curves_carry_what_one_class_alone_does() -> None:
    cells = [moved("a", eps=eps) for eps in ("1/255", "2/255")]
    (found,) = Robustness.of(cells)
    start, *points = found.lines["a"]
    assert found.swept.targets == "both" and [p.eps for p in points] == [Fraction(1, 255), Fraction(2, 255)]
    assert start.sides == (start.auroc, start.auroc)
    columns = cells[0].table.columns
    for value, side in zip(points[0].sides, (~cells[0].table.anomalous, cells[0].table.anomalous), strict=True):
        assert value.value == pytest.approx(area(np.where(side, columns["worst"], columns["clean"])))
        assert points[0].auroc.value < value.value < start.auroc.value


def test_a_threat_that_moves_one_class_has_no_other_curve() -> None:
    (found,) = Robustness.of([moved("a", targets="normal")])
    assert not any(p.sides for p in found.lines["a"])
    assert [t.get_text() for t in drawn(found).get_legend().get_texts()] == ["a"]  # type: ignore[union-attr]


def test_the_legend_names_the_thin_lines_once() -> None:
    (found,) = Robustness.of([moved(name, eps=eps) for name in "abc" for eps in ("1/255", "2/255")])
    shown = drawn(found)
    names = [t.get_text() for t in shown.get_legend().get_texts()]  # type: ignore[union-attr]
    assert names == ["a", "b", "c", "only normal images attacked", "only anomalous ones attacked"]
    thin = [line for line in shown.lines if line.get_linestyle() == "--" and len(np.atleast_1d(line.get_xdata()))]
    assert [line.get_color() for line in thin] == list(figures.COLOURS[:3])


def test_the_tradeoff_is_the_mean_of_the_data_sets_table() -> None:
    cells = [moved(name, category, seed=i, gap=1 + i % 2) for i, (name, category) in enumerate(
        (n, c) for n in "ab" for c in ("one", "two"))]  # fmt: skip
    cells.append(moved("c", "one", checks=[{"name": "gradient", "passed": False, "sentence": "no"}]))
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
    assert Tradeoff.of([moved("a")]) == []
    assert Tradeoff.of([moved(name, goal="threshold") for name in "ab"]) == []


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
    (few,) = Tradeoff.of([moved(name, seed=i) for i, name in enumerate("abc")])
    (many,) = Tradeoff.of([moved(name, seed=i) for i, name in enumerate("abcdefghij")])
    assert not few.by_number and many.by_number
    texts = {t.get_text() for t in drawn(few).texts}
    assert {"a", "b", "c"} <= texts
    shown = drawn(many)
    assert {str(i + 1) for i in range(10)} <= {t.get_text() for t in shown.texts}
    legend = [t.get_text() for t in shown.get_legend().get_texts()]  # type: ignore[union-attr]
    assert legend == [f"{i + 1}  {p.detector}" for i, p in enumerate(many.points)]


def test_the_heat_map_is_the_cells_and_nan() -> None:
    cells = [moved("a", "one", seed=1), moved("a", "two", seed=2, gap=3), moved("b", "two", seed=3, gap=0)]
    (found,) = Heat.of(cells)
    assert found.categories == ["one", "two"]
    assert found.names == ["a", "b (not ranked)"]  # its mean is over one category
    expected = [[area(cells[0].table.columns["worst"]), area(cells[1].table.columns["worst"])]]
    expected.append([np.nan, area(cells[2].table.columns["worst"])])
    np.testing.assert_allclose(found.values, expected)
    texts = [t.get_text() for t in drawn(found).texts]
    assert texts == [f"{v:.2f}" for row in expected for v in row if not np.isnan(v)]
    assert Heat.of([moved("a"), moved("b")]) == []


def test_distributions_are_shares_of_all_scores() -> None:
    cell = moved("a")
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
    found = Histograms.of(moved("a", worst=worst))
    assert np.isfinite(found.edges).all()
    assert found.normal_after[-1] == found.anomalous_after[0] == 1


def test_progress_is_the_mean_over_categories() -> None:
    columns = [random_scores(seed) for seed in range(4)]
    cells = [moved("a", c, after_1=columns[2 * i], after_3=columns[2 * i + 1]) for i, c in enumerate(("one", "two"))]
    (figure,) = AttackProgress.of([*cells, moved("b")])
    lines = figure.lines
    expected = [np.mean([area(columns[i]), area(columns[i + 2])]) for i in (0, 1)]
    assert [p.passes for p in lines["a"]] == [1, 3] and list(lines) == ["a"]
    assert [p.auroc for p in lines["a"]] == pytest.approx(expected)
    shown = drawn(figure)
    assert shown.get_xscale() == "log" and [int(t) for t in shown.get_xticks()] == [1, 3]


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


def test_the_diagram_shows_every_rank_and_group() -> None:
    from matplotlib.figure import Figure

    ranks = Ranks(10, {"a": 1.0, "b": 1.5, "c": 2.2, "d": 4.0}, 0.01, 1.0)
    axes = Figure().add_subplot()
    RanksDiagram(ranks, "robust_auroc").draw(axes)
    texts = {t.get_text().strip() for t in axes.texts}
    assert {"a (1.00)", "b (1.50)", "c (2.20)", "d (4.00)", "critical difference 1.00"} == texts
    bars = [tuple(np.asarray(line.get_xdata())) for line in axes.lines if line.get_linewidth() == 3]
    assert bars == [(1.0, 1.5), (1.5, 2.2)]
