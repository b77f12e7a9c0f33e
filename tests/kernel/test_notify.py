"""sd_notify's protocol on real sockets: who is told, who is told later, and who never is."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sergeant_linux.kernel import notify
from sergeant_linux.kernel.notify import Address, BadAddress, NotifySocket, address, watchdog_span

ABSTRACT = '@sergeant-linux-test-'


@pytest.fixture(params=['path', 'abstract'])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == 'abstract':
        return ABSTRACT + os.urandom(8).hex()
    os.chdir(tmp_path)  # a path that is short enough, whatever the folder
    return f'/proc/self/cwd/{os.urandom(4).hex()}'


@pytest.fixture(autouse=True)
def working_folder() -> Iterator[None]:
    before = Path.cwd()
    yield
    os.chdir(before)


def listen(place: str) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    manager.bind(place.replace('@', '\0', 1))
    return manager


def fill(teller: NotifySocket) -> int:
    """Send until there is no room; return how many messages there was room for."""
    for number in range(100_000):
        if not teller.send(b'STATUS=%d\n' % number):
            return number
    raise AssertionError('there is always room')


# Sending.


def test_a_message_arrives_as_it_was_sent_with_the_pid_of_its_sender(place: str) -> None:
    with listen(place) as manager, closing(NotifySocket(address(place))) as teller:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

        assert teller.send('READY=1\nSTATUS=so viel: ½\n'.encode())

        message, ancillary, _, _ = manager.recvmsg(4096, 4096)
        assert message.decode() == 'READY=1\nSTATUS=so viel: ½\n'
        assert int.from_bytes(ancillary[0][2][:4], 'little') == os.getpid()


def test_a_manager_that_does_not_read_blocks_nobody_and_is_told_later(place: str) -> None:
    with listen(place) as manager, closing(NotifySocket(address(place))) as teller:
        taken = fill(teller)
        assert not teller.send(b'READY=1\n')

        assert [manager.recv(4096) for _ in range(taken)] == [b'STATUS=%d\n' % number for number in range(taken)]
        assert teller.send(b'READY=1\n')
        assert manager.recv(4096) == b'READY=1\n'


def test_a_manager_that_is_gone_is_an_error_and_one_that_has_come_again_is_told(tmp_path: Path) -> None:
    os.chdir(tmp_path)
    place = '/proc/self/cwd/manager'
    with closing(NotifySocket(address(place))) as teller:
        with pytest.raises(FileNotFoundError):
            teller.send(b'READY=1\n')
        listen(place).close()
        with pytest.raises(ConnectionRefusedError):
            teller.send(b'READY=1\n')
        os.unlink(place)
        with listen(place) as manager:
            assert teller.send(b'READY=1\n')
            assert manager.recv(4096) == b'READY=1\n'


@pytest.mark.parametrize('kind', [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_where_there_are_no_datagrams_each_message_is_a_connection(kind: int) -> None:
    where = b'\0sergeant-linux-test-' + os.urandom(8)
    with socket.socket(socket.AF_UNIX, kind) as manager, closing(
        NotifySocket(Address(socket.AF_UNIX, (kind,), where))
    ) as teller:
        with pytest.raises(ConnectionRefusedError):
            teller.send(b'READY=1\n')
        manager.bind(where)
        manager.listen(0)

        assert teller.send(b'READY=1\n')
        assert not teller.send(b'STOPPING=1\n'), 'the queue of connections has room for one'

        for message in (b'READY=1\n', b'STOPPING=1\n'):
            with manager.accept()[0] as connection:
                assert connection.recv(4096) == message
                assert connection.recv(4096) == b''
            assert teller.send(b'STOPPING=1\n')


def test_a_type_of_socket_that_is_not_there_is_passed_over() -> None:
    no_such_type = socket.SOCK_RDM  # unix(7) has none
    where = b'\0sergeant-linux-test-' + os.urandom(8)
    to = Address(socket.AF_UNIX, (no_such_type, socket.SOCK_DGRAM), where)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(where)
        with closing(NotifySocket(to)) as teller:
            assert teller.send(b'READY=1\n')
        assert manager.recv(4096) == b'READY=1\n'
    with pytest.raises(OSError, match='not supported'):
        NotifySocket(Address(socket.AF_UNIX, (no_such_type,), where))


def vsock_to_ourselves() -> socket.socket:
    """Return a listening socket that can be reached from here, or skip."""
    listener = connection = None
    try:
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen()
        connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        connection.settimeout(1)
        connection.connect((1, listener.getsockname()[1]))
        listener.accept()[0].close()
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        pytest.skip(f'this kernel has no vsock loopback: {error}')
    finally:
        if connection is not None:
            connection.close()


def test_the_host_of_a_virtual_machine_is_told() -> None:
    with vsock_to_ourselves() as host:
        host.settimeout(10)
        with closing(NotifySocket(address(f'vsock-stream:1:{host.getsockname()[1]}'))) as teller:
            for message in (b'READY=1\n', b'STOPPING=1\n'):
                while not teller.send(message):
                    pass
                with host.accept()[0] as connection:
                    assert connection.recv(4096) == message


# Addresses.


@pytest.mark.parametrize(('text', 'where'), [
    ('/run/systemd/notify', b'/run/systemd/notify'),
    ('@name/of any', b'\0name/of any'),
    ('/' + 106 * 'a', b'/' + 106 * b'a'),
    ('@' + 107 * 'a', b'\0' + 107 * b'a'),
    ('/\udcff', b'/\xff'),
])
def test_the_address_of_a_unix_socket_is_a_path_or_a_name(text: str, where: bytes) -> None:
    assert address(text) == (socket.AF_UNIX, (socket.SOCK_DGRAM,), where)


@pytest.mark.parametrize(('text', 'types', 'where'), [
    ('vsock:2:1234', (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM), (2, 1234)),
    ('vsock-stream:2:1', (socket.SOCK_STREAM,), (2, 1)),
    ('vsock-seqpacket:2:1', (socket.SOCK_SEQPACKET,), (2, 1)),
    ('vsock-dgram:4294967294:1', (socket.SOCK_DGRAM,), (4294967294, 1)),
])
def test_the_address_of_a_vsock_is_a_machine_and_a_port(text: str, types: tuple[int, ...], where: tuple[int, int]) -> None:
    assert address(text) == (socket.AF_VSOCK, types, where)


@pytest.mark.parametrize('text', [
    '', '/', '@', 'run/notify', '/' + 107 * 'a', '@' + 108 * 'a', '/a\0b',
    'vsock:2', 'vsock:2:', 'vsock::1', 'vsock:-1:1', 'vsock:4294967295:1', 'vsock:2:4294967295', 'vsock:two:1',
    'vsock-raw:2:1', 'tcp:1:1', 'vsock:2:1\n',
])
def test_another_address_is_none(text: str) -> None:
    with pytest.raises(BadAddress, match='expected an absolute path, @NAME or vsock:CID:PORT, not '):
        address(text)


# The watchdog.


@pytest.mark.parametrize(('environ', 'span'), [
    ({}, None),
    ({'WATCHDOG_USEC': '30000000'}, 30.0),
    ({'WATCHDOG_USEC': '1', 'WATCHDOG_PID': '42'}, 1e-6),
    ({'WATCHDOG_USEC': '30000000', 'WATCHDOG_PID': '43'}, None),
    ({'WATCHDOG_USEC': '30000000', 'WATCHDOG_PID': ''}, None),
    ({'WATCHDOG_USEC': '30000000', 'WATCHDOG_PID': 'x'}, None),
    ({'WATCHDOG_PID': '42'}, None),
    ({'WATCHDOG_USEC': '0'}, None),
    ({'WATCHDOG_USEC': '-1'}, None),
    ({'WATCHDOG_USEC': '1.5'}, None),
    ({'WATCHDOG_USEC': '١'}, None),
    ({'WATCHDOG_USEC': 'soon'}, None),
    ({'WATCHDOG_USEC': '18446744073709551615'}, None),
    ({'WATCHDOG_USEC': 5000 * '9'}, None),
])
def test_a_watchdog_is_ours_when_it_names_our_process_or_none(environ: dict[str, str], span: float | None) -> None:
    assert watchdog_span(environ, 42) == span


def test_only_what_is_said_to_one_process_is_kept_from_others() -> None:
    kept: Callable[[str], bool] = notify.VARIABLES.__contains__
    assert all(map(kept, ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES')))
    assert not any(map(kept, ('JOURNAL_STREAM', 'INVOCATION_ID', 'LISTEN_ADDRESS', 'WATCHDOG_INTERVAL', 'NOTIFY_SOCKETS')))
