"""An argument parser that says in one line what is wrong, and what every verb's help has in common."""

import argparse
import sys
from typing import Any, Final, NoReturn

USAGE_ERROR: Final = 2
"""Exit status for wrong usage or a bad value."""


class Parser(argparse.ArgumentParser):
    """Wrong usage is one line on stderr and exit status 2; an option is not abbreviated: a later one could make it
    ambiguous."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, self.line('error', message))

    def warn(self, message: str) -> None:
        self._print_message(self.line('warning', message), sys.stderr)

    def line(self, level: str, message: str) -> str:
        """Return the one line in which something is said to whoever has called us."""
        return f'{self.prog}: {level}: {" ".join(message.splitlines())}\n'
