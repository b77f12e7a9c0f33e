"""An argument parser that says in one line what is wrong, and what every verb's help has in common."""

import argparse
import os
import sys
from typing import Any, Final, NoReturn

USAGE_ERROR: Final = 2
"""Exit status for wrong usage or a bad value."""


class Parser(argparse.ArgumentParser):
    """Wrong usage is one line on stderr and exit status 2; an option is not abbreviated: a later one could make it
    ambiguous."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told, formatter_class=_Help, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, self.line('error', message))

    def warn(self, message: str) -> None:
        self._print_message(self.line('warning', message), sys.stderr)

    def line(self, level: str, message: str) -> str:
        """Return the one line in which something is said to whoever has called us."""
        return f'{self.prog}: {level}: {" ".join(message.splitlines())}\n'


class _Help(argparse.RawDescriptionHelpFormatter):
    """Knows its width by itself. argparse makes one for each option that it is told of, help or not, and imports shutil
    for that, which takes longer than all the rest of it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """Return what shutil.get_terminal_size() does."""
    columns = os.environ.get('COLUMNS', '')
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:  # it is closed, or no terminal
        return 80
