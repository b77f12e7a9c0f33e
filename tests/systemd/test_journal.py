"""The journal, as who looks into it in the morning: entries with fields, explanations, and a log that blocks nobody."""

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.control.client import Client
from sergeant_linux.log import catalog
from tests.systemd.lab import USER, run, wait_until
from tests.systemd.unit import Unit

pytestmark = pytest.mark.timeout(600)

WORKER: Final = '''
    import os, time

    class Worker:
        """Says that it is there; ends with 9 where a file `fail` is, which it takes away. Where a file `chat` is it
        prints, and ends with 0."""

        def run(self):
            print('a worker prints', flush=True)
            while True:
                if os.path.exists('chat'):
                    lines = int(open('chat').read())
                    os.unlink('chat')
                    for number in range(lines):
                        print('line', number)
                    return
                try:
                    os.unlink('fail')
                except FileNotFoundError:
                    time.sleep(0.05)
                else:
                    raise SystemExit(9)
'''

MANY: Final = 700
"""Entries; more than the journal's socket holds (net.unix.max_dgram_qlen, which systemd sets to 512)."""

CHATTER: Final = 1000
"""Lines."""

JOURNALD_CONF: Final = Path('/etc/systemd/journald.conf.d/strict.conf')

WORKER_EXIT: Final = catalog.MESSAGES['worker-exit'].id


class Pool(Unit):
    """The unit of a pool of one worker."""

    folder = Path('/srv/told')

    def wait_for_entry(self, *matches: str) -> dict[str, str]:
        return wait_until(lambda: self.entries(*matches), f'an entry {matches}', self.told)[0]


@pytest.fixture
def pool(machine: None) -> Iterator[Pool]:
    """It, as `sergeant-linux unit --install` installs it."""
    folder = Pool.folder
    folder.mkdir()
    (folder / 'told.py').write_text(textwrap.dedent(WORKER))
    shutil.chown(folder, USER, USER)
    unit = Pool('told')
    run(
        'sergeant-linux', 'unit', '--install', '--worker-module=told', '--worker-class=Worker', '--concurrent-workers=1',
        '--name=told', f'--user={USER}', f'--writable={folder}', cwd=folder,
    )  # fmt: skip
    run('systemctl', 'daemon-reload')
    yield unit
    unit.remove()
    Path(catalog.FILE).unlink()
    shutil.rmtree(folder)


def test_entries_have_fields_and_their_explanation_and_what_workers_print_is_beside_them(pool: Pool) -> None:
    pool.start()
    pid = pool.main_pid()
    (pool.folder / 'fail').touch()

    end = pool.wait_for_entry('SERGEANT_EVENT=worker-exit')

    wanted = {
        'PRIORITY': '2', 'MESSAGE_ID': WORKER_EXIT, 'SERGEANT_SLOT': '0', 'SERGEANT_RESULT': 'exit-code',
        'SERGEANT_RETURN_CODE': '9', 'SERGEANT_WORKER_MODULE_NAME': 'told', 'SYSLOG_IDENTIFIER': 'told',
        '_PID': str(pid), '_TRANSPORT': 'journal', '_SYSTEMD_UNIT': 'told.service',
    }  # fmt: skip
    assert {name: end.get(name) for name in wanted} == wanted
    assert re.fullmatch('worker\\([0-9]+\\) execution has been interrupted with return code: 9', end['MESSAGE'])
    [printed, *_] = pool.entries('MESSAGE=a worker prints')
    assert (printed['SYSLOG_IDENTIFIER'], printed['_TRANSPORT']) == ('told', 'stdout')
    assert pool.entries('_TRANSPORT=stdout', f'_PID={pid}') == []
    explained = run('journalctl', '--catalog', '--quiet', pool.since, f'MESSAGE_ID={WORKER_EXIT}')
    assert 'A worker has ended: exit-code' in explained
    assert f'Process {end["SERGEANT_PID"]}, a worker of told.Worker in slot 0, has ended.' in explained


def test_a_journal_that_hangs_makes_nobody_wait_and_is_told_all_later(pool: Pool) -> None:
    pool.start()
    journal = run('systemctl', 'show', '--value', '--property=MainPID', 'systemd-journald.service').strip()
    run('kill', '-STOP', journal)
    try:
        with Client.find('told') as client:
            for number in range(MANY):
                client.call('set', key='timeout_stop', value=f'{number % 2 + 1}s')
        (pool.folder / 'fail').touch()
        wait_until(lambda: not (pool.folder / 'fail').exists(), 'a worker that works', str)
    finally:
        run('kill', '-CONT', journal)

    pool.wait_for_entry('SERGEANT_RETURN_CODE=9')
    assert len(pool.entries('SERGEANT_EVENT=policy')) == MANY


@pytest.fixture
def strict_journal(machine: None) -> Iterator[None]:
    """A journal that takes ten lines from a unit, times four for the room on the disk, and then none for an hour."""
    JOURNALD_CONF.parent.mkdir(exist_ok=True)
    JOURNALD_CONF.write_text('[Journal]\nRateLimitIntervalSec=1h\nRateLimitBurst=10\n')
    run('systemctl', 'restart', 'systemd-journald')
    yield
    JOURNALD_CONF.unlink()
    run('systemctl', 'restart', 'systemd-journald')


def test_a_worker_that_prints_much_hides_no_record_of_the_log(strict_journal: None, pool: Pool) -> None:
    pool.start()
    (pool.folder / 'chat').write_text(str(CHATTER))

    end = pool.wait_for_entry('SERGEANT_EVENT=worker-exit')

    assert end['SERGEANT_RETURN_CODE'] == '0'
    assert pool.entries(f'MESSAGE=line {CHATTER - 1}') != []
    assert pool.entries('SERGEANT_EVENT=log-limited') == []


def test_a_unit_whose_records_may_be_dropped_says_so_at_its_start(pool: Pool) -> None:
    pool.add('[Service]\nLogRateLimitIntervalSec=\nLogRateLimitBurst=0\nLogRateLimitIntervalSec=0\n')

    pool.start()

    [warning] = pool.entries('SERGEANT_EVENT=log-limited')
    assert 'LogRateLimitBurst=10000 in told.service' in warning['MESSAGE']


def test_what_new_workers_print_reaches_a_journal_that_was_stopped_and_came_back(pool: Pool) -> None:
    pool.start()
    wait_until(lambda: len(pool.entries('MESSAGE=a worker prints')) == 1, 'a worker that prints', pool.told)
    run('systemctl', 'stop', 'systemd-journald.service')
    run('systemctl', 'start', 'systemd-journald.service')  # its sockets would, but who asks for entries can't wait

    (pool.folder / 'fail').touch()

    wait_until(lambda: len(pool.entries('MESSAGE=a worker prints')) == 2, 'another one that prints', pool.told)
    assert len(pool.entries('SERGEANT_EVENT=worker-exit')) == 1
