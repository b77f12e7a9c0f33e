"""What is below a cgroup: walk there, and remove it.

Facts: a worker that may write its leaf may lift every bound of it and make cgroups as deep and as many as it likes. A
path has 4,095 bytes at most (PATH_MAX), a chain of folders has no such bound; Python recurses a thousand times, and a
process has some thousand descriptors. A cgroup is never moved (rename(2) of one: EPERM), so `..` leads back.
Consequence: one descriptor goes down by name and up by `..` (openat(2)), and what is to be seen yet stands in a list:
no path, no recursion, one descriptor however deep. Each step is one `next` of a generator, so whoever walks decides
how far he goes at a time.
Price: a walk that is left half-way holds its descriptor until it is closed.

Imported by the undertaker, too: nothing of ours is imported here.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Step(NamedTuple):
    """A cgroup below the top, by its `name` in the folder whose descriptor is `above`; each is met twice: on the way
    down, and on the way `up`, when all below it has been seen. The descriptor is good until the next step."""

    above: int
    name: str
    up: bool


def walk(top: str) -> Iterator[Step]:
    """Walk through all cgroups below this one; what goes meanwhile is passed by. Raises OSError."""
    here = os.open(top, FOLDER)
    way: list[str] = []
    try:
        unseen = [_folders(here)]
        while True:
            if unseen[-1]:
                name = unseen[-1].pop()
                yield Step(here, name, up=False)
                with suppress(FileNotFoundError):
                    here, above = os.open(name, FOLDER, dir_fd=here), here
                    os.close(above)
                    way.append(name)
                    unseen.append(_folders(here))
            elif way:
                here, below = os.open('..', FOLDER, dir_fd=here), here
                os.close(below)
                unseen.pop()
                yield Step(here, way.pop(), up=True)
            else:
                return
    finally:
        os.close(here)


def _folders(folder: int) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:  # it is gone
        return []


def removal(top: str) -> Iterator[None]:
    """Remove a cgroup and all below it, a step at each `next`. Raises OSError: EBUSY while anything in it lives."""
    try:
        for step in walk(top):
            if step.up:
                with suppress(FileNotFoundError):
                    os.rmdir(step.name, dir_fd=step.above)
            yield
        os.rmdir(top)
    except FileNotFoundError:
        return


def read(step: Step, file: str) -> str:
    """Return the text of a file of a cgroup that a walk has met on its way down; empty when it is gone."""
    try:
        fd = os.open(f'{step.name}/{file}', os.O_RDONLY | os.O_CLOEXEC, dir_fd=step.above)
    except FileNotFoundError:
        return ''
    with suppress(OSError), open(fd, encoding='ascii') as source:
        return source.read()
    return ''
