"""LEADERBOARD.md: what the boards say, for GitHub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from .boards import BOLD, Board, boards, by_category, by_part, columns_of, further, table
from .bracket import brackets
from .cells import Result
from .compare import not_worse
from .overview import Overview, overviews, versions_of

CELLS_WITH_EVERY_CHECK = 60
"""Of more, only failed checks are in LEADERBOARD.md, which GitHub cuts at 512 KiB; the page has every sentence."""
INTERVAL = r" (\[-?[\d.a-z]+, -?[\d.a-z]+\])"

HOW_TO_READ = """\
Every number is computed from the rows in this folder; `report/index.html` has them all, with plots. AUROC: the chance
that an anomalous image scores above a normal one; brackets hold the 95 % interval of a bootstrap over images,
stratified by class. Bold: the best of those that are ranked, and what is not significantly worse on the same images
(paired bootstrap, p > 0.05). *robust*: after the attack. *normal only*, *anomalous only*: only these images were moved.
*rounded*: the attacked images in 8 bits. Of detectors that draw noise, robust is the mean over draws, *worst draw* the
worst of them, *known noise* an adversary who knows the draw. AP: average precision. FPR95: share of normal images
flagged when 95 % of the anomalous ones are. acc.: accuracy at the threshold that 5 % of held-out normal training images
exceed. Passes per image: forward + backward. Peak: memory during the attack. M weights: millions of numbers that the
detector holds. A row without a rank: the reason is below the table. An attack bounds robustness from above: a better
one can only lower it.
"""

HOW_TO_READ_BRACKETS = """\
The true worst case of a smoothed detector lies between what is certified and what an attack reached at the same radius.
`bench run --detector smoothed+D --param sigma=S --attack apgd-l2 --eps R` adds the attack. A certified value above the
attacked one is impossible: one of both is wrong, and both lose their rank.
"""

FOOTNOTES = {
    "certified AUROC": "No attack of the ball can bring the smoothed detector below *certified* AUROC: the share of "
    "pairs whose lower bound of the anomalous score is above the upper bound of the normal one. The bounds of all "
    "images of a category hold together with a chance of 1 - alpha, over the noise that was drawn. *clean*: the "
    "smoothed score itself. *certified acc.*, *normal right*, *anomalous right*: decisions that stand in the ball. "
    "*certified radius*: how far the median image may be moved. The ball is l2 on pixels in [0, 1]: it says nothing "
    "about linf.",
    "normal right": "This attack leaves an image alone as soon as the decision is wrong, so its score is not the worst "
    "one, and nothing ranks by it; the order is that of robust acc. *normal right*, *anomalous right*: "
    "share of that class still on its side of the threshold.",
    "AutoAttack acc.": "*AutoAttack acc.*: share of images that AutoAttack did not break, which is its own figure.",
    "median radius, normal": "*median radius*: how far the median image of the class must move, in the norm and in "
    "pixels in [0, 1], to be judged wrongly at the threshold, as far as the attack found; 0 where it is from the "
    "start, inf where nothing was found.",
}


def markdown(results: Sequence[Result], notes: Sequence[str], plots: Sequence[Path] = (), sort: str = "") -> str:
    """LEADERBOARD.md; `plots` lie beside it. sort: see `boards`."""
    parts = ["# Leaderboard", "", HOW_TO_READ]
    for overview in overviews(results, sort):
        parts += _overview(overview)
    parts += _brackets(results)
    for board in boards(results, sort):
        parts += _board(board, every_check=len(results) <= CELLS_WITH_EVERY_CHECK)
    parts += [f"![{plot.stem}]({plot.name})\n" for plot in plots]
    parts += [f"- {note}" for note in notes]
    return "\n".join(parts).rstrip() + "\n"


def _overview(overview: Overview) -> list[str]:
    lines = [f"## {overview.title}", "", _table(_small(_bold(overview.table, overview.ranked))), ""]
    lines += [f"- {note}" for note in overview.notes] + [""] * bool(overview.notes)
    if len(overview.reported):
        lines += [
            "<details><summary>Reported: published figures on this data. Other attacks, samples and sizes: beside "
            "ours, never to be mixed with them</summary>",
            "",
            _table(overview.reported),
            "",
            "</details>",
            "",
        ]
    return lines


def _board(board: Board, every_check: bool) -> list[str]:
    """The section of one attack and budget."""
    count = len(board.categories)
    scope = f"Mean over {count} categories" if count > 1 else f"Category {board.categories[0]}"
    ranked = {name: cells for name, cells in board.entries if name not in board.unranked}
    bold = {title: (metric, ranked) for title, metric in columns_of(board).items() if title in BOLD}
    lines = [f"### {board.title}", "", f"{scope}.", "", _table(_small(_bold(table(board), bold))), ""]
    if count > 1:
        what = board.ranked_by.rpartition("_")[2]
        what = f"{what.upper() if what == 'auroc' else what.capitalize()} per category, clean → {board.word}"
        lines += [f"<details><summary>{what}</summary>", "", _table(by_category(board)), "", "</details>", ""]
    titles = {"certified AUROC"} if board.word == "certified" else further(board)
    footnotes = [why for title, why in FOOTNOTES.items() if title in titles]
    lines += [f"- {why}" for why in footnotes] + [""] * bool(footnotes)
    if len(parts := by_part(board)):
        lines += ["Robust AUROC by part of the attack:", "", _table(parts), ""]
    warnings = sorted({f"{name}: {w}" for name, cells in board.entries for r in cells for w in r.record["warnings"]})
    lines += [f"- {warning}" for warning in warnings] + [""] * bool(warnings)
    lines += [f"- {sentence}" for sentence in versions_of(board.cells)]
    lines += [f"- not ranked: {name}: {'; '.join(why)}" for name, why in board.unranked.items()]
    return [*lines, "", *_checks(board, every_check)]


def _bold(frame: pd.DataFrame, columns: Mapping[str, tuple[str, Mapping[str, Sequence[Result]]]]) -> pd.DataFrame:
    """Of each column (metric, cells of the ranked detectors): the best, and what is not significantly worse."""
    frame = frame.copy()
    for title, (metric, ranked) in columns.items():
        best = not_worse(ranked, metric) if len(frame) > 1 else set()
        frame[title] = [
            re.sub(r"^([\d.]+)", r"**\1**", cell) if _name(detector) in best else cell
            for detector, cell in zip(frame["detector"], frame[title], strict=True)
        ]
    return frame


def _name(cell: str) -> str:
    """Of a detector, without the count of its categories."""
    return re.sub(r" \[\d+ of \d+\]$", "", cell)


def _small(frame: pd.DataFrame) -> pd.DataFrame:
    """Intervals in small type, below their value."""
    frame = frame.copy()
    for column in frame.columns.drop("detector"):
        frame[column] = frame[column].str.replace(INTERVAL, r"<br><sub>\1</sub>", regex=True)
    return frame


def _checks(board: Board, every: bool) -> list[str]:
    """How the checks before and after the attacks went: the sentences of those that failed, or every one, with the
    categories."""
    lines = ["<details><summary>Checks of these cells, before and after the attack (docs/checks.md)</summary>", ""]
    for name, results in board.entries:
        said: dict[tuple[bool, str], list[str]] = {}
        for r in results:
            for check in r.checks:
                if every or not check["passed"]:
                    said.setdefault((check["passed"], f"{check['name']}: {check['sentence']}"), []).append(r.category)
        count, broken = (
            sum(len(r.checks) for r in results),
            sum(len(where) for (ok, _), where in said.items() if not ok),
        )
        lines.append(f"- **{name}**: " + (f"{broken} of {count} failed" if broken else f"all {count} passed"))
        for (passed, sentence), where in said.items():
            scope = "" if len(where) == len(results) else f" ({', '.join(where)})"
            lines.append(f"  - {'pass' if passed else '**FAIL**'} {sentence}{scope}")
    return [*lines, "", "</details>", ""]


def _brackets(results: Sequence[Result]) -> list[str]:
    """The section that sets certificates beside attacks; empty without certificates."""
    lines = [bracket.line for bracket in brackets(results)]
    if not lines:
        return []
    frame = pd.DataFrame(lines).drop_duplicates()
    return ["## Certified and attacked", "", HOW_TO_READ_BRACKETS, _table(_small(frame)), ""]


def _table(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.values.tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
