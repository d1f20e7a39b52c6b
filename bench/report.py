"""From the results folder to tables: reads rows, never loads a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from . import files
from .bracket import brackets, compare_bounds
from .errors import UserError
from .metrics import Bootstrap, Metrics, accuracy, auroc_of, conservative, mean, median, ranking
from .run import ASIDE, Row, read_record, read_rows
from .threat import parse_eps

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Result:
    """A finished cell."""

    folder: Path
    record: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.record["spec"]
        return spec

    @property
    def detector(self) -> str:
        """The name with the parameters that are not the defaults; a file shows the start of its hash."""
        shown = ", ".join(f"{k}={short(v)}" for k, v in self.spec["detector_parameters"].items())
        return f"{self.spec['detector']} ({shown})" if shown else str(self.spec["detector"])

    @property
    def attack(self) -> str:
        spec = self.spec
        settings = {**spec["attack_parameters"], **{k: spec[k] for k in ("limit", "draws") if spec[k] is not None}}
        settings |= {"goal": spec["goal"]} if spec["goal"] != "rank" else {}
        shown = ", ".join(f"{k}={short(v)}" for k, v in settings.items())
        return f"{spec['attack']} ({shown})" if shown else str(spec["attack"])

    @property
    def certificate(self) -> bool:
        """`worst` is a bound that holds for every image of the ball, not a score that an attack found."""
        return bool(self.record["kind"] == "certificate")

    @property
    def word(self) -> str:
        """What metrics of `worst` are called: `robust`, as far as an attack knows, or `certified`."""
        return "certified" if self.certificate else "robust"

    @property
    def stops_at_threshold(self) -> bool:
        """The attack wanted the decision wrong, no more: its scores are no worst case, and rank nothing."""
        return self.spec["goal"] == "threshold" or self.radii is not None

    @cached_property
    def radii(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of a minimum-norm attack, the radii of the normal and of the anomalous images that it was let at."""
        if not any("radius" in row.more for row in self.rows):
            return None
        found = [np.array([row.more["radius"] for row in self.rows if row.label == label]) for label in (0, 1)]
        normal, anomalous = (radii[~np.isnan(radii)] for radii in found)
        return normal, anomalous

    @property
    def parts(self) -> list[str]:
        """Of an attack that is made of several: their columns."""
        found: list[str] = self.record["attack"]["parts"]
        return found

    @property
    def checks(self) -> list[dict[str, Any]]:
        """{name, passed, sentence} of what was checked before and after the attack."""
        found: list[dict[str, Any]] = self.record["checks"]
        return found

    @property
    def unranked(self) -> list[str]:
        """Why this cell must not be ranked: what the detector says of itself, and checks that failed."""
        own = self.record["detector"]["unranked"]
        failed = [f"{c['name']} check failed: {c['sentence']}" for c in self.checks if not c["passed"]]
        return [own] * bool(own) + failed

    @cached_property
    def metrics(self) -> Metrics:
        """Clean, robust (or certified) and one-sided metrics; none where the threat model did not attack that side.

        `robust` is the threat model's own column. The one-sided columns keep the clean score of the other class; of a
        certificate, its bound at radius 0. Bounds that tie count against the detector. Each is computed when it is
        asked for.
        """
        labels = np.array([row.label for row in self.rows]) == 1
        clean = np.array([row.clean for row in self.rows])
        worst = np.array([row.worst for row in self.rows])
        still = self._unmoved(clean)
        targets = self.spec["targets"]
        columns = {"clean": clean, self.word: worst}
        if targets != "anomalous" and still is not None:
            columns["normal_only"] = np.where(labels, still, worst)
        if targets != "normal" and still is not None:
            columns["anomalous_only"] = np.where(labels, worst, still)
        if self.certificate and self.stops_at_threshold:
            del columns["clean"]  # of as many draws as the verdict took: too few for a score
        found: dict[str, Callable[[], Bootstrap]] = {}
        salt = f"{self.spec['dataset']}/{self.spec['category']}"
        threshold = self.record["threshold"]["value"]
        for column, scores in columns.items():
            if column == "clean" or not self.stops_at_threshold:
                order = conservative(scores, labels) if self.certificate and column != "clean" else scores
                found[f"{column}_auroc"] = partial(auroc_of, order, labels, salt)
                others = lru_cache(partial(ranking, order, labels, salt))
                for name in ("ap", "fpr95"):
                    found[f"{column}_{name}"] = partial(_one_of, others, name)
            found[f"{column}_accuracy"] = partial(accuracy, scores, labels, threshold, salt)
            if column == self.word:
                for one, name in ((~labels, "normal"), (labels, "anomalous")):
                    found[f"{column}_{name}_right"] = partial(accuracy, scores[one], labels[one], threshold, salt)
        if "robust_auroc" in found:
            rounded = np.array([row.rounded for row in self.rows])
            found["rounded_auroc"] = partial(auroc_of, rounded, labels, salt)
            for column in ("worst_draw", "known_noise", *self.parts):
                values = np.array([row.more.get(column, np.nan) for row in self.rows])
                if not np.isnan(values).any():
                    found[f"{column}_auroc"] = partial(auroc_of, values, labels, salt)
        broken = np.array([row.more.get("broken", np.nan) for row in self.rows])
        if not np.isnan(broken).all():
            wrong = (clean > threshold) != labels
            broken = np.where(np.isnan(broken), wrong, broken)
            found["autoattack_accuracy"] = partial(accuracy, broken != labels, labels, 0.5, salt)
        for name, values in zip(("normal", "anomalous"), self.radii or (), strict=False):
            found[f"median_radius_{name}"] = partial(median, values, salt)
        for label, name in ((0, "normal"), (1, "anomalous")):
            values = np.array([row.more.get("certified_radius", np.nan) for row in self.rows if row.label == label])
            if not np.isnan(values).any():
                found[f"certified_radius_{name}"] = partial(median, values, salt)
        return Metrics(found)

    def _unmoved(self, clean: np.ndarray) -> np.ndarray | None:
        """Scores of images that nobody moves, as far as they are known; None where no row says."""
        if not self.certificate:
            return clean
        if self.stops_at_threshold:
            return None
        return np.array([row.more["low_0" if row.label else "high_0"] for row in self.rows])


