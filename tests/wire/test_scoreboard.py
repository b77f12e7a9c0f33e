"""The page of a life: what its worker writes, the supervisor reads, whatever that is."""

import ctypes
import fcntl
import math
import mmap
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sergeant_linux.wire.scoreboard import (
    DONE,
    ERROR,
    ERROR_LENGTH,
    ERROR_SEQUENCE,
    FAILED,
    MAX_ERROR,
    SIGN,
    SIZE,
    STARTED,
    Look,
    Page,
    Pen,
)

EMPTY = Look(0, 0, None, None, None)


@pytest.fixture
def page() -> Iterator[Page]:
    with closing(Page()) as page:
        yield page
        os.close(page.fd)


@pytest.fixture
def pen(page: Page) -> Iterator[Pen]:
    with closing(Pen(os.dup(page.fd))) as pen:
        yield pen


def test_a_fresh_page_says_nothing(page: Page) -> None:
    assert page.look() == EMPTY


def test_what_the_worker_writes_is_read_at_once(page: Page, pen: Pen) -> None:
    now = time.monotonic()

    pen.numbers[DONE], pen.numbers[FAILED] = 7, 2
    pen.times[STARTED], pen.times[SIGN] = now - 1, now
    pen.error("ValueError('é')")

    assert page.look() == Look(7, 2, now - 1, now, "ValueError('é')")


def test_a_worker_in_a_process_of_its_own_writes_into_the_same_page(page: Page) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            Pen(page.fd).numbers[DONE] = 5
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert page.look().tasks_done == 5


@pytest.mark.parametrize('size', [0, 1, 2 * SIZE])
def test_the_worker_can_make_the_page_neither_smaller_nor_larger(page: Page, pen: Pen, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(page.fd, size)

    assert page.look() == EMPTY


def test_the_worker_can_neither_add_seals_nor_write_through_the_supervisor_s_side(page: Page) -> None:
    with pytest.raises(PermissionError):
        fcntl.fcntl(page.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with pytest.raises(TypeError):
        page._numbers[DONE] = 1


def test_a_page_whose_memory_was_taken_away_reads_as_fresh(page: Page, pen: Pen) -> None:
    pen.numbers[DONE] = 7

    keep_size, punch_hole = 1, 2  # fallocate(2)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.fallocate(page.fd, keep_size | punch_hole, ctypes.c_long(0), ctypes.c_long(SIZE)) == 0

    assert page.look() == EMPTY


@pytest.mark.parametrize('moment', [math.nan, math.inf, -math.inf, -1.0, -0.0, 1e300, 5e-324 * 0])
def test_a_time_that_can_not_be_is_unknown(page: Page, pen: Pen, moment: float) -> None:
    pen.times[STARTED] = pen.times[SIGN] = moment

    assert page.look() == EMPTY


def test_a_time_that_is_to_come_is_unknown(page: Page, pen: Pen) -> None:
    pen.times[STARTED] = pen.times[SIGN] = time.monotonic() + 3600

    assert page.look() == EMPTY


def test_a_negative_number_of_tasks_is_unknown(page: Page, pen: Pen) -> None:
    pen.numbers[DONE] = pen.numbers[FAILED] = -1

    assert page.look() == Look(None, None, None, None, None)


@pytest.mark.parametrize(('text', 'read'), [
    ('', None),
    ('x' * 1000, 'x' * MAX_ERROR),
    ('é' * 1000, 'é' * (MAX_ERROR // 2)),
    ('x' + 'é' * 1000, 'x' + 'é' * (MAX_ERROR // 2 - 1)),  # a character is not cut through
    ('\ud800', '\\ud800'),
    ('two\nlines \x1b[2J', 'two\\nlines \\x1b[2J'),
])
def test_the_last_error_is_cut_and_made_readable(page: Page, pen: Pen, text: str, read: str | None) -> None:
    pen.error(text)

    assert page.look().last_error == read


def test_a_shorter_error_replaces_a_longer_one(page: Page, pen: Pen) -> None:
    pen.error('long' * 100)
    pen.error('short')

    assert page.look().last_error == 'short'


def test_an_error_that_was_left_half_written_is_unknown_until_the_next_one(page: Page, pen: Pen) -> None:
    pen.error('whole')
    pen.numbers[ERROR_SEQUENCE] += 1

    assert page.look().last_error is None

    pen.error('next')
    assert page.look().last_error == 'next'


@pytest.mark.parametrize('length', [-1, -(2**63), MAX_ERROR + 1, 2**63 - 1])
def test_an_error_of_an_impossible_length_is_unknown(page: Page, pen: Pen, length: int) -> None:
    pen.error('whole')
    pen.numbers[ERROR_LENGTH] = length

    assert page.look().last_error is None


def test_a_number_is_never_seen_half_written_and_a_text_never_mixed(page: Page) -> None:
    # given a worker that writes, for ever, numbers whose halves are equal, and texts of one letter
    pid = os.fork()
    if pid == 0:
        try:
            pen = Pen(page.fd)
            while True:
                for number, letter in ((0x1111111111111111, 'a'), (0x2222222222222222, 'b')):
                    pen.numbers[DONE] = number
                    pen.error(letter * MAX_ERROR)
        finally:
            os._exit(1)
    try:
        # when it is looked at until much was seen
        seen_numbers: set[int | None] = set()
        seen_letters: set[str] = set()
        deadline = time.monotonic() + 10
        looks = 0
        while (looks < 20_000 or len(seen_letters) < 2) and time.monotonic() < deadline:
            look = page.look()
            looks += 1
            seen_numbers.add(look.tasks_done)
            if look.last_error is not None:
                assert len(look.last_error) == MAX_ERROR
                seen_letters |= set(look.last_error) if len(set(look.last_error)) == 1 else {look.last_error}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    # then only whole ones were
    assert seen_numbers <= {0, 0x1111111111111111, 0x2222222222222222}
    assert seen_letters == {'a', 'b'}


@given(st.binary(max_size=ERROR + MAX_ERROR + 16))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_make_a_look_that_makes_sense(page: Page, data: bytes) -> None:
    os.pwrite(page.fd, data.ljust(SIZE, b'\0'), 0)

    look = page.look()

    for count in (look.tasks_done, look.tasks_failed):
        assert count is None or 0 <= count < 2**63
    for moment in (look.task_started, look.last_sign):
        assert moment is None or 0 < moment <= time.monotonic()
    assert look.last_error is None or (look.last_error.isprintable() and look.last_error)


def test_the_layout_is_the_one_that_is_written_down(page: Page, pen: Pen) -> None:
    now = time.monotonic()
    pen.numbers[DONE], pen.numbers[FAILED], pen.times[STARTED], pen.times[SIGN] = 1, 2, now, now
    pen.error('abc')

    said = struct.unpack_from('=qqddqq3s', os.pread(page.fd, SIZE, 0))

    assert said == (1, 2, now, now, 2, 3, b'abc')


def test_only_one_descriptor_is_kept_on_each_side() -> None:
    before = set(os.listdir('/proc/self/fd'))
    page = Page()
    pen = Pen(page.fd)

    assert len(set(os.listdir('/proc/self/fd')) - before) == 2
    page.close()
    pen.close()
    assert set(os.listdir('/proc/self/fd')) == before


def test_a_page_is_as_large_as_one_of_the_kernel_s(page: Page) -> None:
    assert os.fstat(page.fd).st_size == mmap.PAGESIZE
