"""Cells as small tables, for notebooks and terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table

    from .cells import Found, Result

CELLS_SHOWN = 40  # of a folder: metrics of thousands take seconds
SPEC = ("dataset", "category", "image_size", "norm", "eps", "targets", "goal", "seed")


class Shown(NamedTuple):
    """A table as text, and what is said below it."""

    title: str
    frame: pd.DataFrame
    below: list[str]


def facts(result: Result) -> Shown:
    """Of a cell: its spec, every metric with its 95 % interval, its checks."""
    spec = {"detector": result.detector, "attack": result.attack, **{name: result.spec[name] for name in SPEC}}
    metrics = {name: result.metrics.estimate(name) for name in result.metrics}
    failed = [check for check in result.checks if not check["passed"]]
    rows = [("spec", name, str(value)) for name, value in spec.items()]
    rows += [("metric", name, str(value)) for name, value in metrics.items()]
    rows += [
        ("check", check["name"], f"{'pass' if check['passed'] else 'FAIL'}: {check['sentence']}")
        for check in result.checks
    ]
    below = [f"not ranked: {why}" for why in result.unranked]
    title = f"{result.word} cell, {len(result.table.ids)} images" + f", {len(failed)} checks failed" * bool(failed)
    return Shown(title, pd.DataFrame(rows, columns=["", "name", "value"]), below)


def overview(found: Found) -> Shown:
    """Of a folder: a row per cell, the first CELLS_SHOWN."""
    rows = []
    for r in found.results[:CELLS_SHOWN]:
        clean = f"clean_{r.ranked_by.rpartition('_')[2]}"
        rows.append(
            {
                "dataset": r.spec["dataset"],
                "category": r.category,
                "detector": f"{r.detector} (not ranked)" if r.unranked else r.detector,
                "attack": r.attack,
                "budget": f"{r.spec['norm']} {r.spec['eps']}",
                "metric": r.ranked_by.replace("_auroc", " AUROC").replace("_", " "),
                "clean": str(r.metrics.estimate(clean)) if clean in r.metrics else "",
                "reached": str(r.metrics.estimate(r.ranked_by)),
            }
        )
    below = [f"and {len(found.results) - CELLS_SHOWN} more"] * (len(found.results) > CELLS_SHOWN)
    title = f"{len(found.results)} finished cell" + "s" * (len(found.results) != 1)
    return Shown(title, pd.DataFrame(rows), [*below, *found.damaged, *found.notes])


def html(shown: Shown) -> str:
    """For a notebook."""
    from html import escape

    table = shown.frame.to_html(index=False, border=0, justify="left")
    below = "".join(f"<div>{escape(sentence)}</div>" for sentence in shown.below)
    return f"<div><strong>{escape(shown.title)}</strong></div>{table}{below}"


def rich_table(shown: Shown) -> Table:
    """For a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(title=Text(shown.title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD)
    if shown.below:
        found.caption, found.caption_justify = Text("\n".join(shown.below), "table.caption"), "left"
    for name in shown.frame.columns:
        found.add_column(name, overflow="fold")
    for row in shown.frame.itertuples(index=False):
        found.add_row(*map(Text, row))
    return found
