"""Control: with real clients, which behave badly."""

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from sergeant_linux.control.server import MOST_CLIENTS, MOST_REQUESTS, REQUESTS_A_TURN, SETTLED
from sergeant_linux.wire.protocol import MAX_ANSWER, MAX_REQUEST
from tests.control.server import BIG, Message, Server, Wire
from tests.kernel.processes import DEADLINE, in_child

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')

NOBODY = 65534
OTHERS = 12345
"""A group."""


def code(answer: Message | None) -> object:
    assert answer is not None
    return answer['error']['code']


# Requests and answers.


def test_a_request_is_answered_under_its_id(server: Server) -> None:
    wire = server.wire()

    assert wire.ask('echo', 'a text', n=1) == {'v': 1, 'id': 'a text', 'ok': True, 'result': {'n': 1}}
    assert wire.ask('echo', 8) == {'v': 1, 'id': 8, 'ok': True, 'result': {}}


def test_events_come_before_the_answer(server: Server) -> None:
    wire = server.wire()

    wire.request('count', 7, to=3)

    assert [wire.receive() for _ in range(4)] == [
        *({'v': 1, 'id': 7, 'event': {'number': number}} for number in range(3)),
        {'v': 1, 'id': 7, 'ok': True, 'result': {'counted': 3}},
    ]


def test_what_is_said_after_the_answer_is_dropped(server: Server) -> None:
    wire = server.wire()

    first = wire.ask('twice', 1)
    second = wire.ask('echo', 2)

    assert first is not None and first['result'] == {'time': 1}
    assert second is not None and second['id'] == 2
    assert server.result('seen')['errors'] == []


def test_requests_may_be_sent_before_the_last_one_is_answered(server: Server) -> None:
    wire = server.wire()
    many = 5 * REQUESTS_A_TURN

    for number in range(many):
        wire.request('echo', number)

    assert [answer['id'] for _ in range(many) if (answer := wire.receive())] == list(range(many))


def test_a_client_that_has_said_all_still_gets_its_answers(server: Server) -> None:
    wire = server.wire()
    many = 3 * REQUESTS_A_TURN
    for number in range(many):
        wire.request('echo', number)
    wire.socket.shutdown(socket.SHUT_WR)

    ids = [answer['id'] for _ in range(many) if (answer := wire.receive())]

    assert ids == list(range(many))
    assert wire.is_ended()


def test_a_request_is_kept_until_it_is_answered(server: Server) -> None:
    wire = server.wire()
    wire.request('keep')
    wire.socket.shutdown(socket.SHUT_WR)
    server.result_when('kept', lambda kept: kept['gone'] == [False])

    server.result('answer-kept')

    assert wire.receive() == {'v': 1, 'id': 1, 'ok': True, 'result': {'kept': True}}
    assert wire.is_ended()


def test_an_answer_to_who_is_gone_is_harmless(server: Server) -> None:
    wire = server.wire()
    wire.request('keep')
    server.result_when('kept', lambda kept: kept['gone'] == [False])

    wire.close()
    server.result_when('kept', lambda kept: kept['gone'] == [True])

    assert server.result('tell-kept', times=1, bytes=1) == {'gone': [True]}
    assert server.result('answer-kept') == {'answered': 1}
    assert server.result('seen')['errors'] == []


def test_the_request_of_who_hangs_up_at_once_is_heard(server: Server) -> None:
    wire = server.wire()

    wire.request('keep')
    wire.close()

    server.result_when('kept', lambda kept: kept['gone'] == [True])