def _one_of(metrics: Callable[[], Mapping[str, Bootstrap]], name: str) -> Bootstrap:
    return metrics()[name]


def short(value: Any) -> str:
    """A parameter's value as a table shows it: of a file, the start of its hash."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[: len("sha256:") + 8] if text.startswith("sha256:") else text


def read_results(root: Path) -> tuple[list[Result], list[str]]:
    """Finished cells below `root`, at least one, and a sentence for each unfinished one.

    Raises UserError for a folder that cannot be read, or a cell that is damaged or of another schema.
    """
    if not root.exists():
        raise UserError(f"no results in {root}: the folder does not exist; `bench run` makes it")
    if not root.is_dir():
        raise UserError(f"--results {root} is a file; a folder is expected")
    results, notes = find_cells(root)
    if not results:
        raise UserError(f"no finished results in {root}" + (f"; {notes[0]}" if notes else "; `bench run` makes some"))
    return results, notes


def find_cells(root: Path) -> tuple[list[Result], list[str]]:
    """As `read_results`, but none is no error."""
    results, notes = [], []
    for path in sorted(root.rglob("run.json")):
        if path.parent.name == ASIDE:
            continue
        record = read_record(path.parent)
        if record["status"] == "finished":
            results.append(Result(path.parent, record, tuple(read_rows(path.parent, record))))
        else:
            total = record["data"]["normal"] + record["data"]["anomalous"]
            notes.append(
                f"unfinished: {path.parent} ({record['rows']} of {total} images); the same `bench run` goes on with it"
            )
    compare_bounds(results)
    return results, notes


def load_results(root: Path) -> pd.DataFrame:
    """One tidy row per finished cell; a metric's interval is in the columns `_low` and `_high`."""
    return pd.DataFrame([_tidy(result) for result in read_results(root)[0]])


