"""The page: what it holds, and how it behaves in a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import asked_for
from made_up import unpacked, write_cells

from bench.analysis.overview import overviews
from bench.cells.filters import Filters
from bench.cells.reader import read_results
from bench.cells.result import Result
from bench.cli.attacks import RunRequest
from bench.report.commands import command_of
from bench.report.figures.distributions import Distributions
from bench.report.figures.heat import Heat
from bench.report.figures.robustness import Robustness
from bench.report.figures.tradeoff import Tradeoff
from bench.report.page import page
from bench.report.page_table import COLUMNS
from bench.report.write import write_report
from bench.stats.intervals import Estimate

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors on ten categories; one cell has failed a check."""
    folder = tmp_path_factory.mktemp("results")
    assert write_cells(folder, 200, 40) == 200
    path = folder / "made_up/category_9/detector_01/apgd-linf-8_255/run.json"
    record = json.loads(path.read_text())
    record["checks"][0]["passed"] = False
    path.write_text(json.dumps(record))
    return folder


def test_the_table_holds_what_the_rows_say(made_up: Path) -> None:
    results = read_results(made_up, Filters(["category=category_0", "attack=apgd"])).results
    data = unpacked(page(read_results(made_up, Filters(["category=category_0", "attack=apgd"]))))
    titles = [column.title for column in COLUMNS]
    assert len(data["rows"]) == len(results) == 10
    for row in data["rows"]:
        line = dict(zip(titles, row, strict=True))
        (r,) = [r for r in results if (r.detector, f"{r.spec.norm} {r.spec.eps}") == (row[0][0], row[2])]
        expected: Estimate = r.metrics["robust_auroc"].estimate()
        assert line["worst AUROC"] == pytest.approx(list(expected), abs=6e-5)
        assert line["clean AUROC"] == pytest.approx(list(r.metrics["clean_auroc"].estimate()), abs=6e-5)
        assert line["passes"] == 220 and line["M weights"] == 0.6 and line["checks"] == [0, 12, 0]
        assert line["level"] == "means, categories"


def test_means_stand_beside_their_categories(made_up: Path) -> None:
    data = unpacked(page(read_results(made_up, Filters(["eps=2/255", "attack=apgd"]))))
    levels = [row[-1] for row in data["rows"]]
    assert levels.count("means") == 2 and levels.count("categories") == 20
    assert {row[1] for row in data["rows"] if row[-1] == "means"} == {"mean of 10"}
    assert len(data["cells"]) == len(data["figures"]["cell"]) == 20 and len(data["detectors"]) == 2
    assert "bench run --detector detector_00" in data["cells"][0]


def test_the_same_results_give_the_same_page(made_up: Path) -> None:
    some = Filters(["category=category_1"])
    assert page(read_results(made_up, some)) == page(read_results(made_up, some))


def test_what_people_wrote_is_text_not_markup(made_up: Path) -> None:
    found = read_results(made_up, Filters(["category=category_2", "eps=2/255"]))
    for r in found.results:
        r.record.warnings.append("<img src=x onerror=alert(1)>")
        r.checks[0].sentence = "</script><b>bold"
    text = page(found)
    assert "<img src=x" not in "".join(unpacked(text)["cells"]) and "&lt;img" in "".join(unpacked(text)["cells"])
    assert "&lt;/script&gt;&lt;b&gt;bold" in "".join(unpacked(text)["cells"])


@pytest.mark.parametrize("text", ["detector=detector_01", "attack=square,eps=4/255"])
def test_the_command_of_a_cell_asks_for_that_cell(made_up: Path, text: str) -> None:
    for r in read_results(made_up, Filters([text])).results[:3]:
        asked = asked_for(command_of(r), RunRequest)
        assert asked.detectors == (r.spec.detector,) and asked.eps == (r.spec.eps,)
        assert asked.attacks == (f"{r.spec.attack}-{r.spec.norm}",)
        assert (asked.dataset, asked.categories, asked.image_size) == (r.spec.dataset, (r.category,), 64)