# What is no request.


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        (b'', 'bad-request'),
        (b'hello', 'bad-request'),
        (b'[]', 'bad-request'),
        (b'\xff\xfe', 'bad-request'),
        (b'{"v":1,"id":1,"verb":"echo","args":{"n":NaN}}', 'bad-request'),
        (b'{"v":1,"verb":"echo"}', 'bad-request'),
        (b'{"v":1,"id":null,"verb":"echo"}', 'bad-request'),
        (b'{"v":1,"id":true,"verb":"echo"}', 'bad-request'),
        (b'{"v":1,"id":1.5,"verb":"echo"}', 'bad-request'),
        (b'{"v":1,"id":"' + b'x' * 65 + b'","verb":"echo"}', 'bad-request'),
        (b'[' * 60_000, 'bad-request'),
        (b'{"v":' + b'[' * 900 + b']' * 900 + b',"id":[],"verb":"echo"}', 'bad-request'),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_line_that_is_no_request_is_answered_without_an_id_and_the_next_one_is_heard(
    server: Server, line: bytes, expected: str
) -> None:
    wire = server.wire()

    wire.send(line + b'\n')
    answer = wire.receive()

    assert answer is not None and answer['id'] is None and answer['ok'] is False
    assert answer['error']['code'] == expected
    assert '\n' not in answer['error']['message']
    assert wire.ask('echo', 2, n=1) == {'v': 1, 'id': 2, 'ok': True, 'result': {'n': 1}}


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        ({'v': 2, 'id': 5, 'verb': 'echo'}, 'version'),
        ({'id': 5, 'verb': 'echo'}, 'version'),
        ({'v': 1, 'id': 5, 'verb': 5}, 'bad-request'),
        ({'v': 1, 'id': 5}, 'bad-request'),
        ({'v': 1, 'id': 5, 'verb': 'echo', 'args': []}, 'bad-request'),
        ({'v': 1, 'id': 5, 'verb': 'fly'}, 'unknown-verb'),
    ],
    ids=str,
)
def test_a_request_that_is_wrong_is_answered_under_its_id(server: Server, message: Message, expected: str) -> None:
    wire = server.wire()

    wire.send(json.dumps(message).encode() + b'\n')
    answer = wire.receive()

    assert code(answer) == expected
    assert answer is not None and answer['id'] == 5
    assert wire.ask('echo', 2) == {'v': 1, 'id': 2, 'ok': True, 'result': {}}


def test_a_request_may_be_as_long_as_the_bound_and_no_longer(server: Server) -> None:
    frame = b'{"v":1,"id":1,"verb":"echo","args":{"text":""}}'
    wire = server.wire()

    wire.send(frame.replace(b'""', b'"' + b'x' * (MAX_REQUEST - len(frame)) + b'"') + b'\n')
    fits = wire.receive()
    wire.send(frame.replace(b'""', b'"' + b'x' * (MAX_REQUEST - len(frame) + 1) + b'"') + b'\n')
    does_not = wire.receive()

    assert fits is not None and fits['ok']
    assert code(does_not) == 'too-long'
    assert does_not is not None and does_not['id'] is None
    assert wire.is_ended()


def test_a_line_without_an_end_is_refused_before_it_ends(server: Server) -> None:
    wire = server.wire()

    with suppress(BrokenPipeError, ConnectionResetError):
        wire.send(b'x' * 10 * MAX_REQUEST)

    assert code(wire.receive()) == 'too-long'
    assert wire.is_ended()


# A desk that errs.


def test_what_the_desk_raises_is_answered_and_comes_through_to_the_loop(server: Server) -> None:
    wire = server.wire()

    assert code(wire.ask('raise')) == 'internal'
    assert server.result('seen')['errors'] == ['RuntimeError: the desk has fallen over']


def test_a_desk_that_raises_after_its_answer_has_answered_once(server: Server) -> None:
    wire = server.wire()

    first, second = wire.ask('answer-and-raise', 1), wire.ask('echo', 2)

    assert first == {'v': 1, 'id': 1, 'ok': True, 'result': {}}
    assert second is not None and second['id'] == 2
    assert server.result('seen')['errors'] == ['RuntimeError: the desk has fallen over']


@pytest.mark.parametrize('verb', ['unspeakable', 'unspeakable-event'])
def test_what_json_cannot_say_is_an_internal_error_and_the_answer(server: Server, verb: str) -> None:
    wire = server.wire()

    first, second = wire.ask(verb, 1), wire.ask('echo', 2)

    assert code(first) == 'internal'
    assert second is not None and second['id'] == 2
    [error] = server.result('seen')['errors']
    assert error.startswith('ValueError')


def test_an_answer_that_is_too_long_is_replaced_by_an_error(server: Server) -> None:
    wire = server.wire()

    assert code(wire.ask('big', 1, bytes=MAX_ANSWER)) == 'too-long'
    assert code(wire.ask('long-event', 2)) == 'too-long'
    longest = wire.ask('big', 3, bytes=MAX_ANSWER - 100)
    assert longest is not None and longest['ok']


# Clients that are slow, silent, or many.


def test_of_one_client_at_most_so_many_requests_are_in_work_and_the_rest_is_heard_later(server: Server) -> None:
    wire = server.wire()
    for number in range(MOST_REQUESTS + 2):
        wire.request('keep', number)

    kept = server.result_when('kept', lambda kept: len(kept['gone']) >= MOST_REQUESTS)
    server.result('answer-kept')
    rest = server.result_when('kept', lambda kept: len(kept['gone']) == 2)
    server.result('answer-kept')

    assert kept['gone'] == [False] * MOST_REQUESTS
    assert rest['gone'] == [False] * 2
    assert [answer['id'] for _ in range(MOST_REQUESTS + 2) if (answer := wire.receive())] == list(range(18))


