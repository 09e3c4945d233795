"""Every command with its options and help text.

A new command is one row in _COMMANDS, here, and its function in agent/cli/<command>.py. Its module
is loaded only when it is the chosen one, so its options are defined here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from agent import __version__
from agent.cli.hints import with_config
from agent.errors import KeysyncError
from agent.log import FORMATS, LEVELS

_EXIT_CODES = """\
exit codes:
  0   in sync, whether or not anything changed
  1   unexpected error
  2   wrong usage
  3   held by a guard, for all users or for some
  4   nobody can log in as a user of a target, or nobody could any more (uninstall)
  65  the API's answer cannot be used
  74  a key file or the state could not be read or written, or sshd could not be asked
  75  the API cannot be reached or limits the rate, and the keys stay as they are; from status
      also: the last success is too old, or the agent is not running
  77  the API key is missing or was rejected
  78  the configuration is wrong
"""


class _Parser(argparse.ArgumentParser):
    """Does not repeat a long word in its errors: it may be a key in the wrong place (G10)."""

    def error(self, message: str) -> NoReturn:
        super().error(_LONG_WORD.sub("…", message))


_LONG_WORD = re.compile(r"[\w+/=.-]{20,}")  # longer than any word of the usage


def build_parser() -> argparse.ArgumentParser:
    """All commands and options with their help; `command` is the chosen row of the table."""
    parser: argparse.ArgumentParser = _Parser(
        prog="keysync",
        description="Keep authorized_keys in sync with the account's SSH keys on the console.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keysync {__version__}")
    _add_global_options(parser, shown=True)
    parser.set_defaults(config=None, log_level=None, log_format="auto")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    actions = {}
    for command in _COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group and group not in actions:
            own = _add_parser(commands, group, _GROUPS[group])
            actions[group] = own.add_subparsers(title="actions", required=True, metavar="ACTION")
        child = _add_parser(actions[group] if group else commands, name, command.help)
        command.add_options(child)
        child.set_defaults(command=command)
    return parser


def run_command(options: argparse.Namespace) -> int:
    """Runs the chosen command and returns its exit code. Raises KeysyncError."""
    module, function = options.command.function
    run = getattr(importlib.import_module(module), function)
    try:
        code: int = run(options)
    except KeysyncError as error:
        error.hint = with_config(error.hint, options.config)
        raise
    return code


def _add_global_options(parser: argparse.ArgumentParser, *, shown: bool) -> None:
    """Accepted before and after the command, but listed once."""

    def add(flag: str, text: str, **settings: Any) -> None:
        text = text if shown else argparse.SUPPRESS
        parser.add_argument(flag, default=argparse.SUPPRESS, help=text, **settings)

    add(
        "--config",
        "configuration file (or KEYSYNC_CONFIG; default: /etc/keysync/config.yaml)",
        metavar="PATH",
    )
    add(
        "--log-level",
        "lowest level to log (default: info; on a terminal: warnings that the result does not "
        "show)",
        choices=LEVELS,
    )
    add(
        "--log-format",
        "default: auto, which is console on a terminal and json elsewhere",
        choices=FORMATS,
    )


_Commands = argparse._SubParsersAction  # noqa: SLF001  # reason: argparse has no public name for it


def _add_parser(
    commands: _Commands[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="Global options (see keysync --help) may come before or after the command.",
    )
    _add_global_options(parser, shown=False)
    return parser


# ---- the options of each command ----


def _no_options(_parser: argparse.ArgumentParser) -> None:
    """For a command that has only the global options."""


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and change nothing"
    )


def _sync(parser: argparse.ArgumentParser) -> None:
    _dry_run(parser)
    parser.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        default=0.0,
        help="retry for up to SECONDS while the API cannot be reached (for boot)",
    )
    parser.add_argument(
        "--confirm-removals",
        action="store_true",
        help="apply a list that is held because it would lock a user out",
    )
    parser.add_argument(
        "--confirm-additions",
        action="append",
        metavar="FINGERPRINT|all",
        default=[],
        help="let in a key that waits (policy.additions: hold); may be repeated",
    )
    parser.add_argument(
        "--accept-account",
        type=int,
        metavar="ID",
        help="switch to the account with this id",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")


def _status(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument(
        "--check", action="store_true", help="print one line, for a health check; same exit code"
    )


def _uninstall(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--restore-original",
        action="store_true",
        help="restore each key file to what it was before keysync's first change",
    )
    choice.add_argument(
        "--keep-keys",
        action="store_true",
        help="remove keysync's tag from its lines, and keep the keys",
    )
    parser.add_argument(
        "--allow-lockout",
        action="store_true",
        help="restore the key files even if nobody could log in as a user any more",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    _dry_run(parser)


def _forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="USER|PATH",
        help="the key file to release, or the user whose key files to release",
    )
    _dry_run(parser)


def _original(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="PATH|USER",
        help="the key file to print, or the user whose key file to print",
    )


# ---- all commands ----


class _Command(NamedTuple):
    """A row of the table; `name` is "COMMAND" or "COMMAND ACTION"."""

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None] = _no_options

    @property
    def function(self) -> tuple[str, str]:
        """Its module and function: cli/status.py `run`, or cli/config.py `check` for an action.

        The function gets the parsed options and returns the exit code.
        """
        command, _, action = self.name.partition(" ")
        return f"agent.cli.{command}", action or "run"


_GROUPS = {"config": "check or show the configuration"}
_COMMANDS = (
    _Command("sync", "sync the key files with the account's SSH keys, once", _sync),
    _Command("run", "poll and sync until stopped, in the foreground (the service)"),
    _Command("status", "show whether all is well, then who can log in and why", _status),
    _Command("config check", "check the configuration"),
    _Command("config show", "show each option with its value and source"),
    _Command("install", "set up the service on this machine; safe to repeat", _dry_run),
    _Command("uninstall", "remove everything that install set up, and the state", _uninstall),
    _Command("forget", "release a former target: remove the tag, keep the keys", _forget),
    _Command("original", "print a key file as it was before keysync's first change", _original),
)
