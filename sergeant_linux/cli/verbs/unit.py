"""`sergeant-linux unit`: a systemd unit for exactly the pool that the options describe."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sergeant_linux.cli.verbs.knobs import DEFAULTS, add_knobs, command_line, read_policy
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.core.policy import AUTO, INHERIT, SIZE, BadValue, Policy

if TYPE_CHECKING:
    from sergeant_linux.recipes import unit

HELP: Final = """\
All options of `run` are understood, and all that are given (or set by variables)
stand in the unit; --user and --group become its User= and Group=. The unit is for
this interpreter and this working folder.

exit status:
   0  done
   1  it could not be written
   2  wrong usage or a bad value

examples:
  %(prog)s --worker-module=crawl_worker --worker-class=Worker --concurrent-workers=4 --user=crawler
  %(prog)s --worker-module=crawl_worker --worker-class=Worker --concurrent-workers=4 --name=crawl --install
  %(prog)s --template --user=crawler --install
  %(prog)s --catalog
"""

FAILED: Final = 1

_ANY_POOL: Final[dict[str, Any]] = {
    'concurrent_workers': 1, 'worker_class_name': 'Worker', 'worker_module_name': 'worker',
}
"""What stands for what a template is not told: each of its pools says it in a file."""


def add_arguments(parser: Parser) -> None:
    parser.description = 'Print a complete, hardened systemd unit for exactly the pool that the options describe.'
    parser.usage = f'{parser.prog} [-h] [option ...] [option of run ...]'
    parser.add_argument('--install', action='store_true', help='write it where systemd looks for it, and check it')
    parser.add_argument('--force', action='store_true', help='also over a unit that is there')
    parser.add_argument('--user-unit', action='store_true', help="a unit for the user's own service manager")
    parser.add_argument(
        '--template', action='store_true',
        help='sergeant-linux@.service, for many pools, each described in a file /etc/sergeant-linux/NAME.env',
    )
    parser.add_argument(
        '--writable', action='append', default=[], metavar='PATH',
        help='let workers write there; may be given several times',
    )
    parser.add_argument(
        '--memory-max', metavar='SIZE',
        help='memory of the whole unit; auto: what its workers and their successors may take, and a reserve',
    )
    parser.add_argument(
        '--supervisor-user', metavar='NAME',
        help='User= of the unit; --user and --group are then what the workers run as, as for run',
    )
    parser.add_argument(
        '--systemd-version', type=int, metavar='N', help="write it for this systemd (default: this host's)",
    )
    parser.add_argument(
        '--catalog', action=Catalog,
        help='print what explains our messages to `journalctl -x` instead; --install puts it in place, too',
    )
    add_knobs(parser, explained=False)


class Catalog(argparse.Action):
    """As --version: whatever else is asked for, or missing."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sergeant_linux.log import catalog

        assert isinstance(parser, Parser)
        parser.exit(_print(parser, catalog.as_text()))


def run(args: argparse.Namespace) -> int:
    parser: Parser = args.parser
    policy = read_policy(parser, vars(args), os.environ, (_ANY_POOL if args.template else {}) | DEFAULTS)
    if args.template and policy.name is not None:
        parser.error('--name: the pools of a template are called as its instances are')
    if args.user_unit and (policy.user or policy.group or args.supervisor_user):
        parser.error('--user-unit: all of it runs as the user whose service manager it is')
    if args.force and not args.install:
        parser.error('--force: nothing is written without --install')

    from sergeant_linux.recipes import unit  # not needed by --help, nor where the usage is wrong

    is_dropping = args.supervisor_user is not None
    if is_dropping:
        _check_account(parser, args.supervisor_user)
    version = args.systemd_version if args.systemd_version is not None else unit.systemd_version()
    plan = unit.Plan(
        policy=policy,
        flags=command_line(vars(args), os.environ, without=() if is_dropping else ('user', 'group')),
        python=sys.executable,
        folder=os.getcwd(),
        needed=(sys.prefix, sys.base_prefix),
        pythonpath=os.environ.get('PYTHONPATH', ''),
        systemd=version,
        user=args.supervisor_user if is_dropping else policy.user,
        group=None if is_dropping else policy.group,
        memory_max=_memory_max(parser, args.memory_max, policy),
        writable=[os.path.abspath(each) for each in args.writable],
        for_user_manager=args.user_unit,
        is_template=args.template,
        command=_script() if is_dropping else None,
    )
    for each in plan.writable:
        if not os.path.exists(each):
            parser.warn(f'--writable: {each} does not exist; systemd does not start a unit whose folders are missing')
    try:
        text = unit.as_text(plan)
    except unit.Unwritable as error:
        parser.error(str(error))
    return _install(parser, plan, text, force=args.force) if args.install else _print(parser, text)


