"""Pages of the website that say what the code says: commands, detectors, attacks, data sets, the names of `bench`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

import click

import bench
from bench.cli import entry
from bench.cli.describe import facts_in_words
from bench.plugins import registry
from bench.plugins.describe import Description, default_text, describe

OPTION = re.compile(r"(.*?)\s*(?:\[(default: .*|required)\])?", re.DOTALL)
"""What an option is, and what it is by default."""
ENDS = """\
# Commands

Every command ends with 0 when it is done, 1 when a check failed, 130 when it was stopped, and 2 when there is something
for you to mend, which it says in one line. `COMMAND --help` shows what stands here.
"""

TITLES: Mapping[registry.Kind, tuple[str, str]] = {
    "detectors": (
        "Detectors",
        "What `bench describe NAME` prints. `--param NAME=VALUE` sets a parameter. A detector that goes before another "
        "one is named `outer+inner`.",
    ),
    "attacks": (
        "Attacks",
        "What `bench describe NAME` prints. `--attack NAME-NORM` names an attack, `--attack-param NAME=VALUE` sets a "
        "parameter.",
    ),
    "datasets": ("Data sets", "What `bench describe NAME` prints. `--dataset NAME` names a data set."),
}

PYTHON: Mapping[str, tuple[str, ...]] = {
    "Run": ("fit_or_load", "evaluate", "certify", "shift", "load_data", "categories"),
    "Read": ("load_results", "read_results", "plot", "auroc", "Estimate", "Row"),
    "Write a detector": ("Detector", "Purifier", "Wrapper", "Hints", "Progress", "bpda", "identity_backward"),
    "Write an attack": ("Attack", "Attacked", "Context", "Trace", "Score", "ThreatModel", "Rng"),
    "Give images": ("Data", "TrainSet", "TestSet", "ArraySource", "FileSource", "Record"),
    "Errors": ("UserError",),
}
"""Every name of `bench.__all__` in one place."""


def pages() -> dict[str, str]:
    """Name of the page -> its Markdown."""
    return {
        "commands.md": _commands(),
        "detectors.md": _plugins("detectors"),
        "attacks.md": _plugins("attacks"),
        "data_sets.md": _plugins("datasets"),
        "python.md": _python(),
    }


def _commands() -> str:
    parent = click.Context(entry.bench, info_name="bench")
    return "\n".join([ENDS, *(_command(click.Context(_loaded(name), parent, name)) for name in entry.COMMANDS)])


def _loaded(name: str) -> click.Command:
    found = entry.bench.get_command(click.Context(entry.bench), name)
    assert found is not None
    return found


def _command(context: click.Context) -> str:
    """Its help, where options are a table."""
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    about, examples = inspect.cleandoc(command.help or ""), inspect.cleandoc((command.epilog or "").replace("\b", ""))
    lines = [f"## {context.command_path}\n", f"```\n{usage}\n```\n", f"{_plain(about)}\n"]
    lines += ["| option | what it is | default |", "| --- | --- | --- |"]
    for names, text in filter(None, (option.get_help_record(context) for option in command.get_params(context))):
        found = OPTION.fullmatch(text)
        assert found is not None  # whatever it is
        lines.append(f"| `{names}` | {_plain(found[1])} | {_plain((found[2] or '').removeprefix('default: '))} |")
    return "\n".join([*lines, "", f"```\n{examples}\n```\n" * bool(examples)])


def _plugins(kind: registry.Kind) -> str:
    """Of those that are built in."""
    title, text = TITLES[kind]
    names = [row.name for row in registry.listing(kind) if row.where == registry.BUILT_IN]
    return "\n".join([f"# {title}\n", f"{text}\n", *(_described(one) for name in names for one in describe(name))])


def _described(found: Description) -> str:
    lines = [f"## {found.name}\n", f"{_plain(found.summary)}\n", f"{_plain(found.about)}\n" * bool(found.about)]
    facts = "; ".join(f"{name}: {value}" for name, value in facts_in_words(found.facts).items())
    lines += [f"*{facts}*\n"] * bool(facts)
    if found.parameters:
        lines += ["| parameter | default | values | what it is |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{one.name}` | {_code(default_text(one.default))} | {_code(one.type)} | {_plain(one.text)} |"
            for one in found.parameters
        ]
    return "\n".join([*lines, ""])


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _plain(text: str) -> str:
    """Docstrings are text: a bar ends no column, a bracket opens no tag."""
    return text.replace("|", "&#124;").replace("<", "&lt;")


def _python() -> str:
    missing = set(bench.__all__) ^ {name for names in PYTHON.values() for name in names}
    if missing:
        raise ValueError(f"PYTHON of docs/reference.py and bench.__all__ differ in {', '.join(sorted(missing))}")
    parts = [f"## {title}\n\n" + "\n".join(f"::: bench.{name}\n" for name in names) for title, names in PYTHON.items()]
    return "# Python\n\nThe names of `import bench`.\n\n" + "\n".join(parts)
