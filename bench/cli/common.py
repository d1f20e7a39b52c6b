"""What the commands share: a request, what its options are made of, and how a person is spoken to."""

from __future__ import annotations

import contextlib
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..core.names import shown
from ..errors import UserError
from ..system import files

if TYPE_CHECKING:
    from rich.console import Console

    from ..plugins.registry import Kind

T = TypeVar("T")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])
LONGEST_NUMBER = 18  # digits: fits into 64 bits, which NumPy and torch expect


class Request(ABC):
    """What somebody asked for: typed, and complete. A command makes one, and does nothing else."""

    @abstractmethod
    def carry_out(self) -> int:
        """The exit code: 0 done, 1 a check failed, 2 something the person can mend.

        Raises UserError, before any work where it can be known.
        """


class Option(click.Option):
    """An option whose value is not another option: in `--detector --eps 2/255` a name was forgotten."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        values = value if isinstance(value, (tuple, list)) else [value]
        if any(text in (*p.opts, *p.secondary_opts) for p in ctx.command.get_params(ctx) for text in values):
            raise click.BadOptionUsage(self.opts[0], f"{self.opts[0]} needs a value", ctx)
        return super().type_cast_value(ctx, value)


option = partial(click.option, cls=Option)


def together(*options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(command: Decorated) -> Decorated:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate


# From text to a value: what click calls of an option when it was parsed. None is an option that was left out.


def names(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """`a,b` -> ("a", "b"), each once."""
    if text is None:
        return None
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise UserError(f"{parameter.opts[0]} {text!r} has an empty name")
    return tuple(dict.fromkeys(found))


def assignments(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    """("k=50", "filter=5") -> {"k": "50", "filter": "5"}."""
    if not texts:
        return {}  # without the import below: completion calls this too
    from ..core.parameters import parse_assignments

    return parse_assignments(texts)


def whole(least: int | None = None) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """A whole number, `least` or above."""

    def number(_: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
        if text is None:
            return None
        if not re.fullmatch(rf"[+-]?[0-9]{{1,{LONGEST_NUMBER}}}", text):
            raise UserError(f"{parameter.opts[0]} {text} is no whole number")
        if least is not None and int(text) < least:
            raise UserError(f"{parameter.opts[0]} must be at least {least}, got {text}")
        return int(text)

    return number


def place(_: click.Context, parameter: click.Parameter, text: str | None) -> Path | None:
    """A path, which need not exist; the empty text, which would be the current folder, is a mistake.

    `~` is the home folder, which a shell does not say for us in `--results=~/x`.
    """
    if text == "":
        raise UserError(f"{parameter.human_readable_name}: expected a file or a folder, got nothing")
    return None if text is None else files.at_home(text)


def apart(what: str, function: Callable[..., Iterable[T]], *arguments: Any) -> Iterator[T]:
    """What the function yields in a process of its own, which somebody else's code may end.

    Raises UserError if it does, or if that code is broken; `what` names it.
    """
    from ..harness.process import each

    with named(what):
        yield from each(function, *arguments)


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Within, what is broken in another process, whose message speaks of "it", becomes a UserError that names it."""
    from ..harness.process import Broken

    try:
        yield
    except Broken as error:
        raise UserError(f"{what}: {error}") from None


def known(kind: Kind) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Completes a name of that kind, also after a comma or, of detectors, a plus; or the path of a file."""

    def complete(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
        from ..plugins import registry

        if "/" in typed:
            return [CompletionItem(typed, type="file")]
        before = re.match(r"(.*[,+])?", typed)
        kept = before[0] if before else ""
        found = (kept + name for name in registry.names(kind))
        return [CompletionItem(name) for name in found if name.startswith(typed)]

    return complete


DEVICE = option("--device", default="auto", metavar="DEV", show_default=True, help="auto, cpu, cuda:0, ...")
RESULTS = option(
    "--results",
    type=click.Path(),
    default="results",
    callback=place,
    metavar="DIR",
    show_default=True,
    help="folder of the cells",
)


def share_out(
    option: str, given: Mapping[str, str], accepted: Mapping[str, Iterable[str]], owners: Iterable[str]
) -> dict[str, dict[str, str]]:
    """A parameter goes to everything of a run that has it, and to one thing at least.

    accepted: name -> `k` and `owner.k` of what has that name; owners: all that may stand before the dot.
    """
    from ..errors import unknown

    shares: dict[str, dict[str, str]] = {name: {} for name in accepted}
    for key, value in given.items():
        having = [name for name, keys in accepted.items() if key in keys]
        if not having:
            owner, dot, _ = key.rpartition(".")
            if dot and owner not in (owners := sorted(set(owners))):
                raise UserError(f"{option} {key}={value}: no {owner!r} in this run, but {', '.join(owners)}")
            raise unknown(f"parameter of {', '.join(accepted)}", key, {k for keys in accepted.values() for k in keys})
        for name in having:
            shares[name][key] = value
    return shares


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"bench: {shown(' '.join(message.split()))}", file=sys.stderr)


def say(line: object) -> None:
    """One line on stdout, whatever a stranger has put into it."""
    print(shown(line), flush=True)


def tell(sentence: str) -> None:
    """On stderr, from wherever something is told: also from another process."""
    print(shown(sentence), file=sys.stderr)


def console() -> Console:
    """A terminal that shows names, paths and sentences as they are: nothing in them is markup, or moves its cursor."""
    from rich.console import Console

    class Screen(Console):
        def print(self, *objects: Any, **more: Any) -> None:
            super().print(*(shown(thing) if isinstance(thing, str) else thing for thing in objects), **more)

    return Screen(markup=False, emoji=False)


def print_json(value: Any) -> None:
    """For programs."""
    import json

    print(json.dumps(value, indent=1, ensure_ascii=False))
