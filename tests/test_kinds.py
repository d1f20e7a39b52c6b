"""A kind of figure is one file: in a report, on the page and in a notebook; which of them a large report writes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from conftest import Linear, small_data
from made_up import moved, random_scores, shifted, unpacked, write_cells
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

import bench
from bench import UserError, evaluate
from bench.cells.reader import Results
from bench.cells.result import Result
from bench.report import figures as kinds_of_figures
from bench.report.figures import Figure, kinds, write_figures
from bench.report.page import page


def axes() -> Axes:
    return Canvas().add_subplot()


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
        moved(name, category, eps, after_1=scores, after_3=scores)
        for name in "ab" for category in ("one", "two") for eps in ("1/255", "2/255")
    ]  # fmt: skip
    cells += [moved("a", category, attack="ddn", norm="l2", eps="1", radius=sizes) for category in ("one", "two")]
    for value in (0.1, 0.2):
        purification = {"parameter": "p.level", "value": value, "inner": "a"}
        cells.append(
            moved("p+a", detector_parameters={"p.level": value}, attack="other", more={"purification": purification})
        )
    for eps in ("0.1", "0.2"):
        noise = {"parameters": {"smoothed.sigma": 0.12}}
        cells.append(
            moved("smoothed+a", eps=eps, norm="l2", kind="certificate", attack="certificate", more=noise,
                   low_0=scores, high_0=scores)
        )  # fmt: skip
    settings = {"kinds": ["gamma"], "severities": [1, 2]}
    cells += [shifted(name, settings, gamma_1=scores, gamma_2=scores) for name in "ab"]
    return cells


@pytest.mark.parametrize("name", kinds())
def test_every_kind_has_both_forms(name: str, tmp_path: Path) -> None:
    found = kinds()[name].made_of(every_kind())
    assert found and len({figure.title for figure in found}) == len(found)
    assert not any("\n" in figure.title for figure in found)
    path = found[0].write_below(tmp_path)
    assert path.suffix == ".png" and path.stat().st_size > 1000
    given = axes()
    found[0].draw(given)
    assert given.get_title() == found[0].heading
    spec = found[0].spec()
    assert set(spec) == {"data", "layout", "caption"} and spec["data"] and spec["caption"]
    assert {"xaxis", "yaxis"} <= set(spec["layout"])
    json.dumps(spec, allow_nan=False)


def test_a_report_writes_each_kind_and_no_distributions(tmp_path: Path) -> None:
    cells = [moved(name, category, after_1=random_scores(1)) for name in "ab" for category in ("one", "two")]
    written, notes = write_figures(cells, tmp_path)
    assert [p.name.partition("-")[0] for p in written] == ["robustness", "tradeoff", "heat", "progress"]
    assert notes == [] and all(p.stat().st_size > 1000 for p in written)


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

    cells = [moved(name, category, eps) for name in "ab" for category in ("one", "two") for eps in ("1/255", "2/255")]
    for draw in (bench.plot.tradeoff, bench.plot.heat):
        found = draw(cells, "2/255")
        assert found.get_title().endswith("linf 2/255")
        plt.close(found.figure)  # type: ignore[arg-type]


def test_titles_are_chosen_or_refused_in_one_line() -> None:
    cells = [moved(name, eps=eps) for name in "ab" for eps in ("1/255", "2/255")]
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
