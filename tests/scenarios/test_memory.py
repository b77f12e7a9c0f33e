"""The memory of workers: what is over its limit is killed and replaced, what is over its mark is succeeded, and nobody looks in vain.

A worker of these tests takes what memory it is told to, and writes to every page of it, because only that makes it resident.
"""

import os
import re
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.core.memory import MARK_MIN_LIFE
from sergeant_linux.kernel import procfs
from tests.scenarios.pool import Pool, kill, pool, wait_until
from tests.worker.queues import Queue

MIB: Final = 1 << 20

TAKE: Final = '''
    import os, subprocess, sys, time

    def take(size):
        """Return so many bytes of resident memory."""
        taken = bytearray(size)
        for start in range(0, size, 4096):
            taken[start] = 1
        return taken

    def resident():
        with open('/proc/self/statm') as statm:
            return int(statm.read().split()[1]) * 4096

    LIFE = os.environ['SERGEANT_WORKER_LIFE']
'''

HOG: Final = (
    TAKE
    + '''
    class Worker:
        """The first life takes 100 MiB when it is told to; each later one only waits."""

        def run(self):
            if LIFE == '1':
                open('cue').read()
                taken = take(100 << 20)
            time.sleep(1000)
'''
)


@pytest.fixture
def cue(tmp_path: Path) -> Path:
    """What a worker waits for: a pipe that somebody writes to."""
    path = tmp_path / 'cue'
    os.mkfifo(path)
    return path


@pytest.mark.parametrize('measure', ['rss', 'pss', 'uss', 'tree'])
def test_a_worker_over_its_limit_is_killed_and_replaced(tmp_path: Path, cue: Path, measure: str) -> None:
    limit = 60 * MIB
    with pool(tmp_path, HOG, max_worker_memory_usage=limit, memory_measure=measure) as running:
        (ready,) = running.wait_for('worker-ready')

        cue.write_text('')

        (end,) = running.wait_for('worker-exit')
        assert (end['life'], end['result'], end['return_code'], end['signal']) == (1, 'memory-max', None, 'SIGKILL')
        assert end['level'] == 'warning'
        measured = re.fullmatch(rf'worker\({ready["pid"]}\) exceeded the maximum memory limit: (\d+)', end['message'])
        assert measured is not None, end['message']
        assert end['max_rss_bytes'] == int(measured[1]) > limit
        running.wait_for('worker-ready', life=2)


def test_a_limit_may_be_given_with_a_suffix_and_the_text_log_tells_bytes(tmp_path: Path, cue: Path) -> None:
    with pool(tmp_path, HOG, max_worker_memory_usage='60M', log_format='text') as running:
        running.wait_for_line('is ready')

        cue.write_text('')

        (line,) = running.wait_for_line('exceeded the maximum memory limit')
        match = re.search(r'WARNING +worker\(\d+\) exceeded the maximum memory limit: (\d+)$', line)
        assert match is not None and int(match[1]) > 60 * MIB, line


def test_a_limit_holds_before_a_worker_is_ready(tmp_path: Path) -> None:
    source = (
        TAKE
        + '''
    class Worker:
        """Never becomes ready."""

        calls_ready = True

        def run(self):
            taken = take(100 << 20)
            time.sleep(1000)
    '''
    )
    with pool(tmp_path, source, max_worker_memory_usage='60M') as running:
        (end,) = running.wait_for('worker-exit', life=1)
        assert end['result'] == 'memory-max'
        assert end['restart_in_seconds'] > 0, 'a life that was never ready is a failure: its successor waits'


FAMILY: Final = (
    TAKE
    + '''
    class Worker:
        """The first life has a child that takes 100 MiB when it is told to; each later one only waits."""

        def run(self):
            if LIFE == '1':
                open('cue').read()
                if os.fork() == 0:
                    taken = take(100 << 20)
                    print('taken', flush=True)
                    time.sleep(1000)
            time.sleep(1000)
'''
)


