"""Arguments, dispatch, and exit codes; the commands themselves load what they need when run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from agent import __version__
from agent.errors import EXIT_UNEXPECTED, KeysyncError
from agent.log import FORMATS, LEVELS

_EXIT_CODES = """\
exit codes:
  0   in sync, changed or not
  1   unexpected error
  2   wrong usage
  3   held by a guard; nothing was changed
  65  the API's answer is not usable
  74  a key file or the state could not be read or written
  75  the API is not reachable or limits the rate; keys left as they were
  77  the API key is missing or was rejected
  78  the configuration is wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code; results on stdout, logs and errors on stderr."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except KeysyncError as error:
        print(f"keysync: {error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has gone; without this Python complains at exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNEXPECTED
    except KeyboardInterrupt:
        return 130
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags, with their help texts."""
    parser = argparse.ArgumentParser(
        prog="keysync",
        description="Keeps authorized_keys in step with the account's SSH keys on the console.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keysync {__version__}")
    _add_global(parser, argparse.SUPPRESS)
    parser.set_defaults(config=None, log_level=None, log_format="auto")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_sync(commands)
    _add_status(commands)
    _add_config(commands)
    return parser


def _add_global(parser: argparse.ArgumentParser, default: str) -> None:
    """The global flags, accepted before and after the command."""
    parser.add_argument(
        "--config",
        metavar="PATH",
        default=default,
        help="configuration file (or KEYSYNC_CONFIG; default /etc/keysync/config.yaml)",
    )
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=default,
        help="least level to log (default: info; warning on a terminal)",
    )
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        default=default,
        help="auto is console on a terminal and json elsewhere",
    )


_Commands = argparse._SubParsersAction  # noqa: SLF001  # reason: argparse has no public name for it


def _command(
    commands: _Commands[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    _add_global(parser, argparse.SUPPRESS)
    return parser


def _add_sync(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "sync", "bring every target in step with the account, once")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done; change nothing"
    )
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
        help="apply a listing that is held because it would leave nobody a way in",
    )
    parser.add_argument(
        "--accept-account",
        type=int,
        metavar="ID",
        help="follow the account with this id from now on",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run_sync)


def _add_status(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "status", "show who can log in to each target, and why")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run_status)


def _add_config(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "config", "check or show the configuration")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = _command(actions, "check", "say whether the configuration is right")
    check.set_defaults(run=_run_config_check)
    show = _command(actions, "show", "show each option's value and where it comes from")
    show.set_defaults(run=_run_config_show)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be from 0 to 86400 seconds")
    return value


def _run_sync(options: argparse.Namespace) -> int:
    from agent.cli.sync import run

    return run(options)


def _run_status(options: argparse.Namespace) -> int:
    from agent.cli.status import run

    return run(options)


def _run_config_check(options: argparse.Namespace) -> int:
    from agent.cli.configuration import check

    return check(options)


def _run_config_show(options: argparse.Namespace) -> int:
    from agent.cli.configuration import show

    return show(options)
