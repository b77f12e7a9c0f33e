"""Lives that are asked for and not begun yet: a few of each generation are on their way at a time.

Facts: a life holds more descriptors before it is born than afterwards, and a fork server forks one after another. A
life whose leaf, gate and page are made early is born no earlier.
Consequence: what a life needs is made when its turn comes, and only where there are descriptors for it and for all that
must stay free beside it (core/descriptors.py). Where there are none the spawn has failed, for a reason that is told;
the core tries it again.

Invariant: of one generation at most `BIRTHS` lives have their descriptors and have not said hello.
"""

from sergeant_linux.core.commands import Spawn
from sergeant_linux.core.descriptors import BIRTH, BIRTHS, RESERVE
from sergeant_linux.host import descriptors


class Births:
    """Who is next, by generation."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[int, Spawn]] = {}
        self._on_the_way: dict[int, int] = {}

    def may_begin(self, spawn: Spawn) -> bool:
        """This life is asked for; return whether it is its turn, which `next` says."""
        if spawn.life in self._on_the_way:
            return True
        self._waiting.setdefault(spawn.generation, {})[spawn.life] = spawn
        return False

    def next(self) -> Spawn | None:
        """Take the next life that may be begun now; None: nobody waits, or enough are on their way."""
        on_the_way = list(self._on_the_way.values())
        for generation, waiting in self._waiting.items():
            if waiting and on_the_way.count(generation) < BIRTHS:
                spawn = waiting.pop(next(iter(waiting)))
                self._on_the_way[spawn.life] = generation
                return spawn
        return None

    def settled(self, life: int) -> None:
        """It is born, or will not be."""
        self._on_the_way.pop(life, None)

    def cancel(self, life: int) -> bool:
        """Nobody wants this life any more; return whether it was not begun yet."""
        return any(waiting.pop(life, None) is not None for waiting in self._waiting.values())

    def end(self, generation: int) -> list[int]:
        """The generation is over: return the lives that will not be begun."""
        return list(self._waiting.pop(generation, {}))


def why_not() -> str | None:
    """Return why no life can be begun now; None: there are descriptors for one."""
    error = descriptors.missing(BIRTH + RESERVE)
    if error is None:
        return None
    return f'{BIRTH} descriptors for it and {RESERVE} in reserve are not free (see RLIMIT_NOFILE): {error}'
