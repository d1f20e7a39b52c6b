"""From the words of a command to its exit code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from ..errors import UserError, unknown
from ..system.waiting import wait_asleep
from .common import Request, complain

COMMANDS = (
    "run", "certify", "shift", "status", "report", "compare", "compare-scores",
    "list", "describe", "check-detector", "check-run", "verify", "submit",
)  # fmt: skip
"""In the order of `bench --help`; `check-run` is `command` of check_run.py."""

NOT_UTF_8 = "a name that is not UTF-8: rename it, or, where the locale is C, set PYTHONUTF8=1"
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Commands(click.Group):
    """Commands by name, each imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
examples:
  bench run --detector advrad --attack pgd-linf --eps 2/255
  bench certify --detector nearest-patch --norm linf --radius 1/255,2/255
  bench report
""",
)
@click.version_option(package_name="adv-anomaly-bench")
@click.pass_context
def bench(context: click.Context) -> None:
    """Clean and robust AUROC of image anomaly detectors."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 a check failed, 2 something the person can mend (one line on stderr), 130 stopped."""
    _print_whatever_is_named()
    wait_asleep()
    os.environ["MPLBACKEND"] = "agg"  # a notebook hands down that of its kernel, which may not be installed here
    try:
        request = parse(sys.argv[1:] if arguments is None else arguments)
        return 0 if request is None else request.carry_out()
    except UserError as error:
        complain(str(error))
    except click.UsageError as error:
        complain(_sentence(error))
    except (KeyboardInterrupt, click.Abort):
        complain("stopped; the rows so far are kept, and the same command goes on with them")
        return INTERRUPTED
    except UnicodeEncodeError as error:
        complain(f"{error.object[max(error.start - 40, 0) : error.end + 40]!a}: {NOT_UTF_8}")
    except BrokenPipeError:  # `bench list | head`
        sys.stderr.close()
    except OSError as error:
        complain(f"{error.filename or 'system'}: {error.strerror or error}")
    return 2


def parse(words: Sequence[str]) -> Request | None:
    """What the words after `bench` ask for, not done yet; None where help or the version was all, and was shown.

    Raises UserError or click.UsageError.
    """
    request = bench.main(list(words), prog_name="bench", standalone_mode=False)
    return request if isinstance(request, Request) else None


def _print_whatever_is_named() -> None:
    """A name that the terminal cannot show is spelled in escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(io.UnsupportedOperation):
                stream.reconfigure(errors="backslashreplace")


def _sentence(error: click.UsageError) -> str:
    """What was wrong with the words, and where help is."""
    what = error.format_message()
    if isinstance(error, click.NoSuchOption):
        near = _near(error.option_name, error.ctx)
        what = f"no option named {error.option_name!r}." + (f" Did you mean {' or '.join(near)}?" if near else "")
    path = error.ctx.command_path if error.ctx else "bench"
    return f"{what[:1].lower()}{what[1:].removesuffix('.')} ({path} --help)"


def _near(name: str, context: click.Context | None) -> list[str]:
    """Options that begin so, or are spelled nearly so."""
    options = [text for p in (context.command.params if context else ()) for text in p.opts if text.startswith("--")]
    return [text for text in options if text.startswith(name)] or difflib.get_close_matches(name, options, n=2)