def _tidy(result: Result) -> dict[str, Any]:
    spec, record = result.spec, result.record
    row: dict[str, Any] = {
        "dataset": spec["dataset"],
        "category": spec["category"],
        "image_size": spec["image_size"],
        "detector": spec["detector"],
        "detector_parameters": record["detector"]["parameters"],
        "kind": record["kind"],
        "attack": spec["attack"],
        "attack_parameters": record["attack"]["parameters"],
        "norm": spec["norm"],
        "eps": float(parse_eps(spec["eps"])),
        "eps_text": spec["eps"],
        "targets": spec["targets"],
        "goal": spec["goal"],
        "seed": spec["seed"],
        "normal": record["data"]["normal"],
        "anomalous": record["data"]["anomalous"],
    }
    for name, bootstrap in result.metrics.items():
        value = bootstrap.estimate()
        row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return row | {
        "threshold": record["threshold"]["value"],
        "forwards": record["forwards"],
        "backwards": record["backwards"],
        "seconds": record["seconds"],
        "fit_seconds": (record["detector"]["fit"] or {}).get("seconds"),
        "checks_seconds": record.get("checks_seconds"),
        "peak_memory_mib": record["peak_memory"],
        "checks_failed": "; ".join(c["sentence"] for c in record["checks"] if not c["passed"]),
        "unranked": "; ".join(result.unranked),
        "device": record["device"],
        "commit": record["git"]["commit"],
        "dirty": record["git"]["dirty"],
        "warnings": "; ".join(record["warnings"]),
        "folder": str(result.folder),
    }


@dataclass(frozen=True)
class Board:
    """One leaderboard: cells that may be compared, because only the detector (and the category) differs."""

    title: str
    key: tuple[Any, ...]
    entries: tuple[tuple[str, tuple[Result, ...]], ...]
    """Detector and its cells, one per category; best robust AUROC first, or robust accuracy where the attack stops at
    the threshold, and what must not be ranked last."""

    @property
    def categories(self) -> list[str]:
        return sorted({r.spec["category"] for _, results in self.entries for r in results})

    @property
    def word(self) -> str:
        """`robust` or `certified`: what all its cells hold."""
        return self.entries[0][1][0].word

    @property
    def stops_at_threshold(self) -> bool:
        """Its cells are about decisions, not scores."""
        return any(r.stops_at_threshold for _, cells in self.entries for r in cells)

    @property
    def unranked(self) -> dict[str, list[str]]:
        """Detector -> why it is not ranked."""
        reasons = {name: list(dict.fromkeys(w for r in results for w in r.unranked)) for name, results in self.entries}
        return {name: why for name, why in reasons.items() if why}


def boards(results: Sequence[Result]) -> list[Board]:
    """Grouped by data set, size, attack, budget and seed."""
    groups: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    for r in results:
        s = r.spec
        key = (s["dataset"], s["image_size"], r.attack, s["norm"], float(parse_eps(s["eps"])), s["targets"], s["seed"])
        groups.setdefault(key, {}).setdefault(r.detector, []).append(r)
    found = []
    for key, entries in sorted(groups.items()):
        dataset, size, attack, norm, _, targets, seed = key
        spec = next(iter(entries.values()))[0].spec
        title = f"{dataset}, {size} px: {attack}, {norm} {spec['eps']}"
        title += f", {targets} images attacked" if targets != "both" else ""
        title += f", seed {seed}" if seed else ""
        stops = any(r.stops_at_threshold for cells in entries.values() for r in cells)
        word = _word(entries)
        best_by = f"{word}_accuracy" if stops else f"{word}_auroc"
        ranked = sorted(entries.items(), key=lambda e: (any(r.unranked for r in e[1]), -_mean(e[1], best_by).value))
        found.append(Board(title, key, tuple((name, tuple(cells)) for name, cells in ranked)))
    return found


def _word(entries: Mapping[str, Sequence[Result]]) -> str:
    """Of a board's cells, which are all attacks or all certificates."""
    return next(iter(entries.values()))[0].word


def _mean(results: Sequence[Result], metric: str) -> Bootstrap:
    return mean([r.metrics[metric] for r in results])


