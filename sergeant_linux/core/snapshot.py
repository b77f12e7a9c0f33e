"""A read-only picture of the pool, for everything that only looks."""

from dataclasses import dataclass

from sergeant_linux.core.result import Result
from sergeant_linux.core.slot import Seat, State
from sergeant_linux.core.succession import Slots


@dataclass(frozen=True, slots=True)
class SeatView:
    """One seat at one moment. `uptime`: seconds since its process exists, None without one; `restart_in`: seconds
    that were to be waited for the next life when this one had ended."""

    state: State
    wanted: bool
    life: int | None
    pid: int | None
    uptime: float | None
    generation: int | None
    restarts: int
    restart_in: float | None
    last_result: Result | None


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot at one moment."""

    number: int
    incumbent: SeatView
    successor: SeatView | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pool at one moment. `generation`: the code its lives are born from; `lives`: how many it has had; `wanted`
    and `ready`: workers that should be ready, and that are (one of a slot)."""

    slots: tuple[SlotView, ...]
    stopping: bool
    stragglers: int
    generation: int
    lives: int
    wanted: int
    ready: int


def take_picture(slots: Slots, now: float) -> Snapshot:
    """Return the picture of all slots."""
    return Snapshot(
        slots=tuple(
            SlotView(
                number,
                view(slot.incumbent, now),
                view(slot.successor, now) if slot.successor is not None else None,
            )
            for number, slot in sorted(slots.by_number.items())
        ),
        stopping=slots.facts.stopping,
        stragglers=len(slots.afterlives.by_life),
        generation=slots.facts.generation,
        lives=slots.facts.lives,
        wanted=slots.staying,
        ready=slots.ready,
    )


def view(seat: Seat, now: float) -> SeatView:
    """Return the picture of one seat."""
    life = seat.life
    pid = life.pid if life is not None else None
    return SeatView(
        state=seat.state,
        wanted=seat.wanted,
        life=life.number if life is not None else None,
        pid=pid,
        uptime=now - life.born_at if life is not None and pid is not None else None,
        generation=life.generation if life is not None else None,
        restarts=seat.restarts,
        restart_in=seat.restart_in if seat.state is State.AUTO_RESTART else None,
        last_result=seat.last_result,
    )
