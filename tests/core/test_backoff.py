"""How long a failed worker waits, and when it is not started any more."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sergeant_linux.core.backoff import JITTER, RestartBudget, restart_delay
from sergeant_linux.core.policy import Budget
from tests.core.world import Middle

DELAYS = st.floats(1e-3, 1e6)
CHANCE = st.integers().map(Random)


@pytest.mark.parametrize(
    ('failures', 'seconds'), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (9, 25.6), (10, 30), (1000, 30)]
)
def test_the_kth_failure_waits_twice_as_long_as_the_one_before_up_to_the_cap(failures: int, seconds: float) -> None:
    assert restart_delay(failures, delay=0.1, max_delay=30, rng=Middle()) == pytest.approx(seconds)


@given(failures=st.integers(1, 10**9), max_delay=DELAYS, rng=CHANCE)
def test_a_delay_of_zero_turns_waiting_off(failures: int, max_delay: float, rng: Random) -> None:
    assert restart_delay(failures, delay=0, max_delay=max_delay, rng=rng) == 0


@given(failures=st.integers(1, 10**9), delay=DELAYS, max_delay=DELAYS, rng=CHANCE)
def test_a_delay_is_within_its_jitter_and_never_over_the_cap(
    failures: int, delay: float, max_delay: float, rng: Random
) -> None:
    nominal = min(max_delay, delay * 2.0 ** min(failures - 1, 64))

    waits = restart_delay(failures, delay=delay, max_delay=max_delay, rng=rng)

    assert nominal * (1 - JITTER) * (1 - 1e-12) <= waits <= min(max_delay, nominal * (1 + JITTER) * (1 + 1e-12))


def test_workers_that_fail_together_do_not_wait_equally_long() -> None:
    rng = Random(1)

    assert len({restart_delay(1, delay=1, max_delay=30, rng=rng) for _ in range(100)}) == 100


def test_without_a_budget_there_is_no_end_of_restarts() -> None:
    budget = RestartBudget(None)

    assert all(budget.spend(0.0) for _ in range(10_000))


def test_a_budget_of_zero_allows_no_restart_at_all() -> None:
    assert not RestartBudget(Budget(0, 60)).spend(0.0)


def test_a_restart_is_given_back_when_its_span_is_over() -> None:
    budget = RestartBudget(Budget(2, 60))

    assert [budget.spend(at) for at in (0.0, 1.0, 59.999)] == [True, True, False]
    assert [budget.spend(at) for at in (60.0, 60.5, 61.0, 61.0)] == [True, False, True, False]


@given(
    count=st.integers(0, 5),
    span=st.integers(1, 20),
    gaps=st.lists(st.integers(0, 10), max_size=60),
)
def test_within_any_span_there_are_never_more_restarts_than_the_budget_and_none_is_refused_without_need(
    count: int, span: int, gaps: list[int]
) -> None:
    budget = RestartBudget(Budget(count, span))
    now, granted = 0.0, list[float]()

    for gap in gaps:
        now += gap
        in_window = sum(at > now - span for at in granted)
        assert budget.spend(now) == (in_window < count)
        if in_window < count:
            granted.append(now)

    assert all(later - earlier >= span for earlier, later in zip(granted, granted[count:], strict=False))
