"""Lowers the memory limit of workers that run, in a process of its own.

Facts: a write to memory.max that is below what a cgroup has makes the writer give back pages, and at last kill for
them, before the write returns; that takes as long as it takes (cgroup v2 documentation, "memory.max").
Consequence: the loop writes a limit itself only where there is room below it; the others are written here, one after
the other, and nobody waits for that. Another change ends the one that goes on.
"""

import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from sergeant_linux.kernel import prctl, proctitle, spawn
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.kernel.poller import Handler, Poller

MODULE: Final = 'sergeant_linux.helpers.limiter'

PATIENCE: Final = 1.0
"""Seconds that a killed one may take to be gone: it may be in the middle of a write."""


class Limiter:
    """The supervisor's side: at most one such process at a time, in `process`."""

    def __init__(self, poller: Poller[Handler], environ: Mapping[str, str]) -> None:
        self._poller = poller
        self._environ = environ
        self.process: PidRef | None = None

    def lower(self, files: Mapping[str, str]) -> None:
        """Write each value to its file. Raises OSError when no process can be made."""
        self.close()
        self.process = spawn.launch(MODULE, [json.dumps(dict(files))], [], self._environ)
        self._poller.register(self.process, self._on_exit)

    def _on_exit(self, events: int) -> None:
        if self.process is not None and self.process.exited():
            self._forget(self.process)

    def _forget(self, process: PidRef) -> None:
        with suppress(ChildProcessError):
            process.reap()
        self._poller.unregister(process)
        process.close()
        self.process = None

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self.process.exited(PATIENCE)
            self._forget(self.process)


def main(arguments: list[str]) -> None:
    """The process itself."""
    prctl.set_pdeathsig(signal.SIGKILL)
    spawn.adopt_fds(0)
    proctitle.set_title('sergeant-linux: limiter')
    prctl.set_name('sergeant-linux')
    for path, value in json.loads(arguments[0]).items():
        with suppress(OSError), open(path, 'w', encoding='ascii') as file:  # its worker may be gone
            file.write(value)
