"""A restart that was asked for: each of these workers is replaced when its turn comes, or the whole of it is given up.

Facts: who asks for fresh workers may have changed what they need (a file, a broker, an address), so that none of the
new ones becomes ready; the old ones work as long as they are let.
Consequence: a restart has failed as soon as a life in one of its places ends before it is ready. Then no other worker
is asked to go for it, and those that wait for their successors stay, as if they had never been asked for. A place that
is empty already (there was no room for a successor) is filled like any other whose worker has failed.
Price: one bad start, by chance, is the end of a restart.

Invariant: `waiting` only shrinks.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Restart:
    """One restart. `waiting`: by slot, the life that is still to be replaced, of `of` in all; `reason`: why it was
    given up."""

    number: int
    waiting: dict[int, int]
    of: int
    reason: str | None = None

    @property
    def changed(self) -> int:
        """How many workers have been replaced, or are not to be replaced any more."""
        return self.of - len(self.waiting)

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended yet."""
        return bool(self.waiting) and self.reason is None
