"""A pool in a home of its own: all its processes and all its cgroups below one that was made for the test.

So all that a pool makes can be seen, and nothing else is changed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.lab.conftest import Cgroup
from tests.scenarios.pool import Pool, pool

WITHIN: Final = 120.0
"""Seconds for what comes at once, on the slow kernel of the lab, beside all else that the machine does."""

LIMIT: Final = 64 << 20

TAKE: Final = '''
    import mmap, os, time

    def take(size):
        """Take so many bytes of memory at once: to touch 10 MiB page by page takes half a second in the lab."""
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)

    def eat():
        """Take 10 MiB each 10 ms."""
        kept = []
        while True:
            kept.append(take(10 << 20))
            time.sleep(0.01)
'''
"""For the source of a worker."""


INSIDE: Final = """
import os, sys

def join(cgroup):
    os.write(os.open(cgroup + '/cgroup.procs', os.O_WRONLY | os.O_CLOEXEC), b'0')

home = sys.argv.pop(1)
try:
    join(home)
except OSError:  # EBUSY: a neighbour has enabled controllers there, and made room
    join(home + '/supervisor')

from sergeant_linux.supervisor import main
main()
"""


@contextmanager
def housed(
    home: Cgroup, folder: Path, worker: str | None, *, starts_inside: bool = True, light: bool = False, **flags: Any
) -> Iterator[Pool]:
    """Run a pool, all of whose processes are in `home` and whose leaves are made there.

    A flag that is None isn't given. light: the fork server finds an empty module sergeant to preload; a fork of the
    real one takes half as long again in the lab.
    """
    if light:
        (folder / 'sergeant.py').touch()
    flags = {'memory_backend': 'cgroup', 'cgroup_root': str(home.path), 'max_worker_memory_usage': LIMIT, **flags}
    if starts_inside:
        flags['command'] = ['-c', INSIDE, str(home.path)]
    with pool(folder, worker, **{name: value for name, value in flags.items() if value is not None}) as running:
        yield running


def leaves(home: Cgroup) -> list[Path]:
    """Return the cgroups of pools below `home`."""
    return [Path(path) for path, _, _ in os.walk(home.path) if 'sergeant-' in path]
