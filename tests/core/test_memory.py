"""When a worker's memory is looked at, and what a look means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sergeant_linux.core.memory import (
    CALM_CEILING,
    CALM_GROWTH,
    FLOOR,
    GROWTH,
    MARK_MIN_LIFE,
    MARK_PAUSE,
    MARK_SAMPLES,
    ROOM,
    Finding,
    Gauge,
)

MIB = 1024**2
GIB = 1024**3
LONG_READY = MARK_MIN_LIFE + 1
BYTES = st.integers(1, 8 * GIB)
BORDERS = st.none() | BYTES


def gauge(limit: int | None = None, mark: int | None = None, ceiling: float = 0.5) -> Gauge:
    """Return a gauge of a worker that has been ready since 0 with 10 MiB."""
    gauge = Gauge(limit, mark, ceiling)
    gauge.ready(0.0)
    gauge.sample(10 * MIB, 0.0)
    return gauge


def test_a_worker_is_over_its_limit_when_it_has_one_byte_more() -> None:
    one = gauge(limit=64 * MIB)

    assert one.sample(64 * MIB, 1.0) is Finding.FINE
    assert one.sample(64 * MIB + 1, 1.0) is Finding.OVER_LIMIT


def test_the_limit_counts_before_a_worker_is_ready() -> None:
    assert Gauge(64 * MIB, None, 0.5).sample(65 * MIB, 0.0) is Finding.OVER_LIMIT


def test_the_mark_counts_after_several_looks_in_a_row() -> None:
    one = gauge(mark=64 * MIB)

    findings = [one.sample(65 * MIB, LONG_READY) for _ in range(MARK_SAMPLES)]

    assert findings == [Finding.FINE] * (MARK_SAMPLES - 1) + [Finding.OVER_MARK]


def test_a_look_below_the_mark_begins_the_row_anew() -> None:
    one = gauge(mark=64 * MIB)
    over, below = 65 * MIB, 64 * MIB

    findings = {one.sample(size, LONG_READY) for size in [*[over] * (MARK_SAMPLES - 1), below] * 5}

    assert findings == {Finding.FINE}


def test_the_mark_counts_only_in_a_life_that_has_been_ready_for_some_time() -> None:
    one = gauge(mark=64 * MIB)

    early = {one.sample(65 * MIB, MARK_MIN_LIFE - 0.01) for _ in range(2 * MARK_SAMPLES)}

    assert early == {Finding.FINE}
    assert one.sample(65 * MIB, MARK_MIN_LIFE) is Finding.OVER_MARK


def test_a_worker_that_is_not_ready_has_no_mark() -> None:
    one = Gauge(None, 64 * MIB, 0.5)

    assert {one.sample(65 * MIB, 100.0) for _ in range(2 * MARK_SAMPLES)} == {Finding.FINE}


def test_the_mark_is_told_of_once_a_life() -> None:
    one = gauge(mark=64 * MIB)

    findings = [one.sample(65 * MIB, LONG_READY) for _ in range(10 * MARK_SAMPLES)]

    assert findings.count(Finding.OVER_MARK) == 1


def test_a_worker_that_is_ready_near_its_mark_may_grow_by_a_quarter_before_the_mark_counts() -> None:
    one = Gauge(None, 64 * MIB, 0.5)
    one.ready(0.0)
    one.sample(60 * MIB, 0.0)

    grown = {one.sample(75 * MIB, LONG_READY) for _ in range(2 * MARK_SAMPLES)}
    grown_more = {one.sample(76 * MIB, LONG_READY) for _ in range(2 * MARK_SAMPLES)}

    assert int(ROOM * 60) == 75
    assert (grown, grown_more) == ({Finding.FINE}, {Finding.FINE, Finding.OVER_MARK})


def test_a_worker_that_is_near_its_limit_as_soon_as_it_is_ready_is_told_of_once() -> None:
    one = Gauge(100 * MIB, None, 0.5)
    before_ready = one.sample(81 * MIB, 0.0)
    one.ready(1.0)

    findings = [one.sample(81 * MIB, at) for at in (1.0, 2.0)]

    assert (before_ready, findings) == (Finding.FINE, [Finding.NEAR_LIMIT, Finding.FINE])


def test_a_worker_that_comes_near_its_limit_later_is_not_told_of() -> None:
    one = gauge(limit=100 * MIB)

    assert one.sample(99 * MIB, 1.0) is Finding.FINE


@given(st.lists(BYTES, min_size=1))
def test_the_highest_sample_is_kept_whatever_it_means(samples: list[int]) -> None:
    one = Gauge(2 * GIB, GIB, 0.5)

    for size in samples:
        one.sample(size, 0.0)

    assert one.highest == max(samples)


@given(limit=BORDERS, mark=BORDERS, measured=BYTES, ceiling=st.floats(FLOOR, 60))
def test_the_next_look_comes_between_the_floor_and_the_ceiling(
    limit: int | None, mark: int | None, measured: int, ceiling: float
) -> None:
    one = gauge(limit, mark, ceiling)

    assert FLOOR <= one.next_look(measured) <= ceiling


@given(limit=BYTES, measured=BYTES)
def test_the_next_look_comes_before_the_headroom_can_be_used_up(limit: int, measured: int) -> None:
    one = gauge(limit, ceiling=0.5)
    headroom = limit - measured

    if headroom >= 0:
        assert one.next_look(measured) <= max(FLOOR, headroom / GROWTH)


@pytest.mark.parametrize(
    ('headroom', 'seconds'),
    [(0, FLOOR), (1, FLOOR), (MIB, FLOOR), (GIB // 8, 1 / 16), (GIB // 2, 0.25), (4 * GIB, 0.5)],
)
def test_the_wait_is_the_headroom_over_two_gib_a_second(headroom: int, seconds: float) -> None:
    one = gauge(limit=5 * GIB)

    assert one.next_look(5 * GIB - headroom) == pytest.approx(seconds)


def test_a_worker_over_its_mark_is_watched_for_its_limit() -> None:
    one = gauge(limit=GIB, mark=64 * MIB)

    assert one.next_look(GIB - GIB // 8) == pytest.approx(1 / 16)


@given(growth=st.integers(1024, CALM_GROWTH), distance=st.integers(1, 4 * GIB))
def test_a_worker_that_grows_past_its_mark_is_found_within_seconds_however_seldom_it_was_looked_at(
    growth: int, distance: int
) -> None:
    one, now = gauge(mark=10 * MIB + distance, ceiling=CALM_CEILING), LONG_READY
    mark = one.effective_mark() or 0
    crossed = LONG_READY + (mark - 10 * MIB) / growth
    now += max(0.0, crossed - now - 100)  # the last hundred seconds before it, and what comes then

    while one.sample(int(10 * MIB + growth * (now - LONG_READY)), now) is not Finding.OVER_MARK:
        now += one.next_look(int(10 * MIB + growth * (now - LONG_READY)))

    assert now - crossed <= (MARK_SAMPLES + 1) * MARK_PAUSE


def test_a_worker_over_its_mark_is_looked_at_again_soon_until_that_was_told() -> None:
    one = gauge(mark=64 * MIB, ceiling=CALM_CEILING)

    pauses = []
    for _ in range(MARK_SAMPLES + 1):
        one.sample(65 * MIB, LONG_READY)
        pauses.append(one.next_look(65 * MIB))

    assert pauses == [MARK_PAUSE] * (MARK_SAMPLES - 1) + [CALM_CEILING] * 2


@pytest.mark.parametrize(('headroom', 'seconds'), [(1, MARK_PAUSE), (8 * CALM_GROWTH, 8), (60 * CALM_GROWTH, 30)])
def test_a_worker_far_from_its_mark_is_looked_at_once_in_many_seconds(headroom: int, seconds: float) -> None:
    mark = 5 * GIB

    assert gauge(mark=mark, ceiling=CALM_CEILING).next_look(mark - headroom) == pytest.approx(seconds)
