"""Where this process takes modules from, and who else could put one there.

Facts: `python3 -m` and `-c` look for a module in the working folder before the standard library, and so do the folders
of PYTHONPATH come first; whoever can write to one of them decides what runs here as json, psutil or redis, and so does
whoever can write compiled modules (PYTHONPYCACHEPREFIX, -X pycache_prefix). A supervisor
that is root has workers of another uid so that their code is not root's, and works in their folder.
Consequence: our own commands leave the working folder, as their first act and for good. A root that has workers of
another uid imports only from folders and files that nobody but root can write, or that Python itself and this package
are installed in: the rest is withheld (`withhold`), and given back in the worker once its uid has changed
(`give_back`).
What nobody else can write to can't change between the look and the import.
Price: what is withheld isn't loaded before a fork, so that each worker has to import it. A start by `python3 -m` looks
for this package itself in the working folder, before a line of ours is run: there, as root, it is `sergeant-linux`.

Invariant: while something is withheld, nothing is imported that somebody else than root could have written.

This is imported before that first act, so it imports nothing that isn't frozen into the interpreter.
"""

import os
import site
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The folder that this package lies in."""

VARIABLE = 'PYTHONPATH'
COMPILED = 'PYTHONPYCACHEPREFIX'

_LIBRARY = os.path.dirname(os.path.abspath(os.__file__))

unsafe: 'str | None' = None
"""Who else could have written what root's interpreter has imported before a line of ours was run; None: nobody."""

_withheld: 'list[str] | None' = None
"""The whole path, while a part of it is withheld."""


def leave_working_folder() -> None:
    """Take the working folder off the path and, as root, what others can write to. The folder that this package lies
    in goes to the end: no module of the standard library is looked for there first."""
    global unsafe
    here = working_folder()
    path = [entry for entry in sys.path if is_installed(entry) or _normal(entry) not in ('', here, ROOT)]
    if os.geteuid() == 0:
        seen = (who_else_writes(_normal(entry)) for entry in sys.path if not is_installed(entry))
        unsafe = next(filter(None, seen), None) or (sys.pycache_prefix and who_else_writes(sys.pycache_prefix)) or None
        if sys.pycache_prefix and who_else_writes(sys.pycache_prefix):
            sys.pycache_prefix = None
    ours = [ROOT] if ROOT in map(_normal, sys.path) and ROOT not in map(_normal, path) else []
    sys.path[:] = [*(trusted(path) if os.geteuid() == 0 else path), *ours]


