"""The journal's native protocol, spoken to a real socket."""

import os
import socket
from contextlib import closing, suppress
from select import EPOLLOUT, epoll
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sergeant_linux.kernel.journal import STREAM, JournalSocket, encode, is_stream, renew_streams
from tests.kernel.journals import listen, place

__all__ = ['place']


def fill(teller: JournalSocket) -> None:
    """Send until there is no room."""
    with suppress(BlockingIOError):
        for number in range(100_000):
            teller.write(b'MESSAGE=%d\n' % number)
        pytest.fail('there is always room')


def decode(data: bytes) -> list[tuple[str, str]]:
    """Read an entry as the protocol's text has it."""
    entry = []
    while data:
        line, _, data = data.partition(b'\n')
        name, is_short, value = line.partition(b'=')
        if not is_short:
            length, data = int.from_bytes(data[:8], 'little'), data[8:]
            value, end, data = data[:length], data[length : length + 1], data[length + 1 :]
            assert end == b'\n'
        entry.append((name.decode(), value.decode()))
    return entry


def test_stderr_is_the_journal_where_the_stream_is_this_very_file() -> None:
    with TemporaryFile() as one, TemporaryFile() as other:
        status = os.fstat(one.fileno())
        environ = {'JOURNAL_STREAM': f'{status.st_dev}:{status.st_ino}'}

        assert is_stream(one.fileno(), environ)
        assert not is_stream(other.fileno(), environ)
        assert not is_stream(one.fileno(), {})
        assert not is_stream(one.fileno(), {'JOURNAL_STREAM': 'nonsense'})
        closed = os.dup(one.fileno())
        os.close(closed)
        assert not is_stream(closed, environ)


@given(st.lists(st.tuples(st.from_regex(r'\A[A-Z][A-Z0-9_]{0,20}\Z'), st.text(st.characters(exclude_categories=['Cs'])))))
def test_an_entry_says_what_it_was_given_whatever_is_in_a_value(entry: list[tuple[str, str]]) -> None:
    assert decode(encode(entry)) == entry


def test_what_is_no_text_is_escaped() -> None:
    assert encode([('MESSAGE', 'a\udcffb')]) == b'MESSAGE=a\\udcffb\n'


def test_an_entry_arrives_whole_and_the_journal_sees_who_has_sent_it(place: str) -> None:
    with listen(place) as journal, closing(JournalSocket(place)) as teller:
        journal.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

        assert teller.write(b'MESSAGE=hello\n') == len(b'MESSAGE=hello\n')

        data, ancillary, _, _ = journal.recvmsg(4096, 4096)
        assert data == b'MESSAGE=hello\n'
        assert int.from_bytes(ancillary[0][2][:4], 'little') == os.getpid()


def test_an_entry_that_no_datagram_holds_arrives_as_a_sealed_file(place: str) -> None:
    entry = b'MESSAGE=' + b'x' * (32 << 20) + b'\n'
    with listen(place) as journal, closing(JournalSocket(place)) as teller:
        assert teller.write(entry) == len(entry)

        data, fds, _, _ = socket.recv_fds(journal, 4096, 4)
        assert (data, len(fds)) == (b'', 1)
        with open(fds[0], 'r+b') as file:
            assert os.pread(fds[0], len(entry) + 1, 0) == entry
            with pytest.raises(PermissionError):
                os.write(file.fileno(), b'more')


def test_a_journal_that_does_not_read_blocks_nobody_and_polls_as_writable_when_it_reads_on(place: str) -> None:
    with listen(place) as journal, closing(JournalSocket(place)) as teller, epoll() as poller:
        fill(teller)
        poller.register(teller, EPOLLOUT)
        assert poller.poll(0) == []

        assert journal.recv(4096) == b'MESSAGE=0\n'

        assert poller.poll(10) == [(teller.fileno(), EPOLLOUT)]
        teller.write(b'MESSAGE=again\n')


def test_a_journal_that_came_anew_is_told_by_the_same_socket(place: str) -> None:
    with closing(listen(place)) as journal, closing(JournalSocket(place)) as teller:
        journal.close()
        os.unlink(place)
        with pytest.raises(FileNotFoundError):
            teller.write(b'MESSAGE=lost\n')

        with listen(place) as another:
            teller.write(b'MESSAGE=hello\n')

            assert another.recv(4096) == b'MESSAGE=hello\n'


def test_where_nobody_listens_there_is_no_way(place: str) -> None:
    with pytest.raises(FileNotFoundError):
        JournalSocket(place)


def stream_to(journal: socket.socket) -> tuple[socket.socket, socket.socket, dict[str, str]]:
    """Return a stream to this journal, the journal's end, and an environment that names the stream."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.connect(journal.getsockname())
    status = os.fstat(ours.fileno())
    return ours, journal.accept()[0], {STREAM: f'{status.st_dev}:{status.st_ino}'}


def test_a_stream_that_has_ended_is_renewed_where_it_was(place: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as journal:
        journal.bind(place)
        journal.listen()
        ours, theirs, environ = stream_to(journal)
        with ours:
            theirs.close()
            assert not renew_streams('crawl', {}, [ours.fileno()], place), 'it is no stream that we know of'

            assert renew_streams('crawl\n0', environ, [ours.fileno()], place)

            os.write(ours.fileno(), b'printed\n')
            theirs, _ = journal.accept()
            with theirs:
                assert theirs.recv(100).decode() == 'crawl 0\n\n6\n1\n0\n0\n0\nprinted\n'
                assert os.get_blocking(ours.fileno())
                assert is_stream(ours.fileno(), environ)
                assert not renew_streams('crawl', environ, [ours.fileno()], place), 'it goes on'


def test_a_stream_stays_as_it_is_while_no_journal_listens(place: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as journal:
        journal.bind(place)
        journal.listen()
        ours, theirs, environ = stream_to(journal)
        theirs.close()
    with ours:
        before = dict(environ)

        assert not renew_streams('crawl', environ, [ours.fileno()], place)

        assert environ == before and is_stream(ours.fileno(), environ)
