"""Every command with its options and help text, and the function that runs it."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from agent import __version__
from agent.cli.hints import with_config
from agent.errors import KeysyncError
from agent.log import FORMATS, LEVELS

_EXIT_CODES = """\
exit codes:
  0   in sync, changed or not
  1   unexpected error
  2   wrong usage
  3   held by a guard, for all users or for some
  4   a user has no way in, or would have none
  65  the API's answer is not usable
  74  a key file or the state could not be read or written, or sshd could not be asked
  75  the API is not reachable or limits the rate, keys left as they were; or the last success is
      too old, or the agent is not running (status)
  77  the API key is missing or was rejected
  78  the configuration is wrong
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong without repeating what may be a key in the wrong place (G10)."""

    def error(self, message: str) -> NoReturn:
        super().error(_LONG_WORD.sub("…", message))


_LONG_WORD = re.compile(r"[\w+/=.-]{20,}")  # no word of the usage is so long


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags, with their help texts; `command` is which one was chosen."""
    parser: argparse.ArgumentParser = _Parser(
        prog="keysync",
        description="Keeps authorized_keys in step with the account's SSH keys on the console.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keysync {__version__}")
    _add_global(parser, shown=True)
    parser.set_defaults(config=None, log_level=None, log_format="auto")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    actions = {}
    for command in _COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group and group not in actions:
            own = _add_parser(commands, group, _GROUPS[group])
            actions[group] = own.add_subparsers(required=True, metavar="ACTION")
        child = _add_parser(actions[group] if group else commands, name, command.help)
        command.add_options(child)
        child.set_defaults(command=command)
    return parser


def run_command(options: argparse.Namespace) -> int:
    """Loads the chosen command's module, which the others do without, and gives its exit code."""
    module, _, function = options.command.function.partition(":")
    run = getattr(importlib.import_module(f"agent.cli.{module}"), function)
    try:
        code: int = run(options)
    except KeysyncError as error:
        error.hint = with_config(error.hint, options.config)
        raise
    return code


def _add_global(parser: argparse.ArgumentParser, *, shown: bool) -> None:
    """The global flags, accepted before and after the command, and explained once."""

    def explained(text: str) -> str:
        return text if shown else argparse.SUPPRESS

    parser.add_argument(
        "--config",
        metavar="PATH",
        default=argparse.SUPPRESS,
        help=explained("configuration file (or KEYSYNC_CONFIG; default /etc/keysync/config.yaml)"),
    )
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=argparse.SUPPRESS,
        help=explained(
            "least level to log (default: info; on a terminal only what the result leaves out)"
        ),
    )
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        default=argparse.SUPPRESS,
        help=explained("auto is console on a terminal and json elsewhere"),
    )


_Commands = argparse._SubParsersAction  # noqa: SLF001  # reason: argparse has no public name for it


def _add_parser(
    commands: _Commands[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="Global options, before or after the command: see keysync --help.",
    )
    _add_global(parser, shown=False)
    return parser


# ---- the options of each command ----


def _no_options(_parser: argparse.ArgumentParser) -> None:
    """For a command without options of its own."""


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done; change nothing"
    )


def _sync(parser: argparse.ArgumentParser) -> None:
    _dry_run(parser)
    parser.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        default=0.0,
        help="keep trying for so long while the API is not reachable (for boot)",
    )
    parser.add_argument(
        "--confirm-removals",
        action="store_true",
        help="apply a listing that is held because it would leave a user without a way in",
    )
    parser.add_argument(
        "--confirm-additions",
        action="append",
        metavar="FINGERPRINT|all",
        default=[],
        help="let in a key that waits (policy.additions: hold); may be given again",
    )
    parser.add_argument(
        "--accept-account",
        type=int,
        metavar="ID",
        help="follow the account with this id from now on",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 86400")


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
        help="give each key file the bytes it had before keysync's first change",
    )
    choice.add_argument(
        "--keep-keys", action="store_true", help="take keysync's tag off its lines; keep the keys"
    )
    parser.add_argument(
        "--allow-lockout",
        action="store_true",
        help="restore also where nobody could log in as a user any more",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    _dry_run(parser)


def _forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="USER|PATH", help="whose key files, or which one")
    _dry_run(parser)


def _original(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="PATH|USER", help="the key file, or whose it is")


# ---- all commands ----


class _Command(NamedTuple):
    """`function` is MODULE:FUNCTION of agent.cli; it gets the options and gives the exit code."""

    name: str
    function: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None] = _no_options


_GROUPS = {"config": "check or show the configuration"}
_COMMANDS = (
    _Command("sync", "sync:run", "bring every target in step with the account, once", _sync),
    _Command("run", "run:run", "poll and sync for ever, in the foreground (the service)"),
    _Command(
        "status", "status:run", "say whether all is well, then who can log in and why", _status
    ),
    _Command("config check", "configuration:check", "say whether the configuration is right"),
    _Command(
        "config show", "configuration:show", "show each option's value and where it comes from"
    ),
    _Command(
        "install", "install:run", "set up the service on this machine; safe to repeat", _dry_run
    ),
    _Command(
        "uninstall", "uninstall:run", "remove all that install set up, and the state", _uninstall
    ),
    _Command(
        "forget",
        "forget:run",
        "release a key file that was a target: the tag goes, the keys stay",
        _forget,
    ),
    _Command(
        "original",
        "original:run",
        "print a key file's bytes from before keysync's first change",
        _original,
    ),
)
