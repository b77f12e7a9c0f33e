"""When a worker is taken for hung."""

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sergeant_linux.core.hang import Hung, LookAgain, judge


class Said(NamedTuple):
    """What a worker says of itself."""

    task_started: float | None = None
    last_sign: float | None = None


def test_a_worker_is_hung_when_its_oldest_task_is_as_old_as_the_span() -> None:
    working = Said(task_started=100.0, last_sign=100.0)

    assert judge(working, since=0.0, now=159.9, span=60.0) == LookAgain(160.0)
    assert judge(working, since=0.0, now=160.0, span=60.0) == Hung('in one task for 1min, longer than 1min')
    assert judge(working, since=0.0, now=190.0, span=60.0) == Hung('in one task for 1min 30s, longer than 1min')


def test_signs_of_life_do_not_excuse_a_task_that_takes_too_long() -> None:
    assert isinstance(judge(Said(task_started=100.0, last_sign=169.0), since=0.0, now=170.0, span=60.0), Hung)


def test_a_task_excuses_a_worker_from_signs_of_life() -> None:
    assert judge(Said(task_started=150.0, last_sign=1.0), since=0.0, now=170.0, span=60.0) == LookAgain(210.0)


def test_a_worker_without_a_task_is_hung_when_its_last_sign_of_life_is_as_old_as_the_span() -> None:
    idle = Said(last_sign=100.0)

    assert judge(idle, since=0.0, now=159.0, span=60.0) == LookAgain(160.0)
    assert judge(idle, since=0.0, now=161.0, span=60.0) == Hung('without a sign of life for 1min 1s, longer than 1min')


def test_who_never_gave_a_sign_of_life_is_never_hung_without_a_task() -> None:
    assert judge(Said(), since=0.0, now=1e6, span=60.0) == LookAgain(1e6 + 60.0)


@pytest.mark.parametrize('said', [Said(task_started=10.0), Said(last_sign=10.0)])
def test_nothing_counts_that_was_before_the_worker_was_ready(said: Said) -> None:
    assert judge(said, since=100.0, now=110.0, span=60.0) == LookAgain(160.0)
    assert isinstance(judge(said, since=100.0, now=160.0, span=60.0), Hung)


MOMENTS = st.floats(0, 1e9)


@given(st.builds(Said, st.none() | MOMENTS, st.none() | MOMENTS), MOMENTS, MOMENTS, st.floats(0.001, 1e6))
def test_the_next_look_is_the_earliest_at_which_the_worker_could_be_hung(
    said: Said, since: float, now: float, span: float
) -> None:
    verdict = judge(said, since=since, now=now, span=span)

    if isinstance(verdict, LookAgain):
        # then a worker that does nothing from now on is hung at that time, and is not hung before it
        assert now < verdict.at or now + span == now
        if said != Said():
            assert isinstance(judge(said, since=since, now=verdict.at, span=span), Hung)
            just_before = math.nextafter(verdict.at, 0.0)
            assert isinstance(judge(said, since=since, now=just_before, span=span), LookAgain)
