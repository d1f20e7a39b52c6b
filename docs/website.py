"""What the website has beside the pages of this folder, added while mkdocs builds it (a hook, named in mkdocs.yml).

README and its kind, the reference from the code (reference.py), and on the front page what `bench report` makes of the
published rows: the folder `extra.published`, by default results/published. Where there are none, the page says so.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import reference
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from bench.analysis.overview import Overview, overviews
from bench.analysis.table import Line
from bench.cells.bracket import broken_brackets
from bench.cells.result import Result
from bench.report.text import markdown_text
from bench.report.write import Report, write_report

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "README.md": "readme_page.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "results/README.md": "results_folder.md",
}
"""File of the checkout -> page of the website."""
FRONT, PLACE = "index.md", "<!-- leaderboard -->"
BOARD = "leaderboard"
"""The folder of the report below the website."""
NOTHING_PUBLISHED = "No rows are published in this checkout: `{folder}` holds none."
SHOWN = ("clean_auroc", "certified_auroc", "robust_auroc")
"""Metrics of the table on the front page; the report has all of them."""
LINK = re.compile(r"(```.*?```|`[^`]*`)|(?<!!)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)", re.DOTALL)
_kept: list[tempfile.TemporaryDirectory[str]] = []
"""The report, until mkdocs has copied it."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The pages that no file of docs/ holds, and the report."""
    for source, page in BESIDE.items():
        text = relinked((ROOT / source).read_text(encoding="utf-8"), source, config.repo_url or "")
        files.append(File.generated(config, page, content=text))
    for page, text in reference.pages().items():
        files.append(File.generated(config, page, content=text))
    published = ROOT / config.extra["published"]
    report = written_report(published)
    front = files.get_file_from_path(FRONT)
    assert front is not None
    text = front.content_string
    files.remove(front)
    files.append(File.generated(config, FRONT, content=text.replace(PLACE, front_page(published, report))))
    for path in report.written if report else ():
        name = path.relative_to(_kept[-1].name).as_posix()
        if not name.endswith(".md"):  # the front page is made of it
            files.append(File.generated(config, f"{BOARD}/{name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links from docs/ to files beside it lead to their pages."""
    source = f"docs/{page.file.src_uri}"
    return relinked(markdown, source, config.repo_url or "") if (ROOT / source).is_file() else markdown


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """The theme's search has no name for those who hear the page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_post_build(*, config: MkDocsConfig) -> None:
    while _kept:
        _kept.pop().cleanup()


def relinked(text: str, source: str, repo_url: str) -> str:
    """A page as the website has it, where its links lead to the pages that the website has of files.

    source: the file it comes from, below the checkout. Files without a page are linked in the repository, if it is
    known, and else only named.
    """

    def link(found: re.Match[str]) -> str:
        code, words, target, anchor = found.groups()
        if code or not target or ":" in target:
            return found[0]
        path = os.path.normpath(PurePosixPath(source).parent / target).replace(os.sep, "/")
        if path in BESIDE or path.startswith("docs/"):
            return f"[{words}]({BESIDE.get(path, path.removeprefix('docs/'))}{anchor or ''})"
        if not (ROOT / path).exists():
            raise PluginError(f"{source} links to {target}, which is not there")
        return f"[{words}]({repo_url.rstrip('/')}/blob/main/{path})" if repo_url else words

    return LINK.sub(link, text)


def written_report(published: Path) -> Report | None:
    """What `bench report` writes of these rows; None where there are none. It is deleted after the build."""
    if not any(published.rglob("run.json")) and not any(published.rglob("*.zip")):
        return None
    _kept.append(tempfile.TemporaryDirectory(prefix="bench-website-"))
    report = write_report(published, Path(_kept[-1].name))
    wrong = [*report.found.damaged, *broken_brackets(report.found.results)]
    if wrong:
        raise PluginError(f"{published} is not to be published: {'; '.join(wrong)}")
    return report


def front_page(published: Path, report: Report | None) -> str:
    """The figure of robust over clean AUROC, then a table of each data set, then the way to the report."""
    if report is None:
        folder = published.relative_to(ROOT) if published.is_relative_to(ROOT) else published
        return NOTHING_PUBLISHED.format(folder=folder)
    plots = [path.name for path in report.written if path.name.startswith("tradeoff")]
    parts = [*(f"![Robust over clean AUROC, a point for each detector]({BOARD}/{name})" for name in plots), ""]
    for overview in overviews(report.found.results):
        parts += [f"## {markdown_text(overview.title)}\n", _table(overview, report.found.results), ""]
    if apart := len(report.found.submitted):
        parts.append(f"Beside these, {apart} cells are submitted and not reproduced; they have no rank.\n")
    parts += [
        f"[The whole report]({BOARD}/report/index.html) has every threat model, attack, category, check, figure and "
        f"command; [leaderboard.csv]({BOARD}/leaderboard.csv) a row for each cell.",
    ]
    return "\n".join(parts)


def _table(overview: Overview, results: Sequence[Result]) -> str:
    titles = [title for title, column in overview.columns.items() if column.metric in SHOWN]
    rows = [
        ["rank", "detector", *titles],
        ["---"] * (2 + len(titles)),
        *(_row(line, titles, results) for line in overview.lines),
    ]
    notes = [f"- <sup>{letter}</sup> {markdown_text(text)}" for letter, text in overview.footnotes.items()]
    notes += [f"- {markdown_text(note)}" for note in overview.notes]
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + ["", *notes])


def _row(line: Line, titles: Sequence[str], results: Sequence[Result]) -> list[str]:
    values = [line.values[title] for title in titles]
    numbers = [
        (f"**{value.text}**" if value.best else value.text)
        + (f" <sup>{value.mark}</sup>" if value.mark else "")
        + (f"<br><small>{value.below}</small>" if value.below else "")
        for value in values
    ]
    return [line.place, markdown_text(_named(line.detector, results)), *numbers]


def _named(detector: str, results: Sequence[Result]) -> str:
    """A label of the boards, with the backbone where they have the hash of its file."""
    given = [r.record.detector.parameters.items() for r in results if r.detector == detector]
    found = {str(value) for items in given for name, value in items if name.rpartition(".")[2] == "backbone"}
    return re.sub(r"weights=sha256:[0-9a-f]+", "".join(found), detector) if len(found) == 1 else detector