def test_figures_hold_the_numbers_of_the_rows(made_up: Path) -> None:
    found = read_results(made_up, Filters(["attack=apgd"]))
    plots = unpacked(page(found))["plots"]
    curve = next(p for p in plots if p["layout"]["yaxis"]["title"]["text"] == "robust AUROC" and len(p["data"]) == 6)
    own = [r for r in found.results if r.detector == "detector_00"]
    trace = next(t for t in curve["data"] if t["name"] == "detector_00")
    for eps, shown in zip(trace["x"][1:], trace["y"][1:], strict=True):
        cells = [r.metrics["robust_auroc"].value for r in own if float(r.eps) == eps]
        assert shown == pytest.approx(np.mean(cells), abs=6e-5)


def test_every_interactive_figure_holds_its_data(made_up: Path) -> None:
    found = read_results(made_up, Filters(["attack=apgd,eps=2/255"]))
    shown = {plot["caption"]: plot for plot in unpacked(page(found))["plots"]}
    (heat,), (tradeoff,) = Heat.of(found.results), Tradeoff.of(found.results)
    squares = shown["Robust AUROC by detector and category."]["data"][0]
    assert np.array(squares["z"]) == pytest.approx(heat.values, abs=6e-5)
    assert squares["y"] == list(heat.names)
    (spec,) = (plot for caption, plot in shown.items() if caption.startswith("Clean against robust"))
    for trace, point in zip(spec["data"], tradeoff.points, strict=True):
        assert (trace["x"][0], trace["y"][0]) == pytest.approx((point.clean.value, point.robust.value), abs=6e-5)
        above = trace["error_y"]["array"][0]
        assert point.robust.value + above == pytest.approx(point.robust.high, abs=2e-4)
    for r in found.results[:3]:
        spec = Distributions(r).spec()
        assert [sum(trace["y"]) for trace in spec["data"]] == pytest.approx([1] * 4, abs=4e-3)
        assert spec["layout"]["shapes"][0]["x0"] == pytest.approx(r.record.threshold.value, rel=1e-4)


def test_lines_are_told_apart_beyond_the_colours(made_up: Path) -> None:
    (r,) = read_results(made_up, Filters(["attack=apgd,eps=2/255,category=category_0,detector=detector_00"])).results
    specs = [r.spec.model_copy(update={"detector": f"d{i}"}) for i in range(21)]
    named = [Result(r.folder, r.record.model_copy(update={"spec": spec}), r.table) for spec in specs]
    (curves,) = Robustness.of(named)
    lines = [t for t in curves.spec()["data"] if t["mode"] == "lines+markers"]
    assert len({(t["line"]["color"], t["marker"]["symbol"]) for t in lines}) == len(lines) == 21


def test_the_page_shows_each_data_set_as_one_table(made_up: Path) -> None:
    found = read_results(made_up)
    text = page(found)
    (overview,) = overviews(found.results)
    for line in overview.lines:
        for value in line.values.values():
            assert value.text in text and value.interval in text
    assert "not ranked: detector_01: gradient check failed" in text


def test_a_detector_has_a_curve_of_its_own(made_up: Path) -> None:
    found = read_results(made_up)
    data = unpacked(page(found))
    names = list(dict.fromkeys(r.detector for r in found.results))
    for name, text, (figure,) in zip(names, data["detectors"], data["figures"]["detector"], strict=True):
        assert name in text and text.count("data-figure") == 1
        assert [trace["name"] for trace in figure["data"]] == ["made_up, 64 px: apgd", "made_up, 64 px: square"]
        first = figure["data"][0]
        own = [r for r in found.results if (r.detector, r.spec.attack, r.spec.eps) == (name, "apgd", "8/255")]
        assert first["y"][-1] == pytest.approx(np.mean([r.metrics["robust_auroc"].value for r in own]), abs=6e-5)


