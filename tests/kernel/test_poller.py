"""Poller: on real descriptors."""

import math
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from sergeant_linux.kernel.poller import EPOLLIN, EPOLLOUT, Poller
from tests.kernel.processes import DEADLINE, Event, Fork, in_child


class Pair(NamedTuple):
    """What is written to `far` can be read from `near`."""

    near: socket.socket
    far: socket.socket


@pytest.fixture
def pair() -> Iterator[Callable[[], Pair]]:
    made: list[Pair] = []

    def make() -> Pair:
        made.append(Pair(*socket.socketpair()))
        return made[-1]

    yield make
    for one in made:
        one.near.close()
        one.far.close()


@pytest.fixture
def poller() -> Iterator[Poller[str]]:
    with Poller[str]() as poller:
        yield poller


def events_of(poller: Poller[str], timeout: float | None = 0.0) -> list[tuple[str, int]]:
    return list(poller.wait(timeout))


def test_an_event_comes_with_the_key_of_its_owner(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    one, other = pair(), pair()
    poller.register(one.near, 'one')
    poller.register(other.near.fileno(), 'other')
    assert events_of(poller) == []

    other.far.send(b'.')

    assert events_of(poller) == [('other', EPOLLIN)]


def test_an_event_is_reported_until_it_is_dealt_with(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    near, far = pair()
    poller.register(near, 'pair')
    far.send(b'.')

    assert events_of(poller) == [('pair', EPOLLIN)]
    assert events_of(poller) == [('pair', EPOLLIN)]
    near.recv(1)
    assert events_of(poller) == []


def test_other_events_can_be_asked_for_and_the_key_stays(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    near, _ = pair()
    poller.register(near, 'pair', 0)
    assert events_of(poller) == []

    poller.modify(near, EPOLLOUT)

    assert events_of(poller) == [('pair', EPOLLOUT)]


def test_the_peers_end_is_reported_unasked(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    near, far = pair()
    poller.register(near, 'pair', 0)

    far.close()

    assert events_of(poller) == [('pair', select.EPOLLHUP)]


def test_what_is_unregistered_is_not_reported(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    near, far = pair()
    poller.register(near, 'pair')
    far.send(b'.')

    poller.unregister(near)

    assert events_of(poller) == []
    assert len(poller) == 0


def test_unregistering_again_does_no_harm_even_when_closed(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    near, _ = pair()
    poller.register(near, 'pair')

    poller.unregister(near)
    poller.unregister(near)
    near.close()
    poller.unregister(near)

    assert len(poller) == 0


def test_what_is_not_registered_cannot_be_modified(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    with pytest.raises(FileNotFoundError):
        poller.modify(pair().near, EPOLLIN)


def test_an_event_whose_owner_is_closed_before_its_turn_is_left_out(
    poller: Poller[str], pair: Callable[[], Pair]
) -> None:
    pairs = {'one': pair(), 'other': pair()}
    for key, (near, far) in pairs.items():
        poller.register(near, key)
        far.send(b'.')

    handled = []
    for key, _ in poller.wait(0):
        handled.append(key)
        for near, _ in pairs.values():
            poller.unregister(near)
            near.close()

    assert len(handled) == 1


def test_an_event_is_not_given_to_the_next_owner_of_the_number(poller: Poller[str], pair: Callable[[], Pair]) -> None:
    pairs = {'one': pair(), 'other': pair()}
    for key, (near, far) in pairs.items():
        poller.register(near, key)
        far.send(b'.')

    batch = poller.wait(0)
    first, _ = next(batch)
    late = pairs['other' if first == 'one' else 'one'].near
    number = late.fileno()
    poller.unregister(late)
    late.close()
    successor = pair()
    assert number in (successor.near.fileno(), successor.far.fileno())
    poller.register(number, 'successor')

    assert list(batch) == []
    poller.unregister(number)


def test_a_number_that_was_closed_without_being_unregistered_is_noticed(
    poller: Poller[str], pair: Callable[[], Pair]
) -> None:
    former = pair()
    number = former.near.fileno()
    poller.register(former.near, 'former')
    former.near.close()
    successor = os.dup2(former.far.fileno(), number)

    with pytest.raises(FileExistsError, match=f"watch descriptor {number} for 'latter': it is registered for 'former'"):
        poller.register(successor, 'latter')

    os.close(number)


def test_what_epoll_cannot_watch_is_refused_and_not_kept(poller: Poller[str]) -> None:
    with open(__file__) as file, pytest.raises(PermissionError):
        poller.register(file, 'file')

    assert len(poller) == 0


@pytest.mark.parametrize('timeout', [0.0001, 0.0015, 0.0209, 0.05])
def test_a_wait_is_never_over_before_its_time_and_its_rounding_costs_one_call(
    poller: Poller[str], timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    waits = 0
    while (remaining := deadline - time.monotonic()) > 0:
        assert events_of(poller, remaining) == []
        waits += 1

    assert waits == 1


@pytest.mark.parametrize('timeout', [0, 0.0, -0.0, -1e-9, -1, -math.inf])
def test_a_deadline_that_has_passed_is_no_wait(poller: Poller[str], timeout: float) -> None:
    start = time.monotonic()

    assert events_of(poller, timeout) == []

    assert time.monotonic() - start < DEADLINE


@pytest.mark.parametrize('timeout', [None, math.inf, 1e300, 2.0**31, 86_400.0])
def test_a_wait_without_end_ends_with_an_event(
    poller: Poller[str], fork: Fork, event: Callable[[], Event], timeout: float | None
) -> None:
    process = fork(lambda: time.sleep(0.02))  # so that it most probably ends while we wait
    poller.register(process, 'process')

    assert events_of(poller, timeout) == [('process', EPOLLIN)]

    poller.unregister(process)


def test_a_timeout_that_is_no_number_is_refused(poller: Poller[str]) -> None:
    with pytest.raises(ValueError, match='NaN'):
        poller.wait(math.nan)


def test_a_child_that_closes_what_it_inherited_leaves_its_parents_registrations(
    poller: Poller[str], pair: Callable[[], Pair]
) -> None:
    near, far = pair()
    poller.register(near, 'pair')

    def close_everything() -> None:
        poller.close()
        near.close()
        far.close()

    in_child(close_everything)
    far.send(b'.')

    assert events_of(poller) == [('pair', EPOLLIN)]


def test_a_child_that_unregisters_what_it_inherited_would_deafen_its_parent(
    poller: Poller[str], pair: Callable[[], Pair]
) -> None:
    near, far = pair()
    poller.register(near, 'pair')

    in_child(lambda: poller.unregister(near))  # what no child may do, and why
    far.send(b'.')

    assert events_of(poller) == []
    with pytest.raises(FileNotFoundError):
        poller.unregister(near)


def test_the_poller_is_closed_once_and_not_passed_on() -> None:
    poller = Poller[str]()
    assert not os.get_inheritable(poller.fileno())

    poller.close()
    poller.close()

    with pytest.raises(ValueError, match='closed'):
        poller.wait(0)