def _script() -> str | None:
    """Return our console script, if it is there and a unit can have it: where the supervisor has more rights than the
    workers, `python3 -m` would look for modules in their folder before a line of ours is run (module_path.py)."""
    path = os.path.join(os.path.dirname(sys.executable), 'sergeant-linux')
    return path if os.access(path, os.X_OK) and '$' not in path and path.isprintable() else None


def _check_account(parser: Parser, name: str) -> None:
    from sergeant_linux.host import credentials

    try:
        if name == INHERIT:
            raise BadValue('user', f'expected a name or a number, not {name!r}')
        credentials.account(Policy(**_ANY_POOL, user=name))
    except BadValue as error:
        parser.error(f'--supervisor-user: {error.text}')


def _memory_max(parser: Parser, text: str | None, policy: Policy) -> int | None:
    if text is None:
        return None
    if text == AUTO:
        from sergeant_linux.recipes.unit import memory_for

        size = memory_for(policy)
        if size is None:
            limits = '--max-worker-memory-usage or --pool-memory-max'
            parser.error(f'--memory-max=auto: expected a limit in numbers: {limits}')
        return size
    try:
        accepted = SIZE.accept(SIZE.read(text))
    except ValueError as error:
        parser.error(f'--memory-max: {error}')
    return accepted if isinstance(accepted, int) else None


def _print(parser: Parser, text: str) -> int:
    from sergeant_linux.cli import terminal

    terminal.prepare(sys.stdout)
    try:
        print(text, end='', flush=True)
    except BrokenPipeError:  # `| head`
        terminal.silence(sys.stdout)
    except OSError as error:
        terminal.silence(sys.stdout)
        _fail(parser, f'cannot write: {error}')
    return 0


def _install(parser: Parser, plan: 'unit.Plan', text: str, *, force: bool) -> int:
    from sergeant_linux.log import catalog
    from sergeant_linux.recipes import unit

    of_user = plan.for_user_manager
    folder = unit.install_folder(for_user_manager=of_user)
    hidden = unit.hidden_by(plan.name, for_user_manager=of_user)
    if hidden is not None and not force:
        _fail(parser, f'{hidden} would be hidden by a unit of this name: choose another --name, or --force it')
    try:
        target = unit.install(folder, plan.name, text, force=force)
    except FileExistsError:
        _fail(parser, f'{folder}/{plan.name} is there already: look at it, and --force it')
    except OSError as error:
        _fail(parser, f'cannot write {folder}/{plan.name}: {error.strerror or error}')
    complaints = unit.verify(target, for_user_manager=of_user)
    print(f'{target} is written. Next:')
    for line in _next_steps(plan):
        print(f'    {line}')
    for line in (complaints or '').splitlines():
        parser.warn(f'systemd-analyze verify: {line}')
    if not of_user and (why_not := unit.install_catalog()) is not None:
        parser.warn(f'{catalog.FILE}, which explains our messages to `journalctl -x`: {why_not}')
    return 0


def _next_steps(plan: 'unit.Plan') -> list[str]:
    systemctl = 'systemctl --user' if plan.for_user_manager else 'systemctl'
    name = plan.name.replace('@.', '@NAME.')
    shown = f"'{name}'" if '\\' in name else name
    steps = [f'{systemctl} daemon-reload', f'{systemctl} enable --now {shown}', f'{systemctl} status {shown}']
    if plan.is_template:
        folder = '~/.config/sergeant-linux' if plan.for_user_manager else '/etc/sergeant-linux'
        steps.insert(0, f'$EDITOR {folder}/NAME.env    # the end of the unit shows what belongs there')
    if plan.for_user_manager:
        steps.append('loginctl enable-linger    # for it to run without a session of yours')
    return steps


def _fail(parser: Parser, text: str) -> NoReturn:
    parser.exit(FAILED, parser.line('error', text))
