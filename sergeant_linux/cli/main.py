# PYTHON_ARGCOMPLETE_OK
"""The console command `sergeant-linux`: a verb and its arguments.

Facts: a probe, a script and a refreshed screen start the command again and again, and what a process costs is what it
imports. A shell that completes a line needs to know all verbs and options, and nobody else does.
Decision: verbs are a table of names and one line each; the module of the verb that is asked for is imported, and no
other. All of them together make a parser only for a shell's completion, which announces itself in the environment.
Whoever speaks to a pool ends with a status and at most one line, whatever went wrong: out of reach, interrupted, or
nobody left that reads what is said.
Price: `import-linter` doesn't see those imports; the verbs stand below this module all the same.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from sergeant_linux.cli.verbs.parser import Parser

PROG: Final = 'sergeant-linux'

VERBS: Final[Mapping[str, str]] = {
    'run': 'keep a pool of workers running',
    'doctor': 'tell whether one can run here, and what would mend it',
    'unit': 'print a systemd unit for a pool, or install it',
    'deploy': 'print what runs one in containers: an image, a compose file, manifests of Kubernetes',
    'ps': 'list the pools of this host',
    'status': 'show a pool and its workers, once or again and again',
    'health': 'tell by the exit status whether a pool is ready, or alive',
    'events': 'show what has happened in a pool, and what happens',
    'scale': 'change how many workers a pool keeps running',
    'reload': "replace the workers by ones with today's code, one by one",
    'restart': 'replace all workers, or some, one by one',
    'stop': 'stop a pool',
    'kill': 'send a signal to one worker',
    'dump': 'show where the Python code of one worker is now',
    'get': 'show the options that a pool runs with',
    'set': 'change an option of a running pool',
}
"""Each verb, and what it does. Its module in `verbs` has its name."""

STARTS: Final = frozenset({'run', 'doctor', 'unit'})
"""The verbs that see to their end themselves."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """A verb and its arguments, `--version`, `--help`. Never returns."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if '_ARGCOMPLETE' in os.environ:
        _complete()
    parser = Parser(
        prog=PROG,
        usage=f'{PROG} [-h] [--version] VERB [argument ...]',
        description='A supervisor for a pool of Python workers on one Linux host, and how to operate it.',
        epilog=_epilog(),
    )
    parser.add_argument('--version', action=_Version, nargs=0, help='show the version and exit')
    parser.add_argument('verb', metavar='VERB', choices=VERBS, help=argparse.SUPPRESS)
    verb = parser.parse_args(arguments[:1]).verb  # what follows the verb is the verb's
    sys.exit(_start(verb, arguments[1:]) if verb in STARTS else _speak(verb, arguments[1:]))


def _start(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb, and return its exit status."""
    parser = Parser(prog=f'{PROG} {verb}')
    module = _describe(parser, verb)
    args = parser.parse_args(arguments)
    args.parser = parser
    status: int = module.run(args)
    return status


def _speak(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb that speaks to a pool, and return its exit status however that ends."""
    from sergeant_linux.cli import terminal
    from sergeant_linux.cli.verbs.pool import CUT_OFF, FAILED, INTERRUPTED, Trouble

    parser = Parser(prog=f'{PROG} {verb}')
    try:
        try:
            terminal.prepare(sys.stdout)
            terminal.prepare(sys.stderr)
            return _start(verb, arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except Trouble as trouble:
        parser.exit(trouble.status, parser.line('error', terminal.clean(str(trouble))))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # nobody reads on: `| head`
        terminal.silence(sys.stdout)
        return CUT_OFF
    except OSError as error:  # the disk below stdout is full
        terminal.silence(sys.stdout)
        parser.exit(FAILED, parser.line('error', f'cannot write the answer: {error}'))


def _describe(parser: Parser, verb: str) -> Any:
    """Give the parser what the verb's module says of it, and return the module."""
    module = import_module(f'sergeant_linux.cli.verbs.{verb}')
    said = VERBS[verb]
    parser.description = f'{said[0].upper()}{said[1:]}.'
    parser.epilog = module.HELP
    module.add_arguments(parser)
    return module


def _epilog() -> str:
    verbs = ''.join(f'  {name:<8}  {said}\n' for name, said in VERBS.items())
    return f'verbs:\n{verbs}\n`{PROG} VERB --help` tells more of a verb.'


def _complete() -> NoReturn:
    """Answer a shell that completes a line: argcomplete's bash protocol, which it speaks with zsh and fish as well."""
    try:
        import argcomplete
    except ImportError:
        sys.exit(1)
    parser = Parser(prog=PROG)
    parser.add_argument('--version', action=_Version, nargs=0)
    verbs = parser.add_subparsers(metavar='VERB', required=True, parser_class=Parser)
    for verb, said in VERBS.items():
        _describe(verbs.add_parser(verb, help=said), verb)
    argcomplete.autocomplete(parser, always_complete_options='long', print_suppressed=True)
    sys.exit(1)


class _Version(argparse.Action):
    """Looks the version up and leaves. Only when asked: importlib.metadata takes 30 ms to import."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f'{PROG} {version("sergeant_linux")}')
        except PackageNotFoundError:
            print(f'{PROG}, not installed')
        parser.exit()
