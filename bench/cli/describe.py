"""`bench describe`: what a detector, an attack or a data set is, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from .common import Request, apart, console, known, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from ..plugins.describe import Description, Parameter

OPTION = {"detectors": "--param", "attacks": "--attack-param", "datasets": ""}
"""With which a parameter is given."""


@dataclass(frozen=True, kw_only=True)
class DescribeRequest(Request):
    """A name, as `bench run` takes it."""

    name: str
    json: bool

    def carry_out(self) -> int:
        from ..plugins.describe import describe
        from ..plugins.registry import KINDS, is_foreign

        foreign = any(is_foreign(kind, name) for kind in KINDS for name in [self.name, *self.name.split("+")])
        found = list(apart(self.name, describe, self.name) if foreign else describe(self.name))
        if self.json:
            print_json([_record(one) for one in found])
            return 0
        screen = console()
        for one in found:
            _print(one, screen)
        return 0


def _record(found: Description) -> dict[str, Any]:
    """As JSON; a parameter without `default` must be given."""
    from ..core.parameters import identity

    def parameter(one: Parameter) -> dict[str, Any]:
        default = {} if one.required else {"default": identity(one.default)}
        return {"name": one.name, "type": one.type, **default, "text": one.text}

    record = found._asdict()
    return {**record, **record.pop("facts"), "parameters": [parameter(one) for one in found.parameters]}


def _print(found: Description, screen: Console) -> None:
    from rich.table import Table

    from ..plugins.describe import default_text

    screen.print(f"{found.name}, {found.kind[:-1].replace('set', ' set')}: {found.summary}", highlight=False)
    if found.about:
        screen.print(found.about, highlight=False)
    screen.print("; ".join(f"{name}: {value}" for name, value in facts_in_words(found.facts).items()), highlight=False)
    screen.print(f"code: {found.file}", style="dim", highlight=False, soft_wrap=True)
    if found.parameters:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in (OPTION[found.kind], "default", "values", "what it is"):
            table.add_column(column, overflow="fold")
        for one in found.parameters:
            table.add_row(one.name, default_text(one.default), one.type, one.text)
        screen.print(table)
    screen.print()


def facts_in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """In words; what it does not need is left out."""
    words = {True: "yes", False: "no", None: "as the detector inside"}
    return {
        name.replace("_", " "): ", ".join(value) if isinstance(value, list) else words.get(value, str(value))
        for name, value in facts.items()
        if value not in ("", []) and (name, value) != ("wraps", False)
    }


def _every_name(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    from ..plugins.registry import KINDS

    return [item for kind in KINDS for item in known(kind)(context, parameter, typed)]


@click.command()
@click.argument("name", metavar="NAME", shell_complete=_every_name)
@click.option("--json", is_flag=True, help="for programs")
def command(**options: Any) -> DescribeRequest:
    """What a plug-in is, and its parameters with their defaults.

    NAME is as `bench run` takes it: patchcore, diffpure+patchcore, anomalib:padim, path/to/mine.py:MyDetector,
    pgd-linf, textures. Each parameter with its default, its values, and what it is.
    """
    return DescribeRequest(**options)
