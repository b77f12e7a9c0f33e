"""The exit statuses of a supervisor, each in one place: the README's table is this one.

1 to 4 are sergeant's habit and ours; the rest are those of sysexits.h.
"""

from typing import Final

STOPPED: Final = 0
"""Stopped as asked."""

CANT_LOAD: Final = 1
"""The workers can't be loaded."""

USAGE: Final = 2
"""Wrong usage or a bad value."""

BUDGET_SPENT: Final = 3
"""The restart budget is spent."""

HOST_CANT: Final = 4
"""The host can't do what was asked for."""

TRY_AGAIN: Final = 75
"""The host could not do it now: no process, no memory, no time. It may another time (EX_TEMPFAIL)."""

INTERNAL_ERROR: Final = 70
"""An error of our own (EX_SOFTWARE)."""
