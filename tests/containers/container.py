"""A container whose first process is a pool: run by podman, with the checkout mounted where it is.

Facts: in the container the pids are other ones than out here; /proc/PID/status tells both. What a container's process
says, podman keeps. A container's processes are in a cgroup below the one of its first process, whatever they do.
"""

import json
import subprocess
import textwrap
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.systemd.lab import CHECKOUT, DEADLINE, PYTHON, run, wait_until


class Container:
    """Running from the start; `folder` holds the worker's module and is the working folder inside."""

    def __init__(self, folder: Path, options: Sequence[str], worker: str, flags: Sequence[str]) -> None:
        self.name = f'pool-{uuid.uuid4().hex[:8]}'
        self.folder = folder
        (folder / 'workers.py').write_text(textwrap.dedent(worker))
        run(
            'podman', 'run', '--detach', f'--name={self.name}', '--network=none', f'--volume={CHECKOUT}:{CHECKOUT}:ro',
            f'--volume={folder}:{folder}', f'--workdir={folder}', f'--env=PYTHONPATH={CHECKOUT}', *options,
            'lab-base', PYTHON, '-m', 'sergeant_linux.supervisor', '--worker-module=workers', '--worker-class=Worker',
            '--log-format=json', '--log-level=debug', *flags,
        )  # fmt: skip

    def logs(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Return what the workers have printed, and the supervisor's records."""
        done = subprocess.run(['podman', 'logs', self.name], capture_output=True, text=True, timeout=DEADLINE, check=True)
        return done.stdout.splitlines(), [json.loads(line) for line in done.stderr.splitlines()]

    def records(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.logs()[1] if record.get('event') == event]

    def wait_for(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until that many records of an event are there."""

        def look() -> list[dict[str, Any]] | None:
            found = self.records(event)
            return found if len(found) >= count else None

        return wait_until(look, f'{count} × {event}', lambda: str(self.logs()))

    def inspect(self, format: str) -> str:
        return run('podman', 'inspect', f'--format={format}', self.name).strip()

    def exec(self, *command: str) -> str:
        return run('podman', 'exec', self.name, *command)

    def stop(self) -> None:
        """As people stop it: SIGTERM, and SIGKILL after ten seconds."""
        run('podman', 'stop', '--time=10', self.name)

    def first(self) -> int:
        """Return the pid, out here, of its first process."""
        return int(self.inspect('{{.State.Pid}}'))

    def states(self) -> dict[int, str]:
        """Return the state of each of its processes (proc(5)) by its pid in the container."""
        namespace = Path(f'/proc/{self.first()}/ns/pid').readlink()
        found = {}
        for process in Path('/proc').iterdir():
            try:
                if process.name.isdigit() and (process / 'ns/pid').readlink() == namespace:
                    status = dict(line.split(':\t', 1) for line in (process / 'status').read_text().splitlines())
                    found[int(status['NSpid'].split()[-1])] = status['State'][0]
            except OSError:  # it has just ended
                continue
        return found

    def remove(self) -> None:
        run('podman', 'rm', '--force', '--time=0', '--ignore', self.name)
