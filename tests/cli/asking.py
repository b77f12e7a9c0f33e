"""Ask the doctor, started by the command line in circumstances of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sergeant_linux.kernel.cgroup import Cgroup

REPOSITORY: Final = Path(__file__).parents[2]
MAIN: Final = 'from sergeant_linux.cli.main import main; main()'

Start = Sequence[str]
"""A command that starts the command that follows it."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the doctor has said with --json."""

    status: int
    data: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """Return a check by its name."""
        return next(check for check in self.data['checks'] if check['name'] == name)

    def failures(self) -> list[str]:
        return [check['name'] for check in self.data['checks'] if check['verdict'] == 'fail']


def ask(*options: str, start: Start = (), python: str = sys.executable, **environ: str) -> Told:
    done = say('--json', *options, start=start, python=python, **environ)
    assert done.stderr == ''
    return Told(done.returncode, json.loads(done.stdout))


def say(
    *options: str, start: Start = (), python: str = sys.executable, **environ: str
) -> subprocess.CompletedProcess[str]:
    command, env = [*start, python, '-c', MAIN, 'doctor', *options], surroundings(environ)
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60)


def surroundings(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith('SERGEANT_LINUX_')}
    return {**kept, 'PYTHONPATH': str(REPOSITORY), 'PYTHONDONTWRITEBYTECODE': '1', **environ}


def inside(cgroup: Cgroup, *more: str) -> Start:
    """Start in this cgroup."""
    return ['sh', '-ec', f'echo $$ > "{cgroup.path}/cgroup.procs"; exec "$@"', 'sh', *more]


def run(
    folder: Path, *options: str, start: Start = (), python: str = sys.executable
) -> tuple[int, dict[str, Any]]:
    """Run a pool that stops by itself as soon as it has a worker; return its exit status and its `backend` record."""
    (folder / 'five.py').write_text('def worker():\n    raise SystemExit(5)  # asks the pool to stop\n')
    command = [*start, python, '-c', MAIN, 'run', '--worker-module=five', '--worker-class=worker']
    command += ['--concurrent-workers=1', '--log-format=json', *options]
    done = subprocess.run(command, cwd=folder, env=surroundings({}), capture_output=True, text=True, timeout=60)
    records = [json.loads(line) for line in done.stderr.splitlines()]
    return done.returncode, next((record for record in records if record['event'] == 'backend'), {})
