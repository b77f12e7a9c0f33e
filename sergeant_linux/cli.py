"""The command line, generated from the knobs of `Policy`.

Facts: a pool is started from a shell, a unit and a container's entrypoint, where now a flag is handy and now an
environment variable; and what was mistyped is read in a log, by somebody in a hurry.
Decision: each knob is a flag and a variable, read by one parser whichever way the program was started; the flag wins. A
bad value ends the program with status 2 and one line that names the flag or variable, what was expected, and the value.
The *names* of variables are taken less seriously: an unknown one is warned about and left alone, since we are not the
only ones to name variables (Kubernetes sets SERGEANT_LINUX_PORT in every pod beside a Service called sergeant-linux).
Price: argparse sees the flags alone, so its own checks (`type`, `required`, `choices`) go unused.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final, NoReturn

from sergeant_linux.core.policy import MODULES, SWITCH, VARIABLE_PREFIX, BadValue, Knob, Policy

PROG: Final = 'sergeant-linux'

USAGE_ERROR: Final = 2
"""Exit status for wrong usage or a bad value."""

_KNOBS: Final[Mapping[str, Knob]] = {each.name: each.metadata['knob'] for each in fields(Policy)}
_DEFAULTS: Final = {each.name: each.default for each in fields(Policy) if each.default is not MISSING}
_ANCESTORS: Final = tuple(_KNOBS)[:4]
"""The knobs that sergeant.supervisor has."""

_EPILOG: Final = f"""\
SPAN is seconds, or a time span as systemd writes it: 90, 1min 30s, 500ms, infinity.
SIZE is bytes, or a number with K, M, G or T (base 1024): 64M, 1.5G.
What is off by default can be turned off: --max-worker-memory-usage=off.
What a worker inherits is what the supervisor itself has: --umask=inherit.
Each option can be an environment variable instead: {VARIABLE_PREFIX}TIMEOUT_STOP for --timeout-stop.
The option wins. In a variable a switch is 1 or 0 and a list has commas; an empty variable is none.

signals:
  SIGTERM, SIGINT   stop: workers finish the task in hand; a second one kills them
  SIGQUIT           kill the workers now
  SIGUSR1           log one line for each slot
  SIGTTIN, SIGTTOU  one worker more, one worker less

exit status:
   0  stopped as asked
   1  the workers can't be loaded
   2  wrong usage or a bad value
   3  the restart budget is spent
   4  the host can't do what was asked for
  70  an error of our own

example:
  {{prog}} --concurrent-workers=4 \\
    --worker-module=crawl_worker --worker-class=Worker --max-worker-memory-usage=512M
"""

_DOCTOR_EPILOG: Final = """\
Each line is a check: ok, info (a fact), warn (a run does without it, or may suffer from it) or fail (a run would not do
as asked), what was found, and the line that would mend it. Children and a cgroup are made to try things, and are gone
at the end. The worker's own code is not looked at.

exit status:
   0  a run would do as asked
   2  wrong usage or a bad value
   4  it would not

examples:
  {prog}
  {prog} --memory-backend=cgroup --concurrent-workers=64 --max-worker-memory-usage=512M
  systemd-run --pipe --wait -p Delegate=yes -p User=nobody {prog}
