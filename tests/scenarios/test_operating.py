"""A pool that is operated while it works: nothing is lost, nothing is done twice, and it never has fewer workers ready
than it should."""

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.control.client import PoolError
from sergeant_linux.control.requests import PAUSE
from tests.scenarios.pool import Pool, pool, wait_until
from tests.worker.queues import Queue

STAYS: Final = """
import time

class Worker:
    def run(self):
        time.sleep(1000)
"""

TASKS: Final = """
import time
from tests.scenarios.workers import Tasks

class Worker(Tasks):
    def do(self, task):
        time.sleep(0.02)
"""

LONG_TASK: Final = """
import time
from tests.scenarios.workers import Tasks

class Worker(Tasks):
    def do(self, task):
        time.sleep(1000)
"""


GOES_IN_ITS_TURN: Final = """
import os, signal, time

def Worker():
    def go(*_):
        time.sleep(int(os.environ['SERGEANT_WORKER_SLOT']) * 0.04)
        os._exit(0)

    signal.signal(signal.SIGTERM, go)
    print('listens', flush=True)
    while True:
        signal.pause()
"""


def ready(running: Pool, count: int) -> None:
    wait_until(lambda: running.ask('status')['ready'] == count, f'{count} workers')


def slot(running: Pool, number: int) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [each for each in running.ask('status')['slots'] if each['slot'] == number]
    return found


def churn(running: Pool, rounds: int, rng: random.Random) -> None:
    """Do what an operator does, in random order, and wait for the end of each."""
    with running.client(timeout=60) as client:
        for _ in range(rounds):
            what = rng.choice(['reload', 'scale', 'scale', 'restart', 'restart', 'restart', 'restart'])
            if what == 'reload':
                client.call('reload')
            elif what == 'scale':
                client.call('scale', to=rng.randint(2, 5))
            else:
                slots = [each['slot'] for each in client.call('status')['slots'] if each['goal'] == 'up']
                client.call('restart', slots=[rng.choice(slots)])


class Watch(threading.Thread):
    """Looks at a pool again and again: how many workers are ready, and how many should be."""

    def __init__(self, running: Pool) -> None:
        super().__init__()
        self._client = running.client()
        self._over = threading.Event()
        self.looks = 0
        self.short: list[tuple[int, int]] = []

    def run(self) -> None:
        wanted = grown_at = 0.0
        while not self._over.wait(0.005):
            status = self._client.call('status')
            self.looks += 1
            if status['wanted'] > wanted:
                grown_at = time.monotonic()
            wanted = status['wanted']
            is_growing = time.monotonic() - grown_at < 10 and any(each['state'] == 'start' for each in status['slots'])
            if status['ready'] < wanted and not is_growing:
                self.short.append((status['ready'], wanted))

    def end(self) -> None:
        self._over.set()
        self.join()
        self._client.close()


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_reloads_scales_and_restarts_in_random_order_lose_no_task_and_do_none_twice(
    tmp_path: Path, redis_port: int
) -> None:
    queue = Queue.on_redis(redis_port)
    count = 3000
    queue.push(*range(count))
    with pool(tmp_path, TASKS, concurrent_workers=3, environ=queue.environ) as running:
        ready(running, 3)
        watch = Watch(running)
        watch.start()
        try:
            churn(running, 40, random.Random(4))
        finally:
            watch.end()

        assert running.stop(within=60) == 0

        done = Counter(int(line.split()[1]) for line in running.said if line.startswith('done'))
        begun = Counter(int(line.split()[1]) for line in running.said if line.startswith('begun'))
    left = queue.take_all()
    queue.close()
    assert begun == done
    assert set(done.values()) == {1}
    assert sorted([*done, *left]) == list(range(count))
    assert watch.looks > 20
    assert watch.short == []