def working_folder() -> str:
    """Return the working folder, '' when it is gone: then nothing can be imported from it, and all else can."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ''


def _normal(entry: str) -> str:
    """Return an entry of the path as it would be looked up."""
    return os.path.normpath(os.path.join(here, entry)) if (here := working_folder()) or entry else ''


def is_installed(path: str) -> bool:
    """Return whether this lies where Python, its packages or this one are installed: who can write there is a matter of
    the installation, without which nothing could be imported."""
    place = _normal(path)
    homes = (_LIBRARY, os.path.join(ROOT, __name__.partition('.')[0]), *map(_normal, site.getsitepackages()))
    return any(place == home or place.startswith(home + os.sep) for home in homes)


# Who else could have written it.


def who_else_writes(path: str) -> 'str | None':
    """Return who but root and our own uid could put something else at this path, in words; None: nobody.

    Looks at what is there, at where it leads, and at the folders above: whoever can write to one of those can move the
    ones below away, unless its sticky bit keeps them (unlink(2)). A group is others, and so is who is in an ACL, whose
    mask the group's bits are then (acl(5)).
    """
    for start in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        place, is_held = start, False
        while True:
            try:
                status = os.stat(place)
            except OSError:
                is_held = False  # it is not there: whoever can write to the next one can make it
            else:
                if why := _others(status, is_held=is_held):
                    return f'{place} {why}'
                is_held = True
            if place == os.path.dirname(place):
                break
            place = os.path.dirname(place)
    return None


def _others(status: os.stat_result, *, is_held: bool) -> 'str | None':
    """is_held: what is below is there, and belongs to us or root."""
    if status.st_uid not in (0, os.geteuid()):
        return f'belongs to the uid {status.st_uid}'
    if is_held and status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return 'can be written by everybody'
    return f'can be written by the group {status.st_gid}' if status.st_mode & stat.S_IWGRP else None


def trusted(path: 'Iterable[str]') -> 'list[str]':
    """Return the entries of a path that are of the installation, or that nobody else can write to."""
    return [each for each in path if _normal(each) == ROOT or is_installed(each) or not who_else_writes(_normal(each))]


def for_root(environ: 'Mapping[str, str]') -> 'dict[str, str]':
    """Return the environment of a helper: as root, PYTHONPATH has no folder in it that others can write to, for an
    interpreter imports from there (sitecustomize) before a line of ours; and compiled modules are not in one."""
    kept = dict(environ)
    if os.geteuid() != 0:
        return kept
    if COMPILED in kept and who_else_writes(kept[COMPILED]):
        del kept[COMPILED]
    if VARIABLE in kept:
        kept[VARIABLE] = os.pathsep.join(trusted(kept[VARIABLE].split(os.pathsep)))
        if not kept[VARIABLE]:
            del kept[VARIABLE]
    return kept


# The path of a worker, and what is withheld of it.


def natural(variable: 'str | None') -> 'list[str]':
    """Return the path as `python3 -m` in this folder has it: the folder, what PYTHONPATH names, what this process has.

    variable: PYTHONPATH as the workers will have it, which this process may lack.
    """
    first = [] if sys.flags.safe_path else [working_folder()]
    words = variable.split(os.pathsep) if variable and not sys.flags.ignore_environment else []
    return list(dict.fromkeys([*first, *map(_normal, words), *sys.path]))


def take_natural(variable: 'str | None') -> None:
    """Look for modules as `python3 -m` in this folder would."""
    sys.path[:] = natural(variable)


def withhold(*, guarded: bool = True) -> None:
    """Keep to what only root can have written, until `give_back`. guarded: also each file is looked at."""
    global _withheld
    _withheld = list(sys.path)
    sys.path[:] = trusted(sys.path)
    if guarded:
        sys.meta_path.insert(0, _Guard)


def give_back() -> None:
    """Put the path together again; what has been added to it meanwhile stays. Does nothing where nothing is
    withheld."""
    global _withheld
    if _withheld is None:
        return
    before, _withheld = _withheld, None
    added = [entry for entry in sys.path if entry not in before]
    is_first = bool(added) and sys.path[0] == added[0]
    sys.path[:] = [*added, *before] if is_first else [*before, *added]
    if _Guard in sys.meta_path:
        sys.meta_path.remove(_Guard)


class _Guard:
    """A finder that lets no module pass which somebody else could have written."""

    @classmethod
    def find_spec(
        cls, name: str, path: 'Sequence[str] | None' = None, target: 'ModuleType | None' = None
    ) -> 'ModuleSpec | None':
        for finder in sys.meta_path:
            if finder is not cls and (spec := finder.find_spec(name, path, target)) is not None:
                if spec.has_location and spec.origin is not None and (why := _file_of_others(spec)):
                    raise ImportError(f'{name} is not imported as root: {why}', name=name, path=spec.origin)
                return spec
        return None


def _file_of_others(spec: 'ModuleSpec') -> 'str | None':
    """Return who else could have written what this module is made from, its compiled form included."""
    assert spec.origin is not None
    if is_installed(spec.origin):
        return None
    compiled = spec.cached if spec.cached is not None and os.path.lexists(os.path.dirname(spec.cached)) else None
    if compiled is not None and not os.path.lexists(compiled):
        compiled = os.path.dirname(compiled)
    return who_else_writes(spec.origin) or (compiled and who_else_writes(compiled)) or None


def shadowed(names: 'Iterable[str]') -> 'str | None':
    """Return a module of these that a worker would find elsewhere, in what is withheld from us; None: there is none.
    Nothing is imported for that."""
    from importlib.machinery import PathFinder

    if _withheld is None or _withheld == sys.path:
        return None
    for name in names:
        spec, ours = PathFinder.find_spec(name, _withheld), getattr(sys.modules.get(name), '__spec__', None)
        if spec is not None and spec.origin is not None and ours is not None and spec.origin != ours.origin:
            return name
    return None


def locate(module: str, path: 'Sequence[str]') -> 'list[str]':
    """Return the files of a module and of the packages that it is in, as far as they are found on this path. Nothing
    is imported for that."""
    from importlib.machinery import PathFinder

    files = []
    place: Sequence[str] | None = path
    words = module.split('.')
    for count in range(1, len(words) + 1):
        spec = PathFinder.find_spec('.'.join(words[:count]), place) if place is not None else None
        if spec is None:
            break
        files += [spec.origin] if spec.origin is not None else list(spec.submodule_search_locations or ())
        place = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else None
    return files
