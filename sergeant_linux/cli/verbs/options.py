"""An option of a running pool by its name: `timeout-stop`, `--timeout-stop` and `timeout_stop` are the same."""

import argparse
import re
from typing import Final

KNOBS: Final = {
    'worker_module': 'worker_module_name',
    'worker_class': 'worker_class_name',
    'preload_module': 'preload_modules',
}
"""The knobs that are not called as their options are."""


def knob(text: str) -> str:
    """Return the knob that an option sets, as the pool calls it."""
    name = text.removeprefix('--').replace('-', '_')
    if not re.fullmatch(r'[a-z][a-z0-9_]{0,63}', name):
        raise argparse.ArgumentTypeError(f'expected an option, such as timeout-stop, not {text!r:.100}')
    return KNOBS.get(name, name)


def option(knob: str) -> str:
    """Return the option that sets a knob, without its dashes."""
    return next((flag for flag, name in KNOBS.items() if name == knob), knob).replace('_', '-')


def complete(prefix: str, **_: object) -> list[str]:
    """Return the options that begin so, for a shell that completes."""
    from dataclasses import fields

    from sergeant_linux.core.policy import Policy

    return [name for name in (option(field.name) for field in fields(Policy)) if name.startswith(prefix)]
