"""What the core may rely on, whatever is below it: the same promises of the kernel on paper and of the real one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from sergeant_linux.core.commands import Cancel, EndStragglers, Go, Kill, Spawn, Terminate
from sergeant_linux.core.events import Exited, LifeEvent, Ready, Spawned, SpawnFailed, Unpopulated
from sergeant_linux.core.result import SIGKILL, SIGTERM
from sergeant_linux.engine.borrowed import Host
from tests.contract.kernels import (
    ENDS_SOMEHOW,
    LEAVES,
    LEAVES_A_CHILD,
    STAYS,
    Kernel,
    PaperKernel,
    ShadowedPool,
    loop_with,
    policy_for,
    real_kernel,
)

Make = Callable[[str], Kernel]

SEEDS = 5
"""So many times is the kernel on paper given a chance to be surprising."""


@pytest.fixture(params=['real', *(f'paper {seed}' for seed in range(SEEDS))])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A function that makes the kernel, and its workers do what it is told."""
    monkeypatch.chdir(tmp_path)
    kind, _, seed = request.param.partition(' ')
    with ExitStack() as stack:
        if kind == 'real':
            yield lambda worker: stack.enter_context(real_kernel(worker))
        else:
            yield partial(PaperKernel, seed=int(seed))


def heard_of(kernel: Kernel, life: int) -> list[type[LifeEvent]]:
    """Return the kinds of events of this life, in order."""
    return [type(event) for event in kernel.heard if event.life == life]


def begin(kernel: Kernel, life: int) -> None:
    """Have a process born that waits at its gate."""
    kernel.obey(Spawn(0, life))
    kernel.wait_for(Spawned, life)


def test_a_spawn_is_answered_exactly_once_even_when_what_makes_processes_dies(make: Make) -> None:
    kernel = make(STAYS)
    begin(kernel, 1)

    kernel.obey(*(Spawn(slot, slot + 1) for slot in range(1, 12)))
    kernel.lose_its_fork_server()
    kernel.obey(Spawn(12, 13))
    answers = [type(kernel.answer(life)) for life in range(1, 14)]
    born = [life for life, answer in enumerate(answers, start=1) if answer is Spawned]
    kernel.obey(*(Kill(life) for life in born))
    for life in born:
        kernel.wait_for(Exited, life)

    assert 1 in born
    assert [heard_of(kernel, life) for life in range(1, 14)] == [
        [Spawned, Exited] if life in born else [SpawnFailed] for life in range(1, 14)
    ]


def test_no_user_code_runs_before_go(make: Make) -> None:
    kernel = make(LEAVES)
    begin(kernel, 1)

    kernel.obey(Kill(1))
    kernel.wait_for(Exited, 1)

    assert heard_of(kernel, 1) == [Spawned, Exited]
    assert kernel.ran() == set()


def test_of_a_cancelled_spawn_nothing_is_heard_and_no_user_code_runs(make: Make) -> None:
    kernel = make(LEAVES)
    begin(kernel, 1)

    for life in range(2, 12):
        kernel.obey(Spawn(0, life))
        if life % 2:
            kernel.let_be_born(life)
        kernel.obey(Cancel(life))
    kernel.obey(Spawn(0, 12))
    kernel.wait_for(Spawned, 12)
    kernel.obey(Go(0, 12))
    kernel.wait_for(Exited, 12)

    kernel.let_births_end()
    assert [heard_of(kernel, life) for life in range(2, 12)] == [[]] * 10
    assert kernel.ran() == {12}


def test_what_a_worker_said_is_heard_before_its_end_even_when_that_is_noticed_first(make: Make) -> None:
    kernel = make(LEAVES)
    begin(kernel, 1)

    kernel.obey(Go(0, 1))
    kernel.let_end(1)
    kernel.notice_end(1)
    ended = kernel.wait_for(Exited, 1)

    assert heard_of(kernel, 1) == [Spawned, Ready, Exited]
    assert (ended.ending.exit_code, ended.ending.signal) == (0, None)


@pytest.mark.parametrize(('order', 'signum'), [(Kill, SIGKILL), (Terminate, SIGTERM)])
def test_a_signal_ends_a_worker_and_its_end_tells_which_one(
    make: Make, order: type[Kill] | type[Terminate], signum: int
) -> None:
    kernel = make(STAYS)
    begin(kernel, 1)
    kernel.obey(Go(0, 1))
    kernel.wait_for(Ready, 1)

    kernel.obey(order(1))
    ended = kernel.wait_for(Exited, 1)

    assert (ended.ending.exit_code, ended.ending.signal) == (None, signum)


def test_orders_for_a_worker_that_has_just_ended_do_no_harm_and_its_end_stays_its_own(make: Make) -> None:
    kernel = make(LEAVES)
    begin(kernel, 1)
    kernel.obey(Go(0, 1))
    kernel.let_end(1)

    kernel.obey(Terminate(1), Kill(1), Kill(1))
    ended = kernel.wait_for(Exited, 1)

    assert heard_of(kernel, 1) == [Spawned, Ready, Exited]
    assert (ended.ending.exit_code, ended.ending.signal) == (0, None)


@pytest.mark.parametrize('worker', [LEAVES, LEAVES_A_CHILD])
def test_a_life_is_unpopulated_once_and_nothing_of_it_is_left_or_heard_any_more(make: Make, worker: str) -> None:
    kernel = make(worker)
    begin(kernel, 1)
    kernel.obey(Go(0, 1))
    kernel.wait_for(Exited, 1)
    left = worker == LEAVES_A_CHILD
    assert not left or kernel.child(1)

    kernel.obey(EndStragglers(1))
    kernel.wait_for(Unpopulated, 1)
    begin(kernel, 2)

    assert heard_of(kernel, 1) == [Spawned, Ready, Exited, Unpopulated]
    assert not left or not kernel.child(1)


@pytest.mark.parametrize('spawn', ['fork', 'exec'])
def test_a_whole_pool_sees_nothing_that_the_kernel_on_paper_would_not_do(
    spawn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many lives that end somehow, as fast as they can: each event is one that the fake kernel holds possible."""
    monkeypatch.chdir(tmp_path)
    policy = policy_for(ENDS_SOMEHOW, concurrent_workers=4, restart_delay=0, max_worker_lifetime=0.05, spawn=spawn)
    ends = 100 if spawn == 'fork' else 10
    pool = ShadowedPool(policy, ends)

    with Host(is_ours=False) as host:
        status = loop_with(pool, host).run()

    assert (status, pool.shadow.left_with) == (0, 0)
    assert pool.ends_to_come <= 0
    assert pool.shadow.newest >= ends