def test_the_measure_tree_counts_what_a_worker_has_started(tmp_path: Path, cue: Path) -> None:
    with pool(tmp_path, FAMILY, max_worker_memory_usage='90M', memory_measure='tree') as running:
        running.wait_for('worker-ready')

        cue.write_text('')

        (end,) = running.wait_for('worker-exit')
        assert (end['life'], end['result']) == (1, 'memory-max')


def test_the_measure_rss_counts_the_worker_alone(tmp_path: Path, cue: Path) -> None:
    with pool(tmp_path, FAMILY, max_worker_memory_usage='90M', memory_poll_interval='20ms') as running:
        (ready,) = running.wait_for('worker-ready')

        cue.write_text('')

        running.hear('taken')
        looks = switches(running.pid)
        wait_until(lambda: switches(running.pid) > looks + 10, 'some more looks')
        assert running.workers() == {1: ready['pid']}


def test_no_limit_no_look_and_no_meter(tmp_path: Path) -> None:
    with pool(tmp_path, HOG.replace("'1'", "'none'"), memory_measure='pss') as running:
        running.wait_for('worker-ready')

        assert_at_rest(running)
        assert not running.processes('sergeant-linux: meter')


@pytest.mark.parametrize(('interval', 'most'), [('500ms', 4), ('50ms', 22)])
def test_a_limit_far_away_costs_no_more_looks_than_the_poll_interval_says(
    tmp_path: Path, interval: str, most: int
) -> None:
    idle = HOG.replace("'1'", "'none'")
    with pool(tmp_path, idle, max_worker_memory_usage='8G', memory_poll_interval=interval) as running:
        running.wait_for('worker-ready')
        wait_until(lambda: len(running.processes()) == 4, 'a pool at rest')
        time.sleep(0.2)
        before = switches(running.pid)
        time.sleep(1)
        assert switches(running.pid) - before <= most


def test_a_meter_that_is_killed_is_replaced_and_the_limit_still_holds(tmp_path: Path, cue: Path) -> None:
    with pool(tmp_path, HOG, max_worker_memory_usage='60M', memory_measure='pss') as running:
        running.wait_for('worker-ready')
        for number in range(3):
            kill(running.helper('sergeant-linux: meter'))
            running.wait_for('meter-exit', count=number + 1)
        running.helper('sergeant-linux: meter')

        cue.write_text('')

        (end,) = running.wait_for('worker-exit')
        assert (end['life'], end['result']) == (1, 'memory-max')


def test_a_meter_that_hangs_does_not_hold_up_the_supervisor(tmp_path: Path) -> None:
    with pool(
        tmp_path, HOG.replace("'1'", "'none'"), max_worker_memory_usage='1G', memory_measure='tree', restart_delay=0
    ) as running:
        running.wait_for('worker-ready')
        meter = running.helper('sergeant-linux: meter')
        kill(meter, signal.SIGSTOP)
        for _ in range(20):
            before = len(running.find('worker-ready'))
            kill(max(running.workers().values()))
            running.wait_for('worker-ready', count=before + 1)

        assert running.stop() == 0


@pytest.mark.slow
def test_the_meter_takes_no_more_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    source = TAKE + '''
    class Worker:
        """One that is dear to measure."""

        def run(self):
            taken = take(300 << 20)
            time.sleep(1000)
    '''
    with pool(
        tmp_path,
        source,
        concurrent_workers=4,
        max_worker_memory_usage='400M',
        memory_measure='pss',
        memory_poll_interval='20ms',
    ) as running:
        running.wait_for('worker-ready', count=4)
        meter = running.helper('sergeant-linux: meter')
        before = cpu_seconds(meter)
        time.sleep(4)
        assert cpu_seconds(meter) - before <= 0.1, 'a hundredth of four seconds, and the measure that was going on'


