"""A unit of systemd, as its administrator sees it.

Facts: systemctl talks to systemd and returns when a job is done, but an exit that nobody asked for has no job to wait
for. Consequence: what is to come by itself is looked for until it is there, with a deadline. A daemon-reload takes
seconds in the lab, and systemd itself says when it needs one: not for a unit that it has not seen yet.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

from tests.systemd.lab import as_user, run, wait_until

UNITS: Final = Path('/etc/systemd/system')

CGROUPS: Final = Path('/sys/fs/cgroup')


class Unit:
    """A service; `name` is without `.service`. `of_user`: of the manager of the lab's user."""

    def __init__(self, name: str, *, of_user: bool = False) -> None:
        self.name = f'{name}.service'
        self.file = UNITS / self.name
        self.drop_ins = UNITS / f'{self.name}.d'
        self._systemctl = as_user('systemctl', '--user') if of_user else ['systemctl']
        self._field = '_SYSTEMD_USER_UNIT' if of_user else '_SYSTEMD_UNIT'
        # another test may have had a unit of this name
        run('journalctl', '--sync')
        self.since = f'--since=@{time.time():.6f}'

    def install(self, text: str) -> None:
        self.file.write_text(text)
        self._reload_if_needed()

    def add(self, text: str) -> None:
        """Add a drop-in to the unit."""
        self.drop_ins.mkdir(exist_ok=True)
        (self.drop_ins / f'{len(list(self.drop_ins.iterdir()))}.conf').write_text(text)
        self._reload_if_needed()

    def _reload_if_needed(self) -> None:
        if self.show('NeedDaemonReload') != 'no':
            run('systemctl', 'daemon-reload')

    def systemctl(self, verb: str, *options: str, check: bool = True) -> str:
        return run(*self._systemctl, verb, *options, self.name, check=check, told=self.told)

    def start(self) -> None:
        self.systemctl('start')

    def begin(self) -> None:
        """Begin to start it, and don't wait until it is active."""
        self.systemctl('start', '--no-block')

    def stop(self) -> None:
        self.systemctl('stop')

    def kill(self, name: str) -> None:
        """Signal the main process alone."""
        self.systemctl('kill', '--kill-whom=main', f'--signal={name}')

    def show(self, name: str) -> str:
        return run(*self._systemctl, 'show', '--value', f'--property={name}', self.name).strip()

    def shows(self, *names: str) -> tuple[str, ...]:
        """Return several properties, all of the same moment."""
        said = dict(
            line.split('=', 1) for line in run(*self._systemctl, 'show', f'--property={",".join(names)}', self.name).splitlines()
        )  # fmt: skip
        return tuple(said[name] for name in names)

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
        return self._journal(f'{self._field}={self.name}')

    def entries(self, *matches: str) -> list[dict[str, str]]:
        """Return its processes' entries that match, since this object is there, each with all of its fields."""
        return [json.loads(line) for line in self._journal(f'{self._field}={self.name}', *matches, output='json')]

    def of_systemd(self) -> list[str]:
        """Return what systemd has logged of it since this object is there."""
        return self._journal('_PID=1', f'UNIT={self.name}')

    def _journal(self, *fields: str, output: str = 'cat') -> list[str]:
        run('journalctl', '--sync')
        # not --after-cursor=: among what matches, systemd 252 leaves out the first after it, too
        return run('journalctl', '--quiet', f'--output={output}', self.since, *fields).splitlines()

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return the records of one event, for a pool with --log-format=json."""
        lines = [json.loads(line) for line in self.journal() if line.startswith('{')]
        return [line for line in lines if line.get('event') == event]

    def wait_for(self, name: str, value: str) -> None:
        """Wait until a property of the unit has a value."""
        wait_until(lambda: self.show(name) == value, f'{name}={value} of {self.name}', self.told)

    def told(self) -> str:
        """Return what there is to know when something did not come."""
        status = run(*self._systemctl, 'status', '--no-pager', self.name, check=False)
        return status + '\n'.join([*self.of_systemd(), *self.journal()])

    def remove(self) -> None:
        """Stop it, and put away what was installed."""
        run('systemctl', 'stop', self.name, check=False)
        run('systemctl', 'reset-failed', self.name, check=False)
        for file in [*self.drop_ins.glob('*'), self.file]:
            file.unlink(missing_ok=True)
        if self.drop_ins.is_dir():
            self.drop_ins.rmdir()
