"""Client: with a real server, and with some that are none."""

import copy
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import sergeant_linux
from sergeant_linux.control import names
from sergeant_linux.control.client import Client, PoolError
from sergeant_linux.control.server import MOST_CLIENTS
from sergeant_linux.wire.protocol import MAX_ANSWER, MAX_REQUEST
from tests.control.server import BIG, Server, ends_well
from tests.kernel.processes import DEADLINE, Fork, run_python

SOON = 0.05
"""Seconds after which a test has waited long enough for what doesn't come."""


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(str(server.path), timeout=DEADLINE) as client:
        yield client


@contextmanager
def server_that_says(path: Path, data: bytes, fork: Fork) -> Iterator[Client]:
    """Give a client of something that says this to whatever is said, and hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def body() -> None:
            connection, _ = listener.accept()
            connection.recv(MAX_REQUEST)
            connection.sendall(data)

        fork(body)
        with Client(str(path), timeout=DEADLINE) as client:
            yield client


def test_it_is_what_the_package_gives() -> None:
    assert sergeant_linux.Client is Client
    assert sergeant_linux.PoolError is PoolError


def test_a_call_returns_the_result(client: Client) -> None:
    assert client.call('echo', n=1, text='ä') == {'n': 1, 'text': 'ä'}
    assert len(client.call('big')['text']) == BIG
    assert client.call('echo') == {}


def test_a_call_passes_over_events(client: Client) -> None:
    assert client.call('count', to=3) == {'counted': 3}


def test_a_stream_yields_each_event_and_then_the_result(client: Client) -> None:
    told = list(client.stream('count', to=2))

    assert told == [{'number': 0}, {'number': 1}, {'result': {'counted': 2}}]


def test_a_stream_that_was_left_does_not_disturb_the_next_call(client: Client) -> None:
    stream = client.stream('count', to=5)
    assert next(stream) == {'number': 0}
    del stream

    assert client.call('echo', n=1) == {'n': 1}


@pytest.mark.parametrize('ask', [Client.call, lambda client, verb: list(client.stream(verb))], ids=['call', 'stream'])
def test_an_error_has_a_code_and_a_message(client: Client, ask: Callable[[Client, str], object]) -> None:
    with pytest.raises(PoolError, match='^there is no verb fly$') as caught:
        ask(client, 'fly')

    assert (caught.value.code, caught.value.message) == ('unknown-verb', 'there is no verb fly')
    assert client.call('echo') == {}


def test_an_error_can_be_copied_and_sent_to_another_process() -> None:
    error = PoolError('busy', 'ask again')

    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (other.code, other.message, str(other)) == ('busy', 'ask again', 'ask again')


def test_a_request_that_is_too_long_is_an_error_of_the_pools(client: Client) -> None:
    with pytest.raises(PoolError, match='a line of over 65536 bytes') as caught:
        client.call('echo', text='x' * 20 * MAX_REQUEST)

    assert caught.value.code == 'too-long'
    with pytest.raises(ConnectionError):
        client.call('echo')


def test_the_longest_answer_is_taken(client: Client) -> None:
    assert len(client.call('big', bytes=MAX_ANSWER - 100)['text']) == MAX_ANSWER - 100


def test_who_is_told_that_the_pool_is_busy_gets_an_error_that_says_so(server: Server) -> None:
    wires = [server.wire() for _ in range(MOST_CLIENTS)]
    for wire in wires:
        wire.request('keep')
    while (kept := wires[0].ask('kept', 2)) and len(kept['result']['gone']) < MOST_CLIENTS:
        pass

    with Client(str(server.path), timeout=DEADLINE) as client:
        with pytest.raises(PoolError) as caught:
            client.call('echo')

    assert caught.value.code == 'busy'


# Patience.


def test_an_answer_that_does_not_come_is_a_timeout_after_which_the_next_one_is_taken(server: Server) -> None:
    with Client(str(server.path), timeout=SOON) as client:
        with pytest.raises(TimeoutError, match=f'^{server.path}: no answer within {SOON} s$'):
            client.call('keep')

        assert server.result('answer-kept') == {'answered': 1}
        assert client.call('echo', timeout=DEADLINE, n=1) == {'n': 1}


def test_a_call_has_its_own_patience(client: Client) -> None:
    with pytest.raises(TimeoutError, match=f'no answer within {SOON} s$'):
        client.call('keep', timeout=SOON)


def test_a_stream_may_be_silent_for_longer_than_an_answer_may_take(server: Server, fork: Fork) -> None:
    def body() -> None:
        with Client(str(server.path), timeout=SOON) as client:
            assert list(client.stream('keep')) == [{'result': {'kept': True}}]

    follower = fork(body)
    server.result_when('kept', lambda kept: kept['gone'] == [False])
    assert not follower.exited(3 * SOON)

    server.result('answer-kept')

    assert ends_well(follower)


def test_a_stream_can_be_told_how_long_it_may_be_silent(client: Client) -> None:
    with pytest.raises(TimeoutError, match=f'no answer within {SOON} s$'):
        next(client.stream('keep', timeout=SOON))


def test_where_more_want_to_connect_than_can_wait_one_waits_and_then_gives_up(folder: Path) -> None:
    path = folder / 'full.sock'
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with closing(Client(str(path))):
            with pytest.raises(TimeoutError, match=f'^{path}: no connection within {SOON} s$'):
                Client(str(path), timeout=SOON)


def test_where_more_want_to_connect_than_can_wait_one_is_let_in_when_there_is_room(folder: Path, fork: Fork) -> None:
    path = folder / 'full.sock'
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with closing(Client(str(path))):
            latecomer = fork(lambda: Client(str(path), timeout=DEADLINE).close())
            assert not latecomer.exited(SOON)

            listener.accept()[0].close()

            assert ends_well(latecomer)


# What is no pool.


@pytest.mark.parametrize(
    'data',
    [
        b'hello\n',
        b'[]\n',
        b'{"v":1,"id":1}\n',
        b'{"v":1,"id":1,"ok":true}\n',
        b'{"v":1,"id":1,"ok":false}\n',
        b'{"v":1,"id":1,"ok":true,"result":7}\n',
        b'{"v":1,"id":1,"ok":true,"result":{}}',
        b'x' * (MAX_ANSWER + 1),
        b'',
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_does_not_answer_as_a_pool_does_is_an_error_of_the_connection(
    folder: Path, fork: Fork, data: bytes
) -> None:
    with server_that_says(folder / 'x.sock', data, fork) as client:
        with pytest.raises(ConnectionError):
            client.call('echo')


def test_who_is_not_there_is_not_there(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client(str(folder / 'nothing.sock'))

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(folder / 'dead.sock'))
    with pytest.raises(ConnectionRefusedError):
        Client(str(folder / 'dead.sock'))


# Finding a pool.


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the only pools are."""
    monkeypatch.setattr(names, 'RUN', str(folder))
    monkeypatch.setattr(names, 'TABLE', os.devnull)  # there may be pools on this host
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(folder))
    monkeypatch.delenv('RUNTIME_DIRECTORY', raising=False)
    (folder / 'sergeant-linux').mkdir()
    return folder / 'sergeant-linux'


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_the_only_pool_is_found_and_dead_ones_are_not(place: Path) -> None:
    listen(place / 'dead.sock').close()
    with listen(place / 'mill.sock'):
        for name in (None, 'mill'):
            with Client.find(name) as client:
                assert client.path == str(place / 'mill.sock')


