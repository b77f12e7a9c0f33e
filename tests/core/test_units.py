"""Sizes and time spans are read as systemd reads them and written so that they can be read back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sergeant_linux.core.units import format_size, format_span, parse_size, parse_span


@pytest.mark.parametrize(('text', 'size'), [
    ('0', 0),
    ('65536', 65536),
    ('64K', 64 * 1024),
    ('64M', 64 * 1024**2),
    ('1.5G', 3 * 1024**3 // 2),
    ('.5G', 1024**3 // 2),
    ('2T', 2 * 1024**4),
    (' 1 G ', 1024**3),
    ('0.0001K', 0),
    (512, 512),
])
def test_a_size_is_bytes_or_a_number_with_a_suffix_of_base_1024(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize('text', [
    '', ' ', 'M', '-1', '+1', '64m', '64MB', '64MiB', '1e6', '1_000', '0x10', '1,5G', '1.5.5G', '64 M 1',
    '\u0663', 'infinity', 'nan', '9' * 400, str(2**63), '8388608T', -1, 2**63,
])
def test_what_is_no_size_is_refused_with_the_data_and_what_is_expected(text: object) -> None:
    with pytest.raises(ValueError, match=r'^expected a size .*K, M, G or T.*, not ') as caught:
        parse_size(text)
    assert repr(text)[:100] in str(caught.value)


@pytest.mark.parametrize('value', [True, 1.5, None, b'64M', [64]])
def test_what_is_neither_text_nor_a_whole_number_is_the_wrong_type_for_a_size(value: object) -> None:
    with pytest.raises(TypeError, match='expected a size'):
        parse_size(value)


@pytest.mark.parametrize(('text', 'span'), [
    # systemd.time(7), its examples
    ('2 h', 7200.0),
    ('2hours', 7200.0),
    ('48hr', 172800.0),
    ('1y 12month', 365.25 * 86400 + 12 * 30.44 * 86400),
    ('55s500ms', 55.5),
    ('300ms20s 5day', 432020.3),
    # and the rest of what it says
    ('90', 90.0),
    ('0', 0.0),
    ('.5', 0.5),
    ('5.', 5.0),
    ('1min 30s', 90.0),
    ('1min 30', 90.0),
    ('1.5min', 90.0),
    ('500ms', 0.5),
    ('250us', 250e-6),
    ('250\u00b5s', 250e-6),
    ('250\u03bcs', 250e-6),
    ('1m', 60.0),
    ('1M', 30.44 * 86400),
    ('2weeks', 1209600.0),
    (' infinity ', math.inf),
    (90, 90.0),
    (0.5, 0.5),
    (math.inf, math.inf),
])
def test_a_time_span_is_seconds_or_a_sum_of_numbers_with_units(text: object, span: float) -> None:
    assert parse_span(text) == pytest.approx(span, rel=1e-12)


@pytest.mark.parametrize('text', [
    '', ' ', 's', '-1', '+1', '-5s', '1e3', '5 foo', '5 S', '5s!', '1,5s', '1.5.5', '1min -30s', '1:30', 'inf',
    'Infinity', 'nan', '9' * 400, '1000000y', '1 ' * 40 + '!', '\u0663', -1, -0.5, math.nan, -math.inf, 10**400,
])
def test_what_is_no_time_span_is_refused_with_the_data_and_what_is_expected(text: object) -> None:
    with pytest.raises(ValueError, match=r'^expected a time span .*1min 30s.*, not ') as caught:
        parse_span(text)
    assert repr(text)[:100] in str(caught.value)


@pytest.mark.parametrize('value', [True, None, b'90', [90]])
def test_what_is_neither_text_nor_a_number_is_the_wrong_type_for_a_time_span(value: object) -> None:
    with pytest.raises(TypeError, match='expected a time span'):
        parse_span(value)


@pytest.mark.parametrize(('size', 'text'), [
    (0, '0'),
    (1023, '1023'),
    (1024, '1K'),
    (64 * 1024**2, '64M'),
    (3 * 1024**3 // 2, '1.5G'),
    (123_456_789, '117.7M'),
    (1024**2 - 1, '1M'),
    (5000 * 1024**4, '5000T'),
])
def test_a_size_is_written_with_one_decimal_at_most(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(('span', 'text'), [
    (0.0, '0s'),
    (0.1, '100ms'),
    (0.1 + 0.2, '300ms'),
    (1.0, '1s'),
    (2.5, '2.5s'),
    (59.9999, '1min'),
    (60.0, '1min'),
    (90.0, '1min 30s'),
    (7200.0, '2h'),
    (3 * 86400 + 0.25, '3d 0.25s'),
    (math.inf, 'infinity'),
])
def test_a_time_span_is_written_as_systemd_writes_it(span: float, text: str) -> None:
    assert format_span(span) == text


@given(st.integers(0, 2**60))
def test_a_size_that_was_written_is_read_back_to_a_twentieth_of_its_unit(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.051)


@given(st.integers(0, 1023), st.sampled_from('KMGT'))
def test_a_size_of_whole_units_is_written_and_read_back_exactly(count: int, suffix: str) -> None:
    size = parse_size(f'{count}{suffix}')
    assert parse_size(format_size(size)) == size


@given(st.floats(0, 1e9))
def test_a_time_span_that_was_written_is_read_back_to_the_millisecond(span: float) -> None:
    assert parse_span(format_span(span)) == pytest.approx(span, abs=0.000501)