def test_who_does_not_read_its_answers_is_not_heard_until_it_does(server: Server) -> None:
    wire = server.wire()
    for number in range(4):
        wire.request('big', number)
    wire.request('keep', 4)
    before = server.result('kept')

    for _ in range(4):
        answer = wire.receive()
        assert answer is not None and len(answer['result']['text']) == BIG

    assert before['gone'] == []
    server.result_when('kept', lambda kept: kept['gone'] == [False])


def test_who_does_not_read_what_it_follows_is_dropped_in_the_end(server: Server) -> None:
    deaf, attentive = server.wire(), server.wire()
    for each in (deaf, attentive):
        each.request('keep')
    server.result_when('kept', lambda kept: len(kept['gone']) == 2)

    told = 0
    while server.result('kept')['gone'].count(True) == 0:
        server.result('tell-kept', times=1, bytes=BIG)
        event = attentive.receive()
        assert event is not None and len(event['event']['text']) == BIG
        told += 1
        assert told * BIG <= 2 * MAX_ANSWER, 'it is kept for ever'

    assert told * BIG > MAX_ANSWER // 2
    assert sorted(server.result('kept')['gone']) == [False, True]


def test_a_flood_of_short_lines_is_not_read_ahead(server: Server) -> None:
    """Unread, it waits in the sender's socket: what is under way is bounded."""
    wire = server.wire()
    wire.socket.setblocking(False)
    flood = b'x\n' * 32_768
    sent, answered, most_under_way = 0, 0, 0
    deadline = time.monotonic() + DEADLINE

    while answered < 2_000 and time.monotonic() < deadline:
        with suppress(BlockingIOError):
            sent += wire.socket.send(flood)
        with suppress(BlockingIOError):
            answered += wire.socket.recv(65_536).count(b'\n')
        most_under_way = max(most_under_way, sent - 2 * answered)

    assert answered >= 2_000
    assert most_under_way < 2 * 1024 * 1024
    assert server.result('seen')['most_in_a_turn'] <= REQUESTS_A_TURN


def test_when_the_table_is_full_who_has_been_silent_longest_makes_room(server: Server) -> None:
    first = server.wire()
    assert first.ask('echo') is not None
    others = [server.wire() for _ in range(MOST_CLIENTS - 1)]
    for each in others:
        each.request('keep')  # they wait for an answer, and so keep their places
        each.socket.setblocking(False)

    assert _ask_until_served(server)['result'] == {'me': 1}

    assert first.is_ended()
    for each in others:
        with pytest.raises(BlockingIOError):
            each.receive()


def test_who_reads_no_answers_makes_room_as_well(server: Server) -> None:
    deaf = [server.wire() for _ in range(MOST_CLIENTS)]
    for wire in deaf:
        wire.request('keep')
    server_is_full = deaf[0].ask('kept')
    while server_is_full and len(server_is_full['result']['gone']) < MOST_CLIENTS:
        server_is_full = deaf[0].ask('kept')
    deaf[0].request('tell-kept', times=1, bytes=BIG)

    assert _ask_until_served(server)['result'] == {'me': 1}


def test_what_many_say_at_once_is_heard_in_many_turns(server: Server) -> None:
    wires = [server.wire() for _ in range(20)]
    server.process.signal(signal.SIGSTOP)
    for wire in wires:
        for number in range(MOST_REQUESTS):
            wire.request('echo', number)

    server.process.signal(signal.SIGCONT)

    for wire in wires:
        assert [answer['id'] for _ in range(MOST_REQUESTS) if (answer := wire.receive())] == list(range(MOST_REQUESTS))
    assert server.result('seen')['most_in_a_turn'] == REQUESTS_A_TURN


def test_when_all_are_at_work_one_more_is_told_busy(server: Server) -> None:
    wires = [server.wire() for _ in range(MOST_CLIENTS)]
    for wire in wires:
        wire.request('keep')
    while (kept := wires[0].ask('kept', 2)) and len(kept['result']['gone']) < MOST_CLIENTS:
        pass

    late = server.wire()

    answer = late.receive()

    assert code(answer) == 'busy'
    assert answer is not None and answer['id'] is None
    assert late.is_ended()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2048:
        pytest.skip(f'{before[1]} descriptors are too few for this test')
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048 if before[0] < 2048 else before[0], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _silent(wire: Wire) -> None:
    pass


def _says_nonsense(wire: Wire) -> None:
    wire.socket.send(b'nonsense\n' * 1000)