def test_of_several_one_is_to_be_named(place: Path) -> None:
    with listen(place / 'a.sock'), listen(place / 'b.sock'):
        with pytest.raises(LookupError, match=f'^several pools are running, name one of them: {place}/a.sock, {place}/b'):
            Client.find()
        with Client.find('b') as client:
            assert client.path == str(place / 'b.sock')


def test_where_there_is_none_one_line_says_so(place: Path) -> None:
    listen(place / 'dead.sock').close()

    with pytest.raises(LookupError, match='^no pool is running here$'):
        Client.find()
    with pytest.raises(LookupError, match='^no pool named dead is running here$'):
        Client.find('dead')


def test_a_pool_that_does_not_answer_is_named(place: Path) -> None:
    with listen(place / 'full.sock') as listener:
        listener.listen(0)
        with closing(Client(str(place / 'full.sock'))):
            with pytest.raises(LookupError, match=f'running here \\({place}/full.sock does not answer\\)$'):
                Client.find(timeout=SOON)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')
def test_a_pool_that_is_not_ours_is_named(place: Path, fork: Fork) -> None:
    with listen(place / 'roots.sock'):
        os.chmod(place / 'roots.sock', 0o600)

        def body() -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with pytest.raises(LookupError, match=f'running here \\({place}/roots.sock is not ours to ask\\)$'):
                Client.find()

        assert ends_well(fork(body))


def test_a_client_imports_nothing_heavy() -> None:
    heavy = ['argparse', 'asyncio', 'dataclasses', 'inspect', 'logging', 'multiprocessing', 'psutil', 'subprocess']
    loaded = run_python(
        f"""
        import sys
        before = set(sys.modules)
        import sergeant_linux.control.client
        answer = [name for name in {heavy} if name in set(sys.modules) - before]
        """
    )

    assert loaded == []
