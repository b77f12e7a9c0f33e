"""A read-only picture of the pool, for everything that only looks."""

from dataclasses import dataclass

from sergeant_linux.core.result import Result
from sergeant_linux.core.slot import Seat, State


@dataclass(frozen=True, slots=True)
class SeatView:
    """One seat at one moment. `uptime`: seconds since its process exists, None without one."""

    state: State
    wanted: bool
    life: int | None
    pid: int | None
    uptime: float | None
    restarts: int
    last_result: Result | None


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot at one moment."""

    number: int
    incumbent: SeatView
    successor: SeatView | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pool at one moment."""

    slots: tuple[SlotView, ...]
    stopping: bool
    stragglers: int


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
        restarts=seat.restarts,
        last_result=seat.last_result,
    )