def test_status_tells_of_every_slot_what_its_worker_does(tmp_path: Path, redis_port: int) -> None:
    queue = Queue.on_redis(redis_port)
    queue.push(1)
    with pool(tmp_path, LONG_TASK, concurrent_workers=2, environ=queue.environ, max_worker_memory_usage='1G') as running:
        running.hear('begun 1')
        ready(running, 2)

        status = running.ask('status')

        assert (status['pid'], status['state'], status['wanted']) == (running.pid, 'running', 2)
        assert status['memory']['limit_bytes'] == 1024**3
        (busy,) = [each for each in status['slots'] if each['task_age_seconds'] is not None]
        (idle,) = [each for each in status['slots'] if each['task_age_seconds'] is None]
        assert (busy['tasks_done'], idle['tasks_done']) == (0, 0)
        assert busy['memory_bytes'] > 1024**2 and busy['cpu_seconds'] > 0
        assert busy['pid'] in running.workers().values()
    queue.close()


def test_of_several_workers_the_idle_one_goes_when_there_shall_be_one_less(tmp_path: Path, redis_port: int) -> None:
    queue = Queue.on_redis(redis_port)
    with pool(tmp_path, LONG_TASK, concurrent_workers=2, environ=queue.environ) as running:
        ready(running, 2)
        queue.push(1)
        running.hear('begun 1')
        (busy,) = [each['slot'] for each in running.ask('status')['slots'] if each['task_age_seconds'] is not None]

        assert running.ask('scale', by=-1) == {'before': 2, 'after': 1}

        running.wait_for('worker-exit')
        assert [each['slot'] for each in running.ask('status')['slots']] == [busy]
    queue.close()


def test_a_restart_replaces_the_named_worker_alone(tmp_path: Path) -> None:
    with pool(tmp_path, STAYS, concurrent_workers=3) as running:
        ready(running, 3)
        before = {each['slot']: each['pid'] for each in running.ask('status')['slots']}

        running.ask('restart', slots=[1])

        after = {each['slot']: each['pid'] for each in running.ask('status')['slots']}
        assert {number for number in before if before[number] != after[number]} == {1}


def test_a_stop_tells_who_is_busy_and_answers_when_all_are_gone(tmp_path: Path, redis_port: int) -> None:
    queue = Queue.on_redis(redis_port)
    queue.push(1)
    with pool(tmp_path, LONG_TASK, environ=queue.environ, timeout_stop='1s') as running:
        running.hear('begun 1')
        with running.client() as client:
            *news, answer = client.stream('stop')

        assert news[0]['busy'][0]['task_age_seconds'] is not None
        assert answer == {'result': {'status': 0}}
        assert running.exit_status() == 0
    queue.close()


def test_a_stop_that_waits_tells_who_is_left_a_few_times_a_second_however_many_go(tmp_path: Path) -> None:
    """Each piece of news names all who are left: at every end of one, it would take N looks at N workers."""
    with pool(tmp_path, GOES_IN_ITS_TURN, concurrent_workers=15, timeout_stop='10s') as running:
        running.hear('listens', count=15)
        with running.client() as client:
            began = time.monotonic()
            *news, answer = client.stream('stop')
            took = time.monotonic() - began

        assert answer == {'result': {'status': 0}}
        assert len(news[0]['busy']) > 10
        assert 2 <= len(news) <= 2 + took / PAUSE


def test_a_restart_that_waits_tells_what_is_left_a_few_times_a_second(tmp_path: Path) -> None:
    with pool(tmp_path, STAYS, concurrent_workers=15, max_surge=15) as running:
        ready(running, 15)
        with running.client() as client:
            began = time.monotonic()
            *news, answer = client.stream('restart')
            took = time.monotonic() - began

        assert answer == {'result': {'slots': list(range(15))}}
        assert news[0]['waiting'] == list(range(15))
        assert len(news) <= 2 + took / PAUSE


def test_a_signal_is_sent_to_the_worker_of_a_slot(tmp_path: Path) -> None:
    with pool(tmp_path, STAYS, concurrent_workers=2) as running:
        ready(running, 2)
        pid = slot(running, 1)['pid']

        assert running.ask('kill', slot=1, signal='USR1') == {'slot': 1, 'pid': pid, 'signal': 'SIGUSR1'}

        (ending,) = running.wait_for('worker-exit')
        assert (ending['pid'], ending['result'], ending['signal']) == (pid, 'signal', 'SIGUSR1')


