"""The options of a pool, generated from the knobs of `Policy`.

Facts: a pool is started from a shell, a unit and a container's entrypoint, where now a flag is handy and now an
environment variable; and what was mistyped is read in a log, by somebody in a hurry.
Decision: each knob is a flag and a variable, read by one parser whichever way the program was started; the flag wins. A
bad value ends the program with status 2 and one line that names the flag or variable, what was expected, and the value.
The *names* of variables are taken less seriously: an unknown one is warned about and left alone, since we are not the
only ones to name variables (Kubernetes sets SERGEANT_LINUX_PORT in every pod beside a Service called sergeant-linux).
Price: argparse sees the flags alone, so its own checks (`type`, `required`, `choices`) go unused.
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final

from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.core.policy import MODULES, SWITCH, VARIABLE_PREFIX, BadValue, Knob, Policy

_KNOBS: Final[Mapping[str, Knob]] = {each.name: each.metadata['knob'] for each in fields(Policy)}
DEFAULTS: Final = {each.name: each.default for each in fields(Policy) if each.default is not MISSING}
"""The value of each knob that isn't required."""

_ANCESTORS: Final = tuple(_KNOBS)[:4]
"""The knobs that sergeant.supervisor has."""


def add_knobs(parser: Parser, *, explained: bool = True) -> None:
    for name, knob in _KNOBS.items():
        help = _help(name, knob) if explained else argparse.SUPPRESS
        if knob.kind is SWITCH:
            parser.add_argument(knob.flag, dest=name, help=help, action=_Switch)
        else:
            action = 'append' if knob.kind is MODULES else 'store'
            parser.add_argument(knob.flag, dest=name, help=help, action=action, metavar=knob.kind.name)


def read_policy(
    parser: Parser,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    defaults: Mapping[str, Any],
    *,
    looks_up: bool = True,
) -> Policy:
    """Return the policy of these flags, of the environment where there is no flag, or else of the defaults.

    looks_up: users and groups are those of this host, and have to be known to it.
    """
    _warn_of_unknown_variables(parser, environ)
    given: dict[str, Any] = {}
    sources = {name: knob.flag for name, knob in _KNOBS.items()}
    for name, knob in _KNOBS.items():
        if flags[name] is not None:
            given[name] = flags[name]
        elif variable := environ.get(knob.variable):
            given[name] = variable
            sources[name] = knob.variable
    if missing := [knob for name, knob in _KNOBS.items() if name not in given and name not in defaults]:
        wanted = ', '.join(f'{knob.flag} (or {knob.variable})' for knob in missing)
        parser.error(f'required but not given: {wanted}')
    try:
        policy = Policy(**{**defaults, **{name: _read(name, value) for name, value in given.items()}})

        if looks_up:
            from sergeant_linux.host import credentials  # not needed by --help, nor where the usage is wrong

            credentials.account(policy)
            credentials.control_group(policy)
        return policy
    except BadValue as error:
        parser.error(f'{sources[error.knob]}: {error.text}')


def command_line(flags: Mapping[str, Any], environ: Mapping[str, str], without: Collection[str] = ()) -> list[str]:
    """Return what was given, by flags or by variables, as flags of `run` that mean the same; it is known to be good."""
    words = []
    for name, knob in _KNOBS.items():
        value = flags[name] if flags[name] is not None else environ.get(knob.variable) or None
        if value is None or name in without:
            continue
        if knob.kind is SWITCH:
            is_on = value if isinstance(value, bool) else knob.kind.read(value)
            words.append(knob.flag if is_on else knob.flag.replace('--', '--no-', 1))
        elif knob.kind is MODULES:
            words += [f'{knob.flag}={each}' for each in (value if isinstance(value, list) else _read(name, value))]
        else:
            words.append(f'{knob.flag}={value}')
    return words


def usage(prog: str) -> str:
    """Return a usage of the ancestor's flags, one a line: with twenty more it would say nothing."""
    flags = {name: f'{_KNOBS[name].flag} {_KNOBS[name].kind.name}' for name in _ANCESTORS}
    lines = [f'[{flag}]' if name in DEFAULTS else flag for name, flag in flags.items()]
    start = f'{prog} [-h] '
    return start + f'\n{" " * len("usage: " + start)}'.join([*lines, '[option ...]'])


class _Switch(argparse.Action):
    """`--x` and `--no-x`. BooleanOptionalAction takes `--no-new-privileges` for the off of `--new-privileges`."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        on = option_strings[0]
        super().__init__([on, on.replace('--', '--no-', 1)], dest, nargs=0, help=help)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, flag: str | None = None
    ) -> None:
        setattr(namespace, self.dest, flag == self.option_strings[0])


def _help(name: str, knob: Knob) -> str:
    default = f'default: {knob.kind.show(DEFAULTS[name])}' if name in DEFAULTS else 'required'
    facts = '; '.join(filter(None, (knob.kind.unit, default)))
    return f'{knob.help} ({facts})'.replace('%', '%%')


def _warn_of_unknown_variables(parser: Parser, environ: Mapping[str, str]) -> None:
    known = {knob.variable for knob in _KNOBS.values()}
    for variable in sorted(environ):
        if variable.startswith(VARIABLE_PREFIX) and variable not in known:
            parser.warn(f'{variable}: no option has this variable; ignored')


def _read(name: str, value: Any) -> Any:
    """Return what `Policy` takes. Text is read; a switch and a list come from argparse as what they are."""
    if not isinstance(value, str):
        return value
    try:
        return _KNOBS[name].kind.read(value)
    except ValueError as error:
        raise BadValue(name, str(error)) from None