"""

_VERBS: Final = 'run: keep a pool of workers running; doctor: tell whether one can run here, and what would mend it'

_ANY_WORKER: Final = {'concurrent_workers': 1, 'worker_class_name': 'Worker', 'worker_module_name': 'worker'}
"""What the doctor takes for what a run is required to be told."""


def parse_run(argv: Sequence[str], environ: Mapping[str, str], prog: str) -> Policy:
    """Return the policy that the arguments (without the program's name) and the environment ask for.

    Wrong usage or a bad value: one line on stderr, SystemExit(2). `--help`: SystemExit(0).
    """
    parser = _Parser(
        prog=prog,
        usage=_usage(prog),
        description='Keep a pool of Python workers running on this host.',
        epilog=_EPILOG.format(prog=prog),
    )
    _add_knobs(parser)
    return _policy(parser, vars(parser.parse_args(argv)), environ, _DEFAULTS)


def parse_doctor(argv: Sequence[str], environ: Mapping[str, str], prog: str) -> tuple[Policy, bool]:
    """Return the policy of the run that is thought of, and whether the answer is to be JSON.

    As `parse_run`, but nothing is required: what is left out is one worker that isn't looked at.
    """
    parser = _Parser(
        prog=prog,
        usage=f'{prog} [-h] [--json] [option of run ...]',
        description='Tell whether a pool can run as asked here, and what would mend it. Start it where the pool is to '
        'be started, in the unit or in the container, with the same options.',
        epilog=_DOCTOR_EPILOG.format(prog=prog),
    )
    parser.add_argument('--json', action='store_true', help='answer with one JSON object')
    _add_knobs(parser, explained=False)
    flags = vars(parser.parse_args(argv))
    return _policy(parser, flags, environ, _ANY_WORKER | _DEFAULTS), flags['json']


def _policy(
    parser: '_Parser', flags: Mapping[str, Any], environ: Mapping[str, str], defaults: Mapping[str, Any]
) -> Policy:
    """Return the policy of these flags, of the environment where there is no flag, or else of the defaults."""
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

        from sergeant_linux import credentials  # not needed by --help, nor where the usage is wrong

        credentials.account(policy)
        credentials.control_group(policy)
        return policy
    except BadValue as error:
        parser.error(f'{sources[error.knob]}: {error.text}')


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console command `sergeant-linux`: a verb and its arguments, `--version`, `--help`. Never returns."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(
        prog=PROG,
        usage=f'{PROG} [-h] [--version] VERB [argument ...]',
        description='A supervisor for a pool of Python workers on one Linux host.',
        epilog=f'`{PROG} VERB --help` tells more of a verb.',
    )
    parser.add_argument('--version', action=_Version, nargs=0, help='show the version and exit')
    parser.add_argument('verb', metavar='VERB', choices=['run', 'doctor'], help=_VERBS)
    verb = parser.parse_args(arguments[:1]).verb  # what follows the verb is the verb's
    prog, arguments = f'{PROG} {verb}', arguments[1:]
    if verb == 'doctor':
        policy, as_json = parse_doctor(arguments, os.environ, prog)

        from sergeant_linux import doctor  # not needed by --help, nor where the usage is wrong

        doctor.run(policy, as_json=as_json)
    policy = parse_run(arguments, os.environ, prog)

    from sergeant_linux import supervisor  # as above

    supervisor.run(policy)


class _Parser(argparse.ArgumentParser):
    """An argument parser that says in one line what is wrong."""

    def __init__(self, prog: str, usage: str, description: str, epilog: str) -> None:
        super().__init__(
            prog, usage, description, epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, self._line('error', message))

    def warn(self, message: str) -> None:
        self._print_message(self._line('warning', message), sys.stderr)

    def _line(self, level: str, message: str) -> str:
        return f'{self.prog}: {level}: {" ".join(message.splitlines())}\n'


class _Switch(argparse.Action):
    """`--x` and `--no-x`. BooleanOptionalAction takes `--no-new-privileges` for the off of `--new-privileges`."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        on = option_strings[0]
        super().__init__([on, on.replace('--', '--no-', 1)], dest, nargs=0, help=help)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, flag: str | None = None
    ) -> None:
        setattr(namespace, self.dest, flag == self.option_strings[0])


class _Version(argparse.Action):
    """Looks the version up and leaves. Only when asked: importlib.metadata takes 30 ms to import."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f'{PROG} {version("sergeant_linux")}')
        except PackageNotFoundError:
            print(f'{PROG}, not installed')
        parser.exit()


def _add_knobs(parser: _Parser, *, explained: bool = True) -> None:
    for name, knob in _KNOBS.items():
        help = _help(name, knob) if explained else argparse.SUPPRESS
        if knob.kind is SWITCH:
            parser.add_argument(knob.flag, dest=name, help=help, action=_Switch)
        else:
            action = 'append' if knob.kind is MODULES else 'store'
            parser.add_argument(knob.flag, dest=name, help=help, action=action, metavar=knob.kind.name)


def _usage(prog: str) -> str:
    """Return a usage of the ancestor's flags, one a line: with twenty more it would say nothing."""
    flags = {name: f'{_KNOBS[name].flag} {_KNOBS[name].kind.name}' for name in _ANCESTORS}
    lines = [f'[{flag}]' if name in _DEFAULTS else flag for name, flag in flags.items()]
    start = f'{prog} [-h] '
    return start + f'\n{" " * len("usage: " + start)}'.join([*lines, '[option ...]'])


def _help(name: str, knob: Knob) -> str:
    default = f'default: {knob.kind.show(_DEFAULTS[name])}' if name in _DEFAULTS else 'required'
    facts = '; '.join(filter(None, (knob.kind.unit, default)))
    return f'{knob.help} ({facts})'.replace('%', '%%')


def _warn_of_unknown_variables(parser: _Parser, environ: Mapping[str, str]) -> None:
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
