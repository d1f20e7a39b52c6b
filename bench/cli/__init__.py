"""The command line `bench`: a file per command, imported when its name is typed."""

from .entry import COMMANDS, main, parse

__all__ = ["COMMANDS", "main", "parse"]