def _never_ends(wire: Wire) -> None:
    wire.socket.send(b'x' * 60_000)
    wire.socket.send(b'x' * 60_000)


def _never_reads(wire: Wire) -> None:
    for number in range(4):
        wire.request('big', number)


def test_a_thousand_clients_that_behave_badly_keep_nobody_out(many_descriptors: None, server: Server) -> None:
    assert server.result('seen')['errors'] == []
    before = server.descriptors()
    behaviours = [_silent, _says_nonsense, _never_ends, _never_reads]
    crowd = []
    for number in range(1000):
        wire = server.wire()
        crowd.append(wire)
        wire.socket.setblocking(False)
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):  # it is turned away
            behaviours[number % 4](wire)

    answer = _ask_until_served(server)
    descriptors = server.descriptors()
    seen = _ask_until_served(server, 'seen')['result']

    assert answer['result'] == {'me': 1}
    assert seen['most_in_a_turn'] <= REQUESTS_A_TURN
    assert descriptors <= before + MOST_CLIENTS
    assert seen['errors'] == []
    for wire in crowd:
        wire.close()
    server.result_when('echo', lambda _: server.descriptors() <= before + 1)  # the one that asks


def _ask_until_served(server: Server, verb: str = 'echo') -> Message:
    """Ask as one does who is told `busy`: again."""
    deadline = time.monotonic() + DEADLINE
    while True:
        wire = Wire(server.path)
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.request(verb, me=1)
        answer = wire.receive()
        wire.close()
        assert answer is not None
        if answer['ok']:
            return answer
        assert answer['error']['code'] == 'busy', answer
        assert time.monotonic() < deadline, 'nobody makes room'
        time.sleep(0.01)


def test_a_silent_pool_of_clients_wakes_nobody(server: Server) -> None:
    wires = [server.wire() for _ in range(10)]
    for wire in wires:
        assert wire.ask('echo') is not None
    quiet = server.wire()

    first = quiet.ask('seen')
    time.sleep(0.3)  # in which nothing is to happen
    second = quiet.ask('seen')

    assert first is not None and second is not None
    assert second['result']['turns'] - first['result']['turns'] <= 4


def test_without_a_descriptor_nobody_is_let_in_and_the_loop_does_not_spin(server: Server) -> None:
    inside = server.wire()
    assert inside.ask('limit', on=True) is not None
    outside = server.wire()
    outside.request('echo')

    first = inside.ask('seen')
    time.sleep(0.3)  # in which a loop that spins makes thousands of turns
    second = inside.ask('seen')
    before = server.descriptors()
    limit = inside.ask('limit', on=False)
    answer = outside.receive()

    assert first is not None and second is not None and limit is not None
    assert second['result']['turns'] - first['result']['turns'] <= 6
    assert answer is not None and answer['ok']
    assert server.descriptors() == before + 1


# Who may ask.


def _as_somebody_else(server: Server, groups: list[int]) -> Message | None:
    def ask() -> Message | None:
        os.setgroups(groups)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        wire = Wire(server.path)
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.request('echo')
        answer = wire.receive()
        assert answer is not None
        return answer if answer['ok'] or wire.is_ended() else None

    answer: Message | None = in_child(ask)
    return answer


@needs_root
def test_another_user_is_denied(start: Callable[..., Server]) -> None:
    answer = _as_somebody_else(start(), [])

    assert code(answer) == 'denied'
    assert answer is not None and answer['id'] is None


@needs_root
def test_a_member_of_the_control_group_may_ask_and_of_another_may_not(start: Callable[..., Server]) -> None:
    server = start(group=OTHERS)

    member = _as_somebody_else(server, [1, OTHERS])
    stranger = _as_somebody_else(server, [1, OTHERS + 1])

    assert member is not None and member['ok']
    assert code(stranger) == 'denied'


@needs_root
def test_who_is_denied_takes_nobodys_place(start: Callable[..., Server]) -> None:
    server = start()
    wires = [server.wire() for _ in range(MOST_CLIENTS)]
    for wire in wires:
        assert wire.ask('echo') is not None
    time.sleep(SETTLED)  # from now on any of them would make room for who may ask

    denied = _as_somebody_else(server, [])

    assert code(denied) == 'denied'
    for wire in wires:
        assert wire.ask('echo') is not None


# The end.


def test_when_the_server_is_gone_every_client_is_told_so(server: Server) -> None:
    wire = server.wire()
    assert wire.ask('echo') is not None

    server.process.signal(signal.SIGKILL)

    assert wire.is_ended()
