"""A unit of systemd, as its administrator sees it.

Facts: systemctl talks to systemd and returns when a job is done, but an exit that nobody asked for has no job to wait
for. Consequence: what is to come by itself is looked for until it is there, with a deadline.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

from tests.systemd.lab import run, wait_until

UNITS: Final = Path('/etc/systemd/system')

CGROUPS: Final = Path('/sys/fs/cgroup')


class Unit:
    """A service; `name` is without `.service`."""

    def __init__(self, name: str) -> None:
        self.name = f'{name}.service'
        self.file = UNITS / self.name
        self.drop_ins = UNITS / f'{self.name}.d'
        # another test may have had a unit of this name
        self.since = f'--since=@{time.time():.6f}'

    def install(self, text: str) -> None:
        self.file.write_text(text)
        run('systemctl', 'daemon-reload')

    def add(self, text: str) -> None:
        """Add a drop-in to the unit."""
        self.drop_ins.mkdir(exist_ok=True)
        (self.drop_ins / f'{len(list(self.drop_ins.iterdir()))}.conf').write_text(text)
        run('systemctl', 'daemon-reload')

    def systemctl(self, verb: str, *options: str) -> str:
        return run('systemctl', verb, *options, self.name)

    def start(self) -> None:
        run('systemctl', 'start', self.name, told=self.told)

    def stop(self) -> None:
        self.systemctl('stop')

    def kill(self, name: str) -> None:
        """Signal the main process alone."""
        self.systemctl('kill', '--kill-whom=main', f'--signal={name}')

    def show(self, name: str) -> str:
        return self.systemctl('show', '--value', f'--property={name}').strip()

    def main_pid(self) -> int:
        return int(self.show('MainPID'))

    def cgroup(self) -> Path | None:
        """Return the folder of its cgroup; None when it has none."""
        path = self.show('ControlGroup')
        return CGROUPS / path[1:] if path else None

    def cgroup_of(self, pid: int) -> Path:
        """Return the folder of the cgroup of a process."""
        line = next(line for line in Path(f'/proc/{pid}/cgroup').read_text().splitlines() if line.startswith('0::'))
        return CGROUPS / line[4:]

    def journal(self) -> list[str]:
        """Return what its processes have logged since this object is there."""
        run('journalctl', '--sync')
        only = ['--quiet', '--output=cat', self.since, f'_SYSTEMD_UNIT={self.name}']
        return run('journalctl', *only).splitlines()

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return the records of one event, for a pool with --log-format=json."""
        lines = [json.loads(line) for line in self.journal() if line.startswith('{')]
        return [line for line in lines if line.get('event') == event]

    def wait_for(self, name: str, value: str) -> None:
        """Wait until a property of the unit has a value."""
        wait_until(lambda: self.show(name) == value, f'{name}={value} of {self.name}', self.told)

    def told(self) -> str:
        """Return what there is to know when something did not come."""
        return run('systemctl', 'status', '--no-pager', self.name, check=False) + '\n'.join(self.journal())

    def remove(self) -> None:
        """Stop it, and put away what was installed."""
        run('systemctl', 'stop', self.name, check=False)
        run('systemctl', 'reset-failed', self.name, check=False)
        for file in [*self.drop_ins.glob('*'), self.file]:
            file.unlink(missing_ok=True)
        if self.drop_ins.is_dir():
            self.drop_ins.rmdir()
        run('systemctl', 'daemon-reload')