def test_events_are_told_again_and_then_live(tmp_path: Path) -> None:
    with pool(tmp_path, STAYS) as running:
        ready(running, 1)
        with running.client() as client:
            news = client.stream('events', follow=True)
            assert 'worker-ready' in [next(news)['event'] for _ in range(len(running.ask('events')['events']))]

            running.ask('kill', slot=0)

            told = next(each for each in news if each['event'] == 'worker-exit')
        assert told['fields']['signal'] == 'SIGKILL'


def test_a_memory_limit_can_be_set_in_a_running_pool(tmp_path: Path) -> None:
    with pool(tmp_path, STAYS, memory_backend='rss') as running:
        ready(running, 1)

        answer = running.ask('set', key='max-worker-memory-usage', value='1M')

        assert answer == {'key': 'max_worker_memory_usage', 'before': 'off', 'after': '1M'}
        assert running.wait_for('worker-exit')[0]['result'] == 'memory-max'
        running.ask('set', key='max-worker-memory-usage', value='off')
        ready(running, 1)


@pytest.mark.parametrize(('verb', 'arguments', 'code'), [
    ('fly', {}, 'unknown-verb'),
    ('scale', {'to': 0}, 'bad-request'),
    ('scale', {'to': 'many'}, 'bad-request'),
    ('restart', {'slots': [7]}, 'bad-request'),
    ('kill', {'slot': 0, 'signal': 'NONSENSE'}, 'bad-request'),
    ('kill', {'slot': None}, 'bad-request'),
    ('set', {'key': 'worker-module', 'value': 'x'}, 'bad-request'),
    ('set', {'key': 'timeout-stop', 'value': 'soon'}, 'bad-request'),
])
def test_what_can_not_be_is_refused_and_changes_nothing(
    tmp_path: Path, verb: str, arguments: dict[str, Any], code: str
) -> None:
    with pool(tmp_path, STAYS) as running:
        ready(running, 1)
        pid = slot(running, 0)['pid']

        with pytest.raises(PoolError) as error:
            running.ask(verb, **arguments)

        assert error.value.code == code
        assert slot(running, 0)['pid'] == pid


def test_a_name_that_is_taken_is_status_4_and_says_by_whom(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    run.mkdir()
    environ = {'RUNTIME_DIRECTORY': str(run)} if len(str(run)) < 60 else {}
    with pool(tmp_path, STAYS, name='crawl', environ=environ) as first:
        first.wait_for('worker-ready')
        environ = {'RUNTIME_DIRECTORY': environ.get('RUNTIME_DIRECTORY', str(first.run))}
        with pool(tmp_path, STAYS, name='crawl', environ=environ) as second:
            assert second.exit_status() == 4
            assert f'crawl is already running as pid {first.pid}' in second.find('cant-run')[0]['message']
        with pool(tmp_path, STAYS, environ=environ) as third, pool(tmp_path, STAYS, environ=environ) as fourth:
            third.wait_for('worker-ready')
            fourth.wait_for('worker-ready')
            folder = Path(environ['RUNTIME_DIRECTORY']) / 'sergeant-linux'
            assert sorted(path.stem for path in folder.glob('*.sock')) == ['crawl', 'worker.Worker', 'worker.Worker-2']


def test_after_a_sigkill_the_name_and_the_socket_are_free_again(tmp_path: Path) -> None:
    with pool(tmp_path, STAYS, name='crawl') as first:
        first.wait_for('worker-ready')
        first.send(signal.SIGKILL)
        first.exit_status()
        with pool(tmp_path, STAYS, name='crawl', environ={'RUNTIME_DIRECTORY': str(first.run)}) as second:
            second.wait_for('worker-ready')
            assert second.stop() == 0
        assert os.listdir(first.run / 'sergeant-linux') == []


def test_without_a_control_socket_nothing_listens(tmp_path: Path) -> None:
    with pool(tmp_path, STAYS, control_socket='none') as running:
        running.wait_for('worker-ready')

        assert list(running.run.iterdir()) == []
