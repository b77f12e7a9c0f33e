"""What the core may rely on, whatever is below it: the same promises of the kernel on paper and of the real one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from sergeant_linux.core.commands import Cancel, EndStragglers, Go, Kill, Spawn, Terminate
from sergeant_linux.core.events import Exited, LifeEvent, Ready, Spawned, SpawnFailed, Unpopulated
from sergeant_linux.core.result import SIGKILL, SIGTERM
from tests.contract.kernels import LEAVES, LEAVES_A_CHILD, STAYS, Kernel, PaperKernel, real_kernel

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
    born = {life for life in range(1, 14) if is_born(kernel, life)}
    kernel.obey(*(Kill(life) for life in born if life != 1))

    for life in born - {1}:
        kernel.wait_for(Exited, life)
    assert [heard_of(kernel, life)[:1] for life in range(1, 14)] == [
        [Spawned] if life in born else [SpawnFailed] for life in range(1, 14)
    ]
    assert heard_of(kernel, 1) == [Spawned]


def is_born(kernel: Kernel, life: int) -> bool:
    """Wait for the answer to a spawn."""
    try:
        kernel.wait_for(Spawned, life)
    except AssertionError:
        kernel.wait_for(SpawnFailed, life)
        return False
    return True


def test_no_user_code_runs_before_go(make: Make) -> None:
    kernel = make(LEAVES)
    begin(kernel, 1)

    kernel.obey(Kill(1))
    kernel.wait_for(Exited, 1)

    assert heard_of(kernel, 1) == [Spawned, Exited]
    assert not kernel.ran(1)


def test_of_a_cancelled_spawn_nothing_is_heard_and_no_user_code_runs(make: Make) -> None:
    kernel = make(LEAVES)
    begin(kernel, 1)

    for life in range(2, 12):
        kernel.obey(Spawn(0, life), Cancel(life))
    kernel.obey(Spawn(0, 12))
    kernel.wait_for(Spawned, 12)
    kernel.obey(Go(0, 12))
    kernel.wait_for(Exited, 12)

    assert [heard_of(kernel, life) for life in range(2, 12)] == [[]] * 10
    assert [kernel.ran(life) for life in range(2, 13)] == [False] * 10 + [True]


def test_what_a_worker_said_is_heard_before_its_end_however_soon_that_comes(make: Make) -> None:
    kernel = make(LEAVES)
    begin(kernel, 1)

    kernel.obey(Go(0, 1))
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

    if kernel.ran(1) and ended.ending.exit_code is not None:
        assert ended.ending.exit_code == 0
    assert heard_of(kernel, 1).count(Exited) == 1


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
