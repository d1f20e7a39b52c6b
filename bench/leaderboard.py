"""LEADERBOARD.md: what the boards say, for GitHub."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .boards import BOLD, COSTS_SHOWN, NOT_RANKED, Board, boards, by_category, by_part, columns_of, further, table
from .bracket import brackets
from .cells import Result
from .compare import not_worse
from .overview import Overview, Value, differing, overviews

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
    parts += [f"- {_plain(note)}" for note in notes]
    return "\n".join(parts).rstrip() + "\n"


def _overview(overview: Overview) -> list[str]:
    frame = pd.DataFrame(
        [
            {"rank": line.rank, "detector": _plain(line.detector)}
            | {title: _number(value) for title, value in line.values.items()}
            | {title: line.cost.get(title, NOT_RANKED) for title in COSTS_SHOWN}
            for line in overview.lines
        ]
    )
    lines = [f"## {_plain(overview.title)}", "", _table(frame), ""]
    notes = [f"<sup>{letter}</sup> {_plain(text)}" for letter, text in overview.footnotes.items()]
    notes += [_plain(note) for note in overview.notes]
    lines += [f"- {note}" for note in notes] + [""] * bool(notes)
    if len(overview.reported):
        lines += [
            "<details><summary>Reported: published figures on this data. Other attacks, samples and sizes: beside "
            "ours, never to be mixed with them</summary>",
            "",
            _table(overview.reported.map(_plain)),
            "",
            "</details>",
            "",
        ]
    return lines


def _number(value: Value) -> str:
    text = f"**{value.text}**" if value.best else value.text
    text += f"<br><sub>{value.interval}</sub>" if value.interval else ""
    return text + (f" <sup>{value.mark}</sup>" if value.mark else "")


def _plain(text: object) -> str:
    """What somebody else wrote, so that it is text on one line and nothing else."""
    return html.escape(" ".join(str(text).split()), quote=False)


def _board(board: Board, every_check: bool) -> list[str]:
    """The section of one attack and budget."""
    count = len(board.categories)
    scope = f"Mean over {count} categories" if count > 1 else f"Category {board.categories[0]}"
    lines = [f"### {_plain(board.title)}", "", f"{_plain(scope)}.", "", _table(_small(_bold(board))), ""]
    if count > 1:
        what = board.ranked_by.rpartition("_")[2]
        what = f"{what.upper() if what == 'auroc' else what.capitalize()} per category, clean → {board.word}"
        lines += [
            f"<details><summary>{what}</summary>",
            "",
            _table(by_category(board).map(_plain)),
            "",
            "</details>",
            "",
        ]
    titles = {"certified AUROC"} if board.word == "certified" else further(board)
    footnotes = [why for title, why in FOOTNOTES.items() if title in titles]
    lines += [f"- {why}" for why in footnotes] + [""] * bool(footnotes)
    if len(parts := by_part(board)):
        lines += ["Robust AUROC by part of the attack:", "", _table(parts.map(_plain)), ""]
    warnings = sorted({f"{name}: {w}" for name, cells in board.entries for r in cells for w in r.record["warnings"]})
    lines += [f"- {_plain(warning)}" for warning in warnings] + [""] * bool(warnings)
    lines += [f"- {_plain(sentence)}" for sentence in differing(board.cells)]
    lines += [f"- not ranked: {_plain(name)}: {_plain('; '.join(why))}" for name, why in board.unranked.items()]
    return [*lines, "", *_checks(board, every_check)]


def _bold(board: Board) -> pd.DataFrame:
    """The table, in bold the best of some columns and what is not significantly worse, of those that are ranked."""
    frame = table(board).map(_plain)
    ranked = {name: cells for name, cells in board.entries if name in board.ranks}
    for title, metric in columns_of(board).items():
        best = not_worse(ranked, metric) if len(frame) > 1 and title in BOLD else set()
        frame[title] = [
            re.sub(r"^([\d.]+)", r"**\1**", cell) if name in best else cell
            for (name, _), cell in zip(board.entries, frame[title], strict=True)
        ]
    return frame


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
        lines.append(f"- **{_plain(name)}**: " + (f"{broken} of {count} failed" if broken else f"all {count} passed"))
        for (passed, sentence), where in said.items():
            scope = "" if len(where) == len(results) else f" ({', '.join(where)})"
            lines.append(f"  - {'pass' if passed else '**FAIL**'} {_plain(sentence + scope)}")
    return [*lines, "", "</details>", ""]


def _brackets(results: Sequence[Result]) -> list[str]:
    """The section that sets certificates beside attacks; empty without certificates."""
    lines = [bracket.line for bracket in brackets(results)]
    if not lines:
        return []
    frame = pd.DataFrame(lines).drop_duplicates().map(_plain)
    return ["## Certified and attacked", "", HOW_TO_READ_BRACKETS, _table(_small(frame)), ""]


def _table(frame: pd.DataFrame) -> str:
    rows = [list(map(_plain, frame.columns)), ["---"] * len(frame.columns), *frame.values.tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