@pytest.mark.slow
def test_two_thousand_cells(tmp_path: Path) -> None:
    """Their number and the size of the page; benchmarks/report.py has the seconds and the memory."""
    assert write_cells(tmp_path, 2000, 200) == 2000
    written = write_report(tmp_path, formats=("md", "html", "csv")).written
    (index,) = [path for path in written if path.name == "index.html"]
    assert index.stat().st_size < 5 * 2**20
    assert len(unpacked(index.read_text(encoding="utf-8"))["cells"]) == 2000
    assert (tmp_path / "LEADERBOARD.md").stat().st_size < 512 * 2**10  # more is not shown on GitHub


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install .[dev]")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def index(made_up: Path) -> Path:
    (path,) = write_report(made_up, formats=("html",)).written
    return path


class Opened:
    """A page with what it complained about and asked for."""

    def __init__(self, browser: Any, path: Path, width: int, dark: bool = False):
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)
        self.page.wait_for_selector("#cells tbody tr")

    def go(self, route: str) -> None:
        """To another part of the page, until it is drawn."""
        self.page.evaluate("route => { location.hash = route }", route)
        self.page.wait_for_timeout(300)


def sorted_as(head: Any, order: str) -> None:
    from playwright.sync_api import expect

    expect(head).to_have_attribute("aria-sort", order)


def test_in_a_browser_the_trade_off_stands_before_its_table(browser: Any, index: Path) -> None:
    opened = Opened(browser, index, 1280)
    figure, table = (opened.page.locator(f"section[data-page=''] {what}").first for what in ("figure.front", "table"))
    opened.page.wait_for_selector("figure.front .plot svg")
    assert figure.bounding_box()["y"] < table.bounding_box()["y"] and not opened.complaints


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_table_sorts_and_filters_and_opens_a_cell(browser: Any, index: Path, width: int) -> None:
    opened = Opened(browser, index, width)
    shown = opened.page
    assert shown.locator("#cells tbody tr").count() == 20  # means of two detectors, two attacks, five budgets
    head = shown.locator("#cells").get_by_role("columnheader", name="worst AUROC")
    for order in ("descending", "ascending"):
        head.get_by_role("button").click()
        sorted_as(head, order)
    column = "#cells tbody tr:not(.child) td:nth-child({})"
    at = [column.title for column in COLUMNS].index("worst AUROC") + 1
    values = [float(text.split()[0]) for text in shown.locator(column.format(at)).all_text_contents()]
    assert values == sorted(values) and len(set(values)) > 1
    shown.locator("select[data-column='threat model']").select_option("linf 2/255")
    assert shown.locator("#cells tbody tr").count() == 4
    shown.locator("select[data-column=category]").select_option("category_3")
    shown.locator("select[data-column=attack]").select_option("apgd")
    assert shown.locator("#cells tbody tr").count() == 2
    shown.locator("#cells tbody a").first.click()
    shown.wait_for_selector("#view:not([hidden]) h1")
    assert "category_3" in shown.locator("#view h1").inner_text()
    assert "bench run --detector" in shown.locator("#view pre").inner_text()
    assert shown.locator("#view .plot svg").count()
    scrolls = shown.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not scrolls
    assert opened.complaints == [] and opened.requests == [opened.url]


def test_in_a_browser_the_keyboard_does_what_the_mouse_does(browser: Any, index: Path) -> None:
    opened = Opened(browser, index, 1280)
    shown = opened.page
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.className") == "skip"
    shown.keyboard.press("Enter")
    shown.wait_for_function("document.activeElement.id === 'main'")
    assert shown.locator("h1:visible").inner_text() == "Leaderboard"
    head = shown.locator("#cells").get_by_role("columnheader", name="clean AUROC")
    head.get_by_role("button").focus()
    shown.keyboard.press("Enter")
    sorted_as(head, "descending")
    shown.locator("#cells tbody a").first.focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#view:not([hidden]) h1")
    assert shown.evaluate("document.activeElement.tagName") == "H1"  # where reading goes on


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
@pytest.mark.parametrize("route", ["#/", "#/cell/199", "#/detector/1", "#/plots", "#/reported", "#/help"])
def test_axe_finds_nothing_serious(browser: Any, index: Path, route: str, width: int, dark: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    opened = Opened(browser, index, width, dark)
    opened.go(route)
    found = axe.Axe().run(opened.page).response["violations"]
    serious = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
    assert opened.complaints == []
