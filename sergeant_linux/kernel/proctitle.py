"""What ps(1) and /proc/PID/environ show of this process, overwritten in place.

Facts: the kernel keeps no copy of a program's arguments and environment: /proc/PID/cmdline and environ are read from
the process's own stack, at addresses that /proc/self/stat gives (fields 48-51 of proc(5), since Linux 3.5). A process
that only forked shows its parent's. If the last byte of the argument area isn't NUL, the kernel takes it as overwritten
and shows the text up to the first NUL; else it shows the whole area, NULs and all. setproctitle (PyPI) makes room for
long titles by writing on into the environment area.
Consequence: a title is what fits where the arguments were. A forked worker carries its own marks in its environment
only if there was an entry of that name to overwrite.
Decision: whoever starts the process that forks gives it long arguments and placeholders; the forked ones write theirs
over them. The environment area is left whole, because stragglers are found by what stands there; that is why
setproctitle isn't used.
Price: writing to memory by address, through ctypes. Both areas are never freed and never move; Python has copied its
arguments and environment from them before any Python code runs (sys.argv, os.environ), while libc's environ still
points into the area: in-place entries keep it right.
"""

import os
import re
from typing import NamedTuple


class _Area(NamedTuple):
    """A stretch of this process's memory, from `start` up to `end`."""

    start: int
    end: int


def set_title(text: str) -> None:
    """Show `text` as this process's command line. It is cut to the length of the original arguments less two bytes."""
    import ctypes  # here and not on top: 2 ms that only those pay who write

    area, _ = _areas()
    room = area.end - area.start - 2
    if room < 1:
        return
    title = text.partition('\0')[0].encode('utf-8', 'replace')[:room].decode('utf-8', 'ignore').encode()
    blank = bytes(room - len(title) + 1)
    ctypes.memmove(area.start, title + blank + b'.', room + 2)  # the last byte isn't NUL: see the facts


def set_environ_entry(key: str, value: str) -> bool:
    """Make /proc/PID/environ of this process, and of those it forks from now on, show KEY=value for the KEY it has.

    False when there is no entry of that name, or the value is longer than the first one was. os.environ is not changed.
    Raises ValueError for a key or a value that can't stand in an environment.
    """
    import ctypes  # here and not on top: 2 ms that only those pay who write

    if not key or '=' in key or '\0' in key or '\0' in value:
        raise ValueError(f'{key!r}={value!r} cannot stand in an environment')
    _, area = _areas()
    data = ctypes.string_at(area.start, area.end - area.start)
    name = re.escape(os.fsencode(key))
    found = re.search(rb'(?:\A|\0)' + name + rb'=([^\0]*\0*)\0', data)  # the value, and NULs up to the next entry
    new = os.fsencode(value)
    if found is None or len(new) > len(found[1]):
        return False
    ctypes.memmove(area.start + found.start(1), new.ljust(len(found[1]), b'\0'), len(found[1]))
    return True


def _areas() -> tuple[_Area, _Area]:
    """Return where the arguments and the environment lie. A process may always see its own."""
    with open('/proc/self/stat', 'rb') as file:
        fields = file.read().rpartition(b') ')[2].split()  # fields[0] is the one that proc(5) counts as (3)
    arg_start, arg_end, env_start, env_end = (int(field) for field in fields[45:49])
    return _Area(arg_start, arg_end), _Area(env_start, env_end)
