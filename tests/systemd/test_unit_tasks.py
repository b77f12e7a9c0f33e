"""Real sergeant workers in a unit, as `sergeant-linux unit` writes it: when it is active, a reload, a stop."""

from collections.abc import Callable, Iterator

import pytest

from tests.systemd.crawl import Crawl
from tests.systemd.lab import wait_until
from tests.systemd.unit import Unit

pytestmark = pytest.mark.timeout(600)

Install = Callable[[str, str], Unit]


@pytest.fixture
def crawl(machine: None) -> Iterator[Crawl]:
    """The folder of the pool; it is there longer than the unit."""
    crawl = Crawl()
    yield crawl
    crawl.remove()


def wait_for_status(unit: Unit, text: str) -> None:
    wait_until(lambda: text in unit.show('StatusText'), f'a status with {text!r}', unit.told)


def test_a_unit_is_active_when_its_broker_and_its_first_worker_are_there(crawl: Crawl, install: Install) -> None:
    unit = install('crawl', crawl.text())
    unit.add('[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=1\n')
    crawl.hold()

    unit.begin()

    # no broker: the module can't be imported, which may heal
    wait_until(lambda: int(unit.show('NRestarts')) >= 1, 'another start', unit.told)
    assert 'crawl.service: Main process exited, code=exited, status=1/FAILURE' in unit.of_systemd()
    with crawl.broker():
        wait_for_status(unit, 'starting: 0 of 2 workers are ready')
        assert unit.show('ActiveState') == 'activating'

        crawl.release()

        unit.wait_for('ActiveState', 'active')
        wait_for_status(unit, '2 of 2 workers are ready')
        assert 'Status: "2 of 2 workers are ready; memory by cgroup' in unit.systemctl('status', '--no-pager')


def test_a_reload_rolls_to_new_code_and_one_that_is_broken_changes_nothing(crawl: Crawl, install: Install) -> None:
    unit = install('crawl', crawl.text())
    with crawl.broker() as queue:
        unit.start()
        before, supervisor = crawl.workers(), unit.main_pid()
        queue.push(1)
        crawl.wait_for('begun', 1)
        crawl.write('two')
        crawl.hold()

        unit.systemctl('reload', '--no-block')  # with systemd 253 and newer it would wait for the end of the reload

        unit.wait_for('ActiveState', 'reloading')
        wait_for_status(unit, 'reloading (generation 2, canary')
        crawl.release()
        wait_for_status(unit, 'reloading (generation 2, rolling')
        assert unit.show('ActiveState') == 'reloading'  # as long as the old code is in a task
        crawl.permit(1, 2)
        unit.wait_for('ActiveState', 'active')
        after = crawl.workers()
        assert not set(before) & set(after)
        queue.push(2)
        old, new = crawl.wait_for('done', 2)
        assert (old.task, old.pid in before, old.code) == (1, True, 'one')
        assert (new.task, new.pid in after, new.code) == (2, True, 'two')

        crawl.write_source('import nothing_like_this')
        unit.systemctl('reload', '--no-block')

        wait_for_status(unit, 'the last reload has failed: ')
        unit.wait_for('ActiveState', 'active')
        assert crawl.workers() == after
        assert (unit.show('Result'), unit.show('NRestarts'), unit.main_pid()) == ('success', '0', supervisor)


def test_a_stop_loses_no_task_and_may_take_longer_than_systemd_would_wait(crawl: Crawl, install: Install) -> None:
    unit = install('crawl', crawl.text('--timeout-stop=16s'))
    unit.add('[Service]\nTimeoutStopSec=3\n')
    with crawl.broker() as queue:
        queue.push(*range(6))
        unit.start()
        finishes, goes_on = (note.task for note in crawl.wait_for('begun', 2))

        unit.systemctl('stop', '--no-block')

        wait_for_status(unit, 'stopping: 2 workers are still there')
        crawl.permit(finishes)
        # the other one is interrupted when half of --timeout-stop is over
        unit.wait_for('ActiveState', 'inactive')
        assert unit.shows('Result', 'ExecMainStatus') == ('success', '0'), unit.told()
        assert [note.task for note in crawl.diary('done')] == [finishes]
        assert [note.task for note in crawl.diary('begun')] == [finishes, goes_on]
        assert sorted(queue.take_all()) == sorted(set(range(6)) - {finishes})
