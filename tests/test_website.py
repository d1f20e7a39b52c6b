"""The website: it is built without a warning, its links lead somewhere, and in a browser it asks nobody else."""

from __future__ import annotations

import functools
import http.server
import importlib
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from made_up import many, write_cells

import bench
from bench.cells.reader import Results
from bench.cli import COMMANDS
from bench.plugins import registry

commands = pytest.importorskip("mkdocs.commands.build", reason="mkdocs is not installed: pip install .[docs]")
ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OF_THE_THEME = {"404.html"}
"""Its links begin at the root of the server."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors on two categories, attacked in one ball."""
    folder = tmp_path_factory.mktemp("published")
    write_cells(folder, 200, 40)
    for cell in [path.parent for path in folder.rglob("run.json")]:
        if cell.name != "apgd-linf-2_255" or cell.parts[-3] not in ("category_0", "category_1"):
            shutil.rmtree(cell)
    assert len(list(folder.rglob("run.json"))) == 4
    return folder


@pytest.fixture(scope="module")
def site(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `mkdocs build --strict` does: a warning is an error."""
    from mkdocs.config import load_config

    out = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out), strict=True)
    config.extra["published"] = str(published)
    config.plugins.on_startup(command="build", dirty=False)
    commands.build(config)
    return out


@pytest.fixture
def website(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("website")


class Page(HTMLParser):
    """What it can be linked to, and what it links to."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links = set[str](), set[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if name in ("href", "src") and value:
                self.links.add(value)


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name not in OF_THE_THEME}
    broken, followed = [], 0
    for path, page in pages.items():
        if path.parent.name == "report":  # its own: the routes of one page, tested with it
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            followed += 1
            if not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                broken.append(f"{path.name}: {link}")
    assert broken == [] and followed > 1000


def test_every_command_detector_attack_and_name_has_its_place(site: Path) -> None:
    def anchors(name: str) -> set[str]:
        return Page(site / name).anchors

    assert {f"bench-{command}" for command in COMMANDS} <= anchors("commands.html")
    for kind, page in (("detectors", "detectors.html"), ("attacks", "attacks.html"), ("datasets", "data_sets.html")):
        names = [row.name for row in registry.listing(kind) if row.where == registry.BUILT_IN]  # type: ignore[arg-type]
        assert {name.replace(":", "") for name in names} <= anchors(page), kind
    assert {f"bench.{name}" for name in bench.__all__} <= anchors("python.html")
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").is_file()


def test_the_front_page_shows_the_figure_then_the_table_then_the_report(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    places = [
        text.index(part) for part in ('src="leaderboard/tradeoff', "detector_00</td>", "leaderboard/report/index.html")
    ]
    assert places == sorted(places)
    assert (site / "leaderboard/leaderboard.csv").read_text(encoding="utf-8").count("\n") == 5
    assert "<!-- leaderboard -->" not in text


def test_without_rows_the_front_page_says_so(website: ModuleType) -> None:
    nowhere = ROOT / "results/nowhere"
    assert website.written_report(nowhere) is None
    assert website.front_page(nowhere, None) == "No rows are published in this checkout: `results/nowhere` holds none."


def test_what_is_only_submitted_is_said_and_has_no_table(website: ModuleType, tmp_path: Path) -> None:
    found = Results([], [], [], many("ab", 2, {"a": 2.0, "b": 1.0}))
    text = website.front_page(tmp_path, website.Report(found, []))
    assert "4 cells are submitted and not reproduced" in text and "|" not in text


def test_rows_that_cannot_be_read_end_the_build(website: ModuleType, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "rows")
    first = next((tmp_path / "rows").rglob("samples.csv"))
    first.write_text("id,label\n", encoding="utf-8")
    with pytest.raises(website.PluginError, match=r"is not to be published: .*samples\.csv"):
        website.written_report(tmp_path / "rows")
    website.on_post_build(config=None)


def test_links_of_files_beside_the_pages(website: ModuleType) -> None:
    def relinked(text: str, source: str = "docs/standard.md", repo: str = "") -> str:
        return str(website.relinked(text, source, repo))

    assert relinked("[a](docs/standard.md#x)", "README.md") == "[a](standard.md#x)"
    assert relinked("[a](../README.md#use)") == "[a](readme_page.md#use)"
    assert relinked("[a](../docs/speed.md)", "benchmarks/README.md") == "[a](speed.md)"
    assert relinked("[the\nlicence](../LICENSE)", repo="https://example.org/r/") == (
        "[the\nlicence](https://example.org/r/blob/main/LICENSE)"
    )
    assert relinked("[the licence](../LICENSE)") == "the licence"
    same = "`[a](../README.md)` [b](#here) [c](https://example.org)\n```\n[d](../README.md)\n```\n"
    assert relinked(same) == same
    with pytest.raises(website.PluginError, match=r"docs/standard\.md links to \.\./nowhere\.md"):
        relinked("[a](../nowhere.md)")


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install .[dev]")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_pages_fit_and_ask_nobody_else(browser: Any, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    elsewhere, complaints = [], []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else elsewhere.append(r.url))
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for name in ("index.html", "commands.html", "python.html", "results.html", "readme_page.html"):
        page.goto(address + name)
        assert page.locator("h1").count() == 1
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"), name
    page.goto(address + "index.html")
    assert page.locator("img[src*=tradeoff]").first.evaluate("image => image.naturalWidth") > 0
    page.get_by_role("link", name="The whole report").click()
    page.wait_for_selector("#cells tbody tr")
    assert elsewhere == [] and complaints == []


def test_in_a_browser_a_search_finds_a_page(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    elsewhere = []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else elsewhere.append(r.url))
    page.goto(address + "index.html")
    box = page.get_by_role("textbox", name="Search")
    box.click()  # the index is fetched as soon as somebody is about to type
    box.press_sequentially("nearest-patch", delay=50)
    page.wait_for_selector(".md-search-result__item a")
    found = page.locator(".md-search-result__item a").evaluate_all("links => links.map(link => link.href)")
    assert any("/detectors.html" in link for link in found) and elsewhere == []


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(browser: Any, address: str, dark: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark" if dark else "light")
    for name in ("index.html", "commands.html", "your_attack.html"):
        page.goto(address + name)
        found = axe.Axe().run(page).response["violations"]
        serious = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]
        assert serious == [], name
