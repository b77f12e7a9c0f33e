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


@contextmanager
def housed(
    home: Cgroup, folder: Path, worker: str | None, *, starts_inside: bool = True, **flags: Any
) -> Iterator[Pool]:
    """Run a pool, all of whose processes are in `home` and whose leaves are made there.

    A flag that is None isn't given.
    """
    inside = (
        'import os, sys; os.write(os.open(sys.argv.pop(1), os.O_WRONLY), b"0"); '
        'import sergeant_linux.supervisor; sergeant_linux.supervisor.main()'
    )
    flags = {'memory_backend': 'cgroup', 'cgroup_root': str(home.path), 'max_worker_memory_usage': LIMIT, **flags}
    if starts_inside:
        flags['command'] = ['-c', inside, str(home.path / 'cgroup.procs')]
    with pool(folder, worker, **{name: value for name, value in flags.items() if value is not None}) as running:
        yield running


def leaves(home: Cgroup) -> list[Path]:
    """Return the cgroups of pools below `home`."""
    return [Path(path) for path, _, _ in os.walk(home.path) if 'sergeant-' in path]