COLUMNS = {
    "clean AUROC": "clean_auroc",
    "robust AUROC": "robust_auroc",
    "normal only": "normal_only_auroc",
    "anomalous only": "anomalous_only_auroc",
    "rounded": "rounded_auroc",
    "clean AP": "clean_ap",
    "robust AP": "robust_ap",
    "clean FPR95": "clean_fpr95",
    "robust FPR95": "robust_fpr95",
    "clean acc.": "clean_accuracy",
    "robust acc.": "robust_accuracy",
}
CERTIFIED = {
    "clean AUROC": "clean_auroc",
    "certified AUROC": "certified_auroc",
    "normal only": "normal_only_auroc",
    "anomalous only": "anomalous_only_auroc",
    "clean acc.": "clean_accuracy",
    "certified acc.": "certified_accuracy",
    "normal right": "certified_normal_right",
    "anomalous right": "certified_anomalous_right",
    "certified radius, normal": "certified_radius_normal",
    "certified radius, anomalous": "certified_radius_anomalous",
}
AT_THRESHOLD = {"normal right": "robust_normal_right", "anomalous right": "robust_anomalous_right"}
AUTOATTACK = {"AutoAttack acc.": "autoattack_accuracy"}
RADII = {"median radius, normal": "median_radius_normal", "median radius, anomalous": "median_radius_anomalous"}
DRAWS = {"worst draw": "worst_draw_auroc", "known noise": "known_noise_auroc"}
NOT_RANKED = "–"  # noqa: RUF001
BOLD = ("clean AUROC", "robust AUROC", "certified AUROC", "robust acc.", "certified acc.")
DECISIONS = ("clean acc.", "robust acc.", "certified acc.", "normal right", "anomalous right")
WITH_INTERVAL = ("clean AUROC", "robust AUROC", "certified AUROC", "normal only", "anomalous only")


def table(board: Board) -> pd.DataFrame:
    """A board as text, one row per detector; means over categories, AUROC with its 95 % interval."""
    everything = len(board.categories)
    unranked = board.unranked
    lines = []
    for rank, (name, results) in enumerate(board.entries, 1):
        line = {
            "rank": NOT_RANKED if name in unranked else str(rank),
            "detector": name if len(results) == everything else f"{name} [{len(results)} of {everything}]",
        }
        for title, metric in columns_of(board).items():
            line[title] = _cell(results, metric, title in (*WITH_INTERVAL, *RADII))
        line["passes per image"] = _passes(results)
        fits = [r.record["detector"]["fit"] for r in results]
        line["fit seconds"] = f"{sum(fit['seconds'] for fit in fits if fit):.0f}"
        line["attack seconds"] = f"{sum(r.record['seconds'] for r in results):.0f}"
        memory = [r.record["peak_memory"] for r in results if r.record["peak_memory"]]
        line["peak GiB"] = f"{max(memory) / 1024:.2f}" if memory else NOT_RANKED
        lines.append(line)
    return pd.DataFrame(lines)


def columns_of(board: Board) -> dict[str, str]:
    """Title -> metric."""
    return CERTIFIED if board.word == "certified" else COLUMNS | _further(board)


def _further(board: Board) -> dict[str, str]:
    """Columns that only some attacks fill."""
    results = [r for _, cells in board.entries for r in cells]
    wanted = AT_THRESHOLD if board.stops_at_threshold else {}
    for columns in (DRAWS, AUTOATTACK, RADII):
        if any(metric in r.metrics for r in results for metric in columns.values()):
            wanted = wanted | columns
    return wanted


def _cell(results: Sequence[Result], metric: str, interval: bool) -> str:
    if any(metric not in r.metrics for r in results):
        return NOT_RANKED  # this side was not attacked
    estimate = _mean(results, metric).estimate()
    return str(estimate) if interval else f"{estimate.value:.3f}"


def _passes(results: Sequence[Result]) -> str:
    images = sum(len(r.rows) for r in results)
    forwards, backwards = (sum(r.record[k] for r in results) for k in ("forwards", "backwards"))
    return f"{forwards / images:.0f} + {backwards / images:.0f}"


def by_category(board: Board) -> pd.DataFrame:
    """Clean and robust AUROC per category."""
    lines = []
    for name, results in board.entries:
        line = {"detector": name}
        cells = {r.spec["category"]: r for r in results}
        for category in board.categories:
            r = cells.get(category)
            shown = ("clean_auroc", f"{board.word}_auroc")
            values = [] if r is None else [r.metrics[m].value for m in shown if m in r.metrics]
            line[category] = " → ".join(f"{v:.3f}" for v in values)
        lines.append(line)
    return pd.DataFrame(lines)


