"""Figures take few columns, are rounded, and never mislead by a unit."""

import pytest

from sergeant_linux.cli import figures
from sergeant_linux.cli.verbs.status import BAR, bar


@pytest.mark.parametrize(('seconds', 'shown'), [
    (None, '-'), (0, '0.0s'), (0.04, '0.0s'), (9.94, '9.9s'), (9.96, '10s'), (59.4, '59s'), (59.6, '1m00s'),
    (309, '5m09s'), (3599.7, '1h00m'), (11220, '3h07m'), (86399, '23h59m'), (86400, '1d0h'), (12.4 * 86400, '12d9h'),
    (5000 * 86400, '5000d'),
])
def test_a_span_has_two_units_at_most(seconds: float | None, shown: str) -> None:
    assert figures.span(seconds) == shown


@pytest.mark.parametrize(('size', 'shown'), [
    (None, '-'), (0, '0'), (512, '512'), (1023, '1023'), (1024, '1K'), (1536, '1.5K'), (64 << 20, '64M'),
    ((1 << 30) - 1, '1G'), (3 << 39, '1.5T'), (5 << 50, '5120T'),
])
def test_a_size_is_written_as_the_options_take_it(size: int | None, shown: str) -> None:
    assert figures.size(size) == shown


@pytest.mark.parametrize(('count', 'shown'), [(None, '-'), (0, '0'), (99_999, '99999'), (190_233, '190K'), (12_345_678, '12.3M')])
def test_a_count_is_exact_as_long_as_it_is_short(count: int | None, shown: str) -> None:
    assert figures.count(count) == shown


@pytest.mark.parametrize(('rate', 'shown'), [(None, '-'), (0, '0.00'), (0.254, '0.25'), (12.54, '12.5'), (340.4, '340'), (2e6, '2M')])
def test_a_rate_has_three_digits(rate: float | None, shown: str) -> None:
    assert figures.rate(rate) == shown


@pytest.mark.parametrize('power', range(52))
def test_nothing_takes_more_than_six_columns(power: int) -> None:
    for number in (2.0**power - 1, 2.0**power, 10 ** (power / 4), 10 ** (power / 4) - 0.04):
        assert len(figures.size(number)) <= 6 and len(figures.count(number)) <= 6
        if number < 99999 * 86400:
            assert len(figures.span(number)) <= 6


@pytest.mark.parametrize(('now', 'mark', 'limit', 'shown'), [
    (0, None, 100, '··········'), (1, None, 100, '█·········'), (50, None, 100, '█████·····'), (50, 80, 100, '█████···│·'),
    (95, 80, 100, '████████│█'), (100, None, 100, '██████████'), (250, 100, 100, '██████████'), (40, 80, None, '█████·····'),
    (None, 80, 100, ''), (40, None, None, ''),
])
def test_a_bar_shows_the_memory_up_to_its_bound_and_where_the_mark_is(
    now: int | None, mark: int | None, limit: int | None, shown: str,
) -> None:
    assert bar(now, mark, limit, unicode=True) == shown
    assert len(shown) in (0, BAR)
    assert bar(now, mark, limit, unicode=False) == shown.translate(str.maketrans('█·│', '#.|'))
