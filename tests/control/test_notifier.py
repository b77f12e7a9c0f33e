"""What a service manager is told, and when: the real pool in a world of paper, told of over a real socket."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from math import inf
from typing import Any

import pytest

from sergeant_linux.control import notifier
from sergeant_linux.control.notifier import EXTENSION, LAST_RETRY, LONGEST_STATUS, PAUSE, Notifier
from sergeant_linux.control.status import Status
from sergeant_linux.core import margins
from sergeant_linux.core.events import Exited, Ready, Spawned
from sergeant_linux.log.words import Journal
from tests.core.fake_kernel import RAISED
from tests.core.world import World, policy

Message = dict[str, str]
PID = 42


class Manager:
    """A service manager, the pool that it has started, and the notifier between the two."""

    def __init__(self, where: socket.socket, usec: int | None = None, workers: int = 2, **knobs: Any) -> None:
        self.socket = where
        self.world = World(policy(concurrent_workers=workers, **knobs))
        logger = logging.getLogger('test_notifier')
        logger.propagate = False
        self.journal = Journal(logger, lambda: self.world.pool.policy)
        status = Status(self.world.pool, lambda life: None, {}, self.journal.recent)
        environ = {'NOTIFY_SOCKET': '@' + where.getsockname()[1:].decode()}
        if usec is not None:
            environ |= {'WATCHDOG_USEC': str(usec), 'WATCHDOG_PID': str(PID)}
        self.notifier = Notifier(self.world.pool, status, self.journal, environ, PID)
        self.notifier._ping_at = self.notifier._half  # the clock of the world begins at 0

    def look(self) -> list[Message]:
        """Let the notifier look, and return what was said."""
        self.notifier.elapse(self.world.now)
        return self.heard()

    def heard(self) -> list[Message]:
        messages: list[Message] = []
        while True:
            try:
                text = self.socket.recv(65536).decode()
            except BlockingIOError:
                return messages
            assert text.endswith('\n')
            messages.append(dict(line.split('=', 1) for line in text[:-1].split('\n')))

    def wait(self, seconds: float) -> list[Message]:
        """Let time pass, and look whenever that is due; return what was said."""
        until, said = self.world.now + seconds, []
        while (at := self.due()) <= until:
            self.world.wait(at - self.world.now)
            said += self.look()
            assert self.due() > self.world.now, 'the loop would spin'
        self.world.wait(until - self.world.now)
        return said

    def due(self) -> float:
        deadline = self.notifier.next_deadline()
        return inf if deadline is None else max(deadline, self.world.now)

    def starts(self, life: int) -> None:
        self.world.happen(Spawned(life, pid=100 + life))

    def ready(self, life: int) -> None:
        self.starts(life)
        self.world.happen(Ready(life, can_drain=True))

    def up(self) -> 'Manager':
        self.world.up()
        self.look()
        self.wait(PAUSE)
        return self


@pytest.fixture
def manager() -> Iterator[Callable[..., Manager]]:
    """Make a manager, with a watchdog of so many microseconds."""
    made = []

    def make(usec: int | None = None, **knobs: Any) -> Manager:
        where = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        where.bind(b'\0sergeant-linux-test-' + os.urandom(8).hex().encode())
        made.append(Manager(where, usec, **knobs))
        return made[-1]

    yield make
    for each in made:
        each.notifier.close()
        each.socket.close()


Make = Callable[..., Manager]


# Ready.


def test_the_pool_is_ready_when_its_first_worker_is(manager: Make) -> None:
    pool = manager(workers=3)
    pool.world.start()
    pool.starts(1)
    assert pool.look() == [{'STATUS': 'starting: 0 of 3 workers are ready'}]

    pool.world.happen(Ready(1, can_drain=True))

    assert pool.look() == [{'READY': '1', 'STATUS': '1 of 3 workers are ready'}]


def test_the_pool_is_ready_when_all_workers_are_where_that_is_asked_for(manager: Make) -> None:
    pool = manager(workers=2, ready_when='all')
    pool.world.start()
    pool.ready(1)
    assert pool.look() == [{'STATUS': 'starting: 1 of 2 workers are ready'}]

    pool.ready(2)

    assert [*pool.look(), *pool.wait(PAUSE)] == [{'READY': '1', 'STATUS': '2 of 2 workers are ready'}]


def test_ready_is_said_once(manager: Make) -> None:
    pool = manager(workers=1).up()
    pool.world.happen(Exited(1, RAISED))
    pool.world.settle()

    said = [*pool.look(), *pool.wait(60)]

    assert not any('READY' in message for message in said)


# Status.


def test_the_status_is_said_when_it_has_changed_and_not_in_every_moment(manager: Make) -> None:
    pool = manager(workers=3)
    pool.world.start()
    pool.ready(1)
    pool.look()
    for life in (2, 3):
        pool.ready(life)
        assert pool.look() == []

    assert pool.wait(60) == [{'STATUS': '3 of 3 workers are ready'}]
    assert pool.due() == inf, 'an idle pool is not woken up'
    assert pool.look() == []


def test_the_status_tells_of_the_last_trouble_in_one_line_that_is_not_too_long(manager: Make) -> None:
    pool = manager(workers=1).up()
    pool.journal.note(logging.WARNING, 'worker(7) has\nmet "trouble"\udcff=', 'worker-exit')

    (message,) = pool.look()

    assert message['STATUS'].startswith('1 of 1 workers are ready; last trouble at 20')
    assert message['STATUS'].endswith('Z: worker(7) has met "trouble"?=')

    pool.journal.note(logging.ERROR, 1000 * 'x', 'worker-exit')
    (message,) = [*pool.look(), *pool.wait(PAUSE)]
    assert len(message['STATUS']) == LONGEST_STATUS


# A reload.


def test_a_reload_is_told_with_the_time_and_ready_at_its_end(manager: Make) -> None:
    pool = manager(workers=2).up()
    pool.world.reload()

    (began,) = pool.look()
    assert (began.pop('RELOADING'), began.pop('EXTEND_TIMEOUT_USEC')) == ('1', str(int(EXTENSION * 1e6)))
    assert began.pop('MONOTONIC_USEC').isdecimal()
    assert began == {'STATUS': 'reloading (generation 2, loading, 0 of 2 changed): 2 of 2 workers are ready'}

    pool.world.settle()
    assert pool.look() == [{'READY': '1', 'STATUS': '2 of 2 workers are ready'}]
    assert pool.wait(60) == []


def test_a_reload_that_fails_ends_in_ready_and_the_status_tells_why(manager: Make) -> None:
    pool = manager(workers=1).up()
    pool.world.reload()
    pool.look()

    pool.world.cannot_load()

    status = '1 of 1 workers are ready; the last reload has failed: SyntaxError()'
    assert pool.look() == [{'READY': '1', 'STATUS': status}]


def test_a_reload_that_is_over_at_once_is_told_of_all_the_same(manager: Make) -> None:
    pool = manager(workers=1).up()
    pool.world.reload()
    pool.world.cannot_load()

    began, ended = pool.look()

    assert began.keys() == {'RELOADING', 'MONOTONIC_USEC'}
    assert ended.keys() == {'READY', 'STATUS'}


def test_a_reload_that_supersedes_another_is_told_of_and_both_have_one_end(manager: Make) -> None:
    pool = manager(workers=1).up()
    pool.world.reload()
    said = pool.look()
    pool.world.reload()
    said += pool.look()
    pool.world.settle()
    said += pool.look()

    assert [[key for key in message if key in notifier.PHASES] for message in said] == [
        ['RELOADING'], ['RELOADING'], ['READY'],
    ]


def test_a_reload_before_the_pool_is_ready_is_told_of_after_that(manager: Make) -> None:
    pool = manager(workers=1)
    pool.world.start()
    pool.world.reload()
    assert [message.keys() for message in pool.look()] == [{'STATUS'}]

    pool.ready(1)

    first, second = pool.look()
    assert first == {'READY': '1'}
    assert second['RELOADING'] == '1'


def test_a_long_reload_is_given_its_time(manager: Make) -> None:
    pool = manager(workers=1).up()
    pool.world.reload()
    pool.look()

    asked = [message for message in pool.wait(10 * EXTENSION) if 'EXTEND_TIMEOUT_USEC' in message]

    assert asked == 20 * [{'EXTEND_TIMEOUT_USEC': str(int(EXTENSION * 1e6))}]


# The stop.


def test_a_stop_is_told_at_once_and_asks_for_as_much_time_as_it_may_take(manager: Make) -> None:
    pool = manager(workers=2, timeout_stop=3).up()
    pool.world.stop()

    assert pool.look() == [{
        'STOPPING': '1',
        'STATUS': 'stopping: 2 workers are still there',
        'EXTEND_TIMEOUT_USEC': str(int((3 + margins.STOP) * 1e6)),
    }]
    assert pool.wait(60) == []


def test_a_long_stop_asks_for_its_time_again_and_again_until_it_is_over(manager: Make) -> None:
    pool = manager(workers=1, timeout_stop=100, ready_when='all').up()
    pool.world.stop()
    began, said = pool.world.now, pool.look()

    asked = [(0.0, int(said[0]['EXTEND_TIMEOUT_USEC']) / 1e6)]
    while pool.due() < inf:
        for message in pool.wait(pool.due() - pool.world.now):
            asked.append((pool.world.now - began, int(message['EXTEND_TIMEOUT_USEC']) / 1e6))

    assert all(later <= now + span for (now, span), (later, _) in pairwise(asked))
    assert all(span <= EXTENSION for _, span in asked)
    assert sum(asked[-1]) == pytest.approx(100 + margins.STOP)


def test_a_stop_without_end_is_given_its_time_for_ever(manager: Make) -> None:
    pool = manager(workers=1, timeout_stop='infinity').up()
    pool.world.stop()
    pool.look()
    assert pool.wait(10 * EXTENSION) == 20 * [{'EXTEND_TIMEOUT_USEC': str(int(EXTENSION * 1e6))}]


def test_a_stop_in_a_reload_is_a_stop(manager: Make) -> None:
    pool = manager(workers=1).up()
    pool.world.reload()
    pool.look()
    pool.world.stop()
    said = pool.look()
    pool.world.settle()
    said += [*pool.look(), *pool.wait(60)]

    assert [[key for key in message if key in notifier.PHASES] for message in said] == [['STOPPING'], []]


# The watchdog.


def test_a_sign_of_life_is_given_at_half_of_the_time(manager: Make) -> None:
    pool = manager(10_000_000, workers=1).up()

    assert pool.wait(50) == 10 * [{'WATCHDOG': '1'}]


def test_without_a_watchdog_nobody_is_woken_up(manager: Make) -> None:
    pool = manager(workers=1).up()
    assert pool.notifier.next_deadline() is None


@pytest.mark.parametrize(('start', 'signs'), [('10h', 10), ('infinity', 0)])
def test_a_start_that_has_an_end_is_a_sign_of_life_and_one_without_is_none(
    manager: Make, start: str, signs: int,
) -> None:
    pool = manager(10_000_000, workers=1, timeout_start=start).up()
    pool.world.happen(Exited(1, RAISED))
    pool.world.wait(2)
    assert pool.world.states() == ['start']
    pool.look()

    assert sum('WATCHDOG' in message for message in pool.wait(50)) == signs


def test_a_sign_that_was_held_back_is_given_when_there_is_a_quorum_again(manager: Make) -> None:
    pool = manager(10_000_000, workers=2, watchdog_quorum=2, timeout_start='infinity').up()
    pool.world.happen(Exited(1, RAISED))
    pool.world.wait(2)
    pool.look()
    assert not any('WATCHDOG' in message for message in pool.wait(6))

    pool.world.run()

    assert any('WATCHDOG' in message for message in [*pool.look(), *pool.wait(PAUSE)])


def test_a_backoff_is_a_sign_of_life(manager: Make) -> None:
    pool = manager(2_000_000, workers=1, restart_delay='10h', restart_max_delay='10h', restart_reset='1h').up()
    pool.world.happen(Exited(1, RAISED))
    assert pool.world.states() == ['auto-restart']
    pool.look()

    assert sum('WATCHDOG' in message for message in pool.wait(50)) == 50


def test_a_pool_that_is_smaller_than_its_quorum_is_measured_by_what_it_has(manager: Make) -> None:
    pool = manager(2_000_000, workers=2, watchdog_quorum=2).up()
    pool.world.scale(-1)
    pool.world.settle()
    pool.look()

    assert sum('WATCHDOG' in message for message in pool.wait(10)) == 10


def test_a_stop_gives_signs_of_life_whoever_is_left(manager: Make) -> None:
    pool = manager(2_000_000, workers=1, timeout_stop='infinity').up()
    pool.world.stop()
    pool.look()
    assert sum('WATCHDOG' in message for message in pool.wait(10)) == 10


# A manager that is not as it should be.


def test_what_a_full_manager_can_not_take_is_told_when_it_reads_again(manager: Make) -> None:
    pool = manager(1_000_000, workers=1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        with suppress(BlockingIOError):
            while other.sendto(b'X=1\n', pool.socket.getsockname()):
                pass
        pool.world.up()
        pool.notifier.elapse(pool.world.now)
        while (due := pool.due() - pool.world.now) and pool.world.now < 100:
            pool.world.wait(due)
            pool.notifier.elapse(pool.world.now)
        assert len(pool.notifier._outbox) == 1, 'what waits does not grow'
        assert all(message == {'X': '1'} for message in pool.heard())

        said = pool.wait(LAST_RETRY)

    assert {'READY': '1', 'STATUS': '1 of 1 workers are ready', 'WATCHDOG': '1'} in said


def test_a_manager_that_is_gone_is_complained_of_once(manager: Make) -> None:
    pool = manager(1_000_000, workers=1)
    pool.socket.close()
    pool.world.up()

    pool.notifier.elapse(pool.world.now)
    pool.world.wait(1)
    pool.notifier.elapse(pool.world.now)

    told = [event for event in pool.journal.recent.last(100) if event['event'] == 'notify-failed']
    assert [event['message'] for event in told] == [
        'the service manager can not be told of this pool (NOTIFY_SOCKET): [Errno 111] Connection refused'
    ]


def test_an_address_that_is_none_is_complained_of_and_the_pool_goes_on(manager: Make) -> None:
    pool = manager(workers=1)
    status = Status(pool.world.pool, lambda life: None, {}, pool.journal.recent)

    deaf = Notifier(pool.world.pool, status, pool.journal, {'NOTIFY_SOCKET': 'tcp:1', 'WATCHDOG_USEC': '1'}, PID)

    deaf.elapse(0.0)
    assert deaf.next_deadline() is None
    assert pool.journal.recent.last(1)[0]['message'] == (
        'the service manager can not be told of this pool (NOTIFY_SOCKET): '
        "expected an absolute path, @NAME or vsock:CID:PORT, not 'tcp:1'"
    )
    deaf.close()