def by_part(board: Board) -> pd.DataFrame:
    """Robust AUROC of every part of an attack that is made of several, mean over categories; empty if none is."""
    parts = list(dict.fromkeys(part for _, results in board.entries for r in results for part in r.parts))
    if not parts:
        return pd.DataFrame()
    lines = [
        {
            "detector": name,
            **{part: _cell(results, f"{part}_auroc", False) for part in parts},
            "worst of all": _cell(results, "robust_auroc", False),
        }
        for name, results in board.entries
    ]
    return pd.DataFrame(lines)


HOW_TO_READ = """\
Every number is computed from the rows in this folder. AUROC: the chance that an anomalous image scores above a normal
one; brackets hold the 95 % interval of a bootstrap over images, stratified by class. Bold: the best of those that are
ranked, and what is not significantly worse on the same images (paired bootstrap, p > 0.05). *robust*: after the attack.
*normal only*, *anomalous only*: only these images were moved. *rounded*: the attacked images in 8 bits. Of detectors
that draw noise, robust is the mean over draws, *worst draw* the worst of them, *known noise* an adversary who knows the
draw. AP: average precision. FPR95: share of normal images flagged when 95 % of the anomalous ones are. acc.: accuracy
at the threshold that 5 % of held-out normal training images exceed. Passes per image: forward + backward. Peak: memory
during the attack. A row without a rank: the reason is below the table. An attack bounds robustness from above: a better
one can only lower it.
"""


FOOTNOTES = {
    "certified AUROC": "No attack of the ball can bring the smoothed detector below *certified* AUROC: the share of "
    "pairs whose lower bound of the anomalous score is above the upper bound of the normal one. The bounds of all "
    "images of a category hold together with a chance of 1 - alpha, over the noise that was drawn. *clean*: the "
    "smoothed score itself. *certified acc.*, *normal right*, *anomalous right*: decisions that stand in the ball. "
    "*certified radius*: how far the median image may be moved. The ball is l2 on pixels in [0, 1]: it says nothing "
    "about linf.",
    "normal right": "This attack leaves an image alone as soon as the decision is wrong, so its score is not the worst "
    f"one, and what ranks by it is {NOT_RANKED}; the order is that of robust acc. *normal right*, *anomalous right*: "
    "share of that class still on its side of the threshold.",
    "AutoAttack acc.": "*AutoAttack acc.*: share of images that AutoAttack did not break, which is its own figure.",
    "median radius, normal": "*median radius*: how far the median image of the class must move, in the norm and in "
    "pixels in [0, 1], to be judged wrongly at the threshold, as far as the attack found; 0 where it is from the "
    "start, inf where nothing was found.",
}


def markdown(results: Sequence[Result], notes: Sequence[str], plots: Sequence[Path] = ()) -> str:
    """LEADERBOARD.md."""
    parts = ["# Leaderboard", "", HOW_TO_READ]
    for board in boards(results):
        count = len(board.categories)
        scope = f"Mean over {count} categories" if count > 1 else f"Category {board.categories[0]}"
        parts += [f"## {board.title}", "", f"{scope}.", "", _markdown_table(_with_bold(board)), ""]
        if count > 1:
            parts += ["AUROC per category, clean → robust:", "", _markdown_table(by_category(board)), ""]
        shown = {"certified AUROC"} if board.word == "certified" else _further(board)
        footnotes = [why for title, why in FOOTNOTES.items() if title in shown]
        parts += [f"- {why}" for why in footnotes] + ([""] if footnotes else [])
        if len(parts_table := by_part(board)):
            parts += ["Robust AUROC by part of the attack:", "", _markdown_table(parts_table), ""]
        warnings = sorted(
            {f"{name}: {w}" for name, cells in board.entries for r in cells for w in r.record["warnings"]}
        )
        parts += [f"- {warning}" for warning in warnings] + ([""] if warnings else [])
        parts += [f"- not ranked: {name}: {'; '.join(why)}" for name, why in board.unranked.items()]
        parts += [""] if board.unranked else []
        parts += _checks(board)
    parts += _bracket_lines(results)
    parts += [f"![{plot.stem}]({plot.name})\n" for plot in plots]
    parts += [f"- {note}" for note in notes]
    return "\n".join(parts).rstrip() + "\n"