NEAR: Final = (
    TAKE
    + '''
    class Worker:
        """Has 90 MiB when it is ready."""

        calls_ready = True

        def run(self):
            from sergeant_linux import ready
            taken = take(90 * (1 << 20) - resident())
            ready()
            time.sleep(1000)
'''
)


def test_a_worker_that_is_near_its_limit_as_soon_as_it_is_ready_is_warned_about_once_with_the_remedy(
    tmp_path: Path,
) -> None:
    with pool(tmp_path, NEAR, max_worker_memory_usage='100M', memory_poll_interval='20ms') as running:
        (warning,) = running.wait_for('near-memory-limit')

        looks = switches(running.pid)
        wait_until(lambda: switches(running.pid) > looks + 10, 'some more looks')

        assert running.find('near-memory-limit') == [warning], 'said once a life'
        assert (warning['level'], warning['life'], warning['limit_bytes']) == ('warning', 1, 100 * MIB)
        assert 80 * MIB < warning['memory_bytes'] <= 100 * MIB
        assert '--memory-measure=pss' in warning['message']


def test_a_worker_with_room_to_its_limit_is_not_warned_about(tmp_path: Path) -> None:
    with pool(tmp_path, NEAR, max_worker_memory_usage='120M', memory_poll_interval='20ms') as running:
        running.wait_for('worker-ready')
        looks = switches(running.pid)
        wait_until(lambda: switches(running.pid) > looks + 10, 'some more looks')
        assert not running.find('near-memory-limit')


FAT: Final = '''
    import os, time
    from tests.scenarios.workers import Tasks, say

    def take(size):
        taken = bytearray(size)
        for start in range(0, size, 4096):
            taken[start] = 1
        return taken

    class Worker(Tasks):
        """Every life starts with 60 MiB; task 0 makes the one that does it fat; task 1 takes until the file `go-on`."""

        def initialize(self):
            self.taken = [take(60 << 20)]

        def do(self, task):
            if task.kwargs['id'] == 0:
                self.taken.append(take(200 << 20))
            elif task.kwargs['id'] == 1:
                while not os.path.exists('go-on'):
                    time.sleep(0.01)
'''


@pytest.mark.slow
@pytest.mark.slow
def test_a_worker_over_its_mark_is_succeeded_and_finishes_its_task_and_one_that_starts_near_it_is_left_alone(
    tmp_path: Path, redis_port: int
) -> None:
    """The mark is below what every worker has when it is ready: it counts only for the one that has grown since."""
    queue = Queue.on_redis(redis_port)
    try:
        queue.push(0)
        with pool(
            tmp_path, FAT, concurrent_workers=2, worker_memory_high='50M', environ=queue.environ, timeout_stop='4s'
        ) as running:
            running.hear('done 0')
            queue.push(1, 1)
            running.hear('begun 1', count=2)  # one for each of the two
            began = time.monotonic()

            (request,) = running.wait_for('worker-succession', within=MARK_MIN_LIFE + 5)

            assert time.monotonic() - began > MARK_MIN_LIFE / 2
            assert (request['request'], request['level']) == ('memory-high', 'info')
            assert request['memory_bytes'] > 200 * MIB
            slot, old = request['slot'], request['life']
            running.wait_for('worker-ready', slot=slot, where=lambda record: record['life'] > old)
            assert not running.find('worker-exit'), 'the old one is asked to go when its successor is ready'

            (tmp_path / 'go-on').touch()

            (end,) = running.wait_for('worker-exit')
            assert (end['life'], end['request'], end['result']) == (old, 'memory-high', 'success')
            queue.push(*range(10, 30))
            running.hear('done', count=23)
            assert sorted(running.said) == sorted(
                f'{word} {number}' for word in ('begun', 'done') for number in [0, 1, 1, *range(10, 30)]
            ), 'each task was begun once and done once'

            assert len(running.find('worker-succession')) == 1
            assert running.stop() == 0
    finally:
        queue.close()


AGING: Final = '''
    import time
    from tests.scenarios.workers import Tasks

    class Worker(Tasks):
        """Has short tasks."""

        def do(self, task):
            time.sleep(0.02)
'''


