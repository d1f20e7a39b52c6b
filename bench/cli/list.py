"""`bench list`: what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from .common import Request, console, print_json

if TYPE_CHECKING:
    from ..plugins.registry import Kind

CHECKS = "checks"


@dataclass(frozen=True, kw_only=True)
class ListRequest(Request):
    """One kind of thing."""

    kind: Kind | Literal["checks"]
    json: bool

    def carry_out(self) -> int:
        if self.kind == "checks":
            _list_checks(self.json)
        else:
            _list_plugins(self.kind, self.json)
        return 0


def _list_plugins(kind: Kind, as_json: bool) -> None:
    from ..plugins import registry

    rows = registry.listing(kind)
    if as_json:
        return print_json([row._asdict() for row in rows])
    from rich.table import Table

    detectors = kind == "detectors"
    table = Table(box=None, pad_edge=False)
    for column in ("name", *(("gradient", "needs") if detectors else ()), "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for row in rows:
        gradient = {True: "yes", False: "no", None: "?"}[row.differentiable]
        summary = row.summary if row.where == registry.BUILT_IN else f"{row.summary} ({row.where})"
        table.add_row(row.name + "+..." * row.wraps, *((gradient, row.needs) if detectors else ()), summary)
    return console().print(table)


def _list_checks(as_json: bool) -> None:
    from ..checks.explanations import EXPLAINED

    if as_json:
        return print_json([{"name": name} | check._asdict() for name, check in EXPLAINED.items()])
    for name, check in EXPLAINED.items():
        print(f"{name}\n  raised if {check.raised_if}\n  meaning: {check.meaning}\n  remedy: {check.remedy}")
    return None


@click.command()
@click.argument("kind", type=click.Choice(("detectors", "attacks", "datasets", CHECKS)))
@click.option("--json", is_flag=True, help="for programs")
def command(**options: Any) -> ListRequest:
    """What there is: names, and a line on each. `bench describe NAME` has the parameters."""
    return ListRequest(**options)