def _with_bold(board: Board) -> pd.DataFrame:
    """The table, with the best of a column and what is not significantly worse in bold."""
    from .compare import not_worse

    frame = table(board)
    for title in BOLD:
        metric = columns_of(board).get(title)
        best = not_worse(board, metric) if metric else ()
        if len(board.entries) > 1 and best:
            names = [name for name, _ in board.entries]
            frame[title] = [
                re.sub(r"^([\d.]+)", r"**\1**", cell) if name in best else cell
                for name, cell in zip(names, frame[title], strict=True)
            ]
    return frame


def _checks(board: Board) -> list[str]:
    """What was checked before and after the attacks, folded away: every sentence once, with its categories."""
    lines = ["<details><summary>Checks of these cells, before and after the attack (docs/checks.md)</summary>", ""]
    for name, results in board.entries:
        said: dict[tuple[str, bool, str], list[str]] = {}
        for r in results:
            for check in r.checks:
                said.setdefault((check["name"], check["passed"], check["sentence"]), []).append(r.spec["category"])
        failed = sum(not passed for _, passed, _ in said)
        lines.append(f"- **{name}**: " + (f"{failed} failed" if failed else "all passed"))
        for (check_name, passed, sentence), where in said.items():
            scope = "" if len(where) == len(results) else f" ({', '.join(where)})"
            lines.append(f"  - {'pass' if passed else '**FAIL**'} {check_name}: {sentence}{scope}")
    return [*lines, "", "</details>", ""]


def _markdown_table(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.values.tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def rich_table(board: Board) -> Table:
    """A board for a terminal of 80 columns; LEADERBOARD.md has more of them."""
    from rich import box
    from rich.table import Table

    count = len(board.categories)
    scope = f"mean over {count} categories" if count > 1 else board.categories[0]
    shown = Table(
        title=f"{board.title} ({scope})",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    shown.add_column("detector", overflow="fold")
    about = DECISIONS if board.stops_at_threshold else WITH_INTERVAL
    titles = [title for title in about if title in columns_of(board)]
    for title in titles:
        shown.add_column(title.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in table(board)[["rank", "detector", *titles]].itertuples(index=False):
        name = f"{row[1]} (not ranked)" if row[0] == NOT_RANKED else row[1]
        shown.add_row(name, *(cell.replace(" ", "\n", 1) for cell in row[2:]))
    return shown


def _bracket_lines(results: Sequence[Result]) -> list[str]:
    """The section of LEADERBOARD.md that sets certificates beside attacks; empty without certificates."""
    lines = [line for bracket in brackets(results) for line in bracket.lines]
    if not lines:
        return []
    frame = pd.DataFrame(lines).drop_duplicates()
    return ["## Certified and attacked", "", HOW_TO_READ_BRACKETS, _markdown_table(frame), ""]


HOW_TO_READ_BRACKETS = """\
The true worst case of a smoothed detector lies between what is certified and what an attack reached at the same radius.
`bench run --detector smoothed+D --param sigma=S --attack apgd-l2 --eps R` adds the attack. A certified value above the
attacked one is impossible: one of both is wrong, and both lose their rank.
"""


def write_report(root: Path) -> tuple[list[Result], list[str], list[Path]]:
    """LEADERBOARD.md, leaderboard.csv, robustness curves, purification levels and radii in the results folder."""
    from .plots import write_brackets, write_curves, write_purification, write_radii

    results, notes = read_results(root)
    plots = [*write_curves(results, root), *write_purification(results, root), *write_radii(results, root)]
    plots += write_brackets(results, root)
    frame = pd.DataFrame([_tidy(result) for result in results])
    files.write_text(root / "leaderboard.csv", frame.to_csv(index=False))
    files.write_text(root / "LEADERBOARD.md", markdown(results, notes, plots))
    return results, notes, [root / "LEADERBOARD.md", root / "leaderboard.csv", *plots]