@pytest.mark.slow
def test_a_worker_is_succeeded_at_the_end_of_its_lifetime_one_at_a_time_and_no_task_is_begun_twice(
    tmp_path: Path, redis_port: int
) -> None:
    queue = Queue.on_redis(redis_port)
    lifetime, jitter = 0.5, 1.0
    try:
        queue.push(*range(400))
        with pool(
            tmp_path,
            AGING,
            concurrent_workers=4,
            max_worker_lifetime=lifetime,
            max_worker_lifetime_jitter=jitter,
            environ=queue.environ,
        ) as running:
            running.wait_for('worker-exit', count=10, within=60)
            running.hear('done', count=400, within=60)
            assert running.stop() == 0

            requests = running.find('worker-succession')
            assert {request['request'] for request in requests} == {'lifetime'}
            assert_successors_come_first(running, concurrent_workers=4)
            ages = asked_after(running)
            assert all(lifetime <= age < lifetime + jitter + 1 for age in ages), ages
            assert max(ages) - min(ages) > jitter / 10, 'drawn once a life'
        assert sorted(running.said) == sorted(f'{word} {number}' for word in ('begun', 'done') for number in range(400))
    finally:
        queue.close()


DEAF: Final = '''
    import os
    from tests.scenarios.workers import OneTask

    class Worker(OneTask):
        """The first life closes the sockets it finds, the gate among them, as a task that makes itself a daemon does."""

        def do(self, task):
            if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                for fd in range(3, 20):
                    if os.path.exists(f'/proc/self/fd/{fd}') and os.readlink(f'/proc/self/fd/{fd}').startswith('socket'):
                        os.close(fd)
'''


def test_a_worker_that_has_closed_its_gate_is_succeeded_all_the_same(tmp_path: Path) -> None:
    with pool(tmp_path, DEAF, max_worker_lifetime='300ms') as running:
        (end,) = running.wait_for('worker-exit', life=1)

        assert (end['return_code'], end['result'], end['request']) == (5, 'success', 'lifetime')
        running.wait_for('worker-exit', life=2)  # the token is free again


def assert_successors_come_first(running: Pool, *, concurrent_workers: int) -> None:
    """The log, read in its order, has never fewer ready workers than there should be, and never more than one more."""
    stop = next(number for number, record in enumerate(running.records) if record.get('event') == 'stop')
    ready: set[int] = set()
    complete = False
    for record in running.records[:stop]:
        if record.get('event') == 'worker-ready':
            ready.add(record['life'])
        elif record.get('event') == 'worker-exit':
            ready.discard(record['life'])
        complete = complete or len(ready) == concurrent_workers
        assert not complete or concurrent_workers <= len(ready) <= concurrent_workers + 1, record


def asked_after(running: Pool) -> list[float]:
    """Return for each succession the seconds from ready to the request; the log has milliseconds."""

    def seconds(record: dict[str, str]) -> float:
        clock = re.search(r'T(\d+):(\d+):([\d.]+)', record['time'])
        assert clock is not None
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])

    ready = {record['life']: seconds(record) for record in running.find('worker-ready')}
    return [seconds(record) - ready[record['life']] + 0.002 for record in running.find('worker-succession')]


def assert_at_rest(running: Pool) -> None:
    """No context switch of the supervisor within a second; it has a while to come to that."""
    for _ in range(5):
        before = switches(running.pid)
        time.sleep(1)
        if switches(running.pid) == before:
            return
    raise AssertionError('the supervisor comes to no rest')


def switches(pid: int) -> int:
    """Return the number of a process's own context switches: each is a wait."""
    match = re.search(r'^voluntary_ctxt_switches:\s*(\d+)$', Path(f'/proc/{pid}/status').read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def cpu_seconds(pid: int) -> float:
    stat = procfs.read_stat(pid)
    assert stat is not None
    return stat.cpu_seconds
