"""The template unit: many pools, each in a file of its own; and what systemd does not start again."""

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.systemd.lab import USER, run
from tests.systemd.unit import UNITS, Unit

pytestmark = pytest.mark.timeout(600)

FILES: Final = Path('/etc/sergeant-linux')

FOLDER: Final = Path('/srv/many')

WORKER: Final = """
    import time

    class Worker:
        def run(self):
            time.sleep(1000)
"""


class Pools:
    """The instances of the template that a test has made."""

    def __init__(self) -> None:
        self._made: list[Unit] = []

    def make(self, name: str, **options: object) -> Unit:
        """Write the file of a pool, with the options it has beside those that all have here."""
        options = {'WORKER_MODULE': 'many_worker', 'WORKER_CLASS': 'Worker', 'CONCURRENT_WORKERS': 1, **options}
        lines = (f'SERGEANT_LINUX_{option}={value}\n' for option, value in options.items())
        (FILES / f'{name}.env').write_text(''.join(lines))
        self._made.append(Unit(f'sergeant-linux@{name}'))
        return self._made[-1]

    def remove(self) -> None:
        for unit in self._made:
            unit.remove()


@pytest.fixture
def pools(machine: None) -> Iterator[Pools]:
    """The template that `sergeant-linux unit` installs, for workers in a folder of the user's."""
    FOLDER.mkdir()
    FILES.mkdir()
    (FOLDER / 'many_worker.py').write_text(textwrap.dedent(WORKER))
    run('sergeant-linux', 'unit', '--template', f'--user={USER}', '--install', cwd=FOLDER)
    pools = Pools()
    yield pools
    pools.remove()
    (UNITS / 'sergeant-linux@.service').unlink()
    shutil.rmtree(FILES)
    shutil.rmtree(FOLDER)


def test_the_pools_of_a_template_are_known_by_their_names_and_each_stops_alone(pools: Pools) -> None:
    one, two = pools.make('one'), pools.make('two', CONCURRENT_WORKERS=2)
    run('systemctl', 'start', one.name, two.name, told=one.told)

    listed = [line.split()[:2] for line in run('sergeant-linux', 'ps').splitlines()[1:]]
    assert listed == [['one', str(one.main_pid())], ['two', str(two.main_pid())]]
    assert 'of 2 ready' in run('sergeant-linux', 'status', '--name=two')

    one.stop()

    assert (one.show('ActiveState'), two.show('ActiveState')) == ('inactive', 'active')
    assert 'of 2 ready' in run('sergeant-linux', 'status')  # the only one that is left


def test_wrong_usage_and_a_host_that_can_not_are_not_started_again(pools: Pools) -> None:
    wrong = pools.make('wrong', CONCURRENT_WORKERS='many')
    bare = pools.make('bare', MEMORY_BACKEND='cgroup')
    bare.add('[Service]\nDelegate=no\n')

    for unit, status, reason in (wrong, '2', "'many'"), (bare, '4', 'not delegated'):
        unit.systemctl('start', check=False)

        # before another start it would be `activating`
        said = unit.shows('ActiveState', 'Result', 'ExecMainStatus', 'NRestarts')
        assert said == ('failed', 'exit-code', status, '0'), unit.told()
        assert reason in ' '.join(unit.journal())
