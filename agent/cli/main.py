"""Arguments, dispatch, and exit codes; the commands themselves load what they need when run."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from agent import __version__
from agent.errors import EXIT_UNEXPECTED, EXIT_USAGE, KeysyncError
from agent.log import FORMATS, LEVELS

_EXIT_CODES = """\
exit codes:
  0   in sync, changed or not
  1   unexpected error
  2   wrong usage
  3   held by a guard, for all users or for some
  4   a user has no way in, or would have none
  65  the API's answer is not usable
  74  a key file or the state could not be read or written, or sshd not be asked
  75  the API is not reachable or limits the rate, keys left as they were; or the last success is
      too old, or the agent is not running (status)
  77  the API key is missing or was rejected
  78  the configuration is wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code; results on stdout, logs and errors on stderr."""
    _prepare_streams()
    parser = build_parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    options = parser.parse_args(arguments)
    lost: OSError | None = None
    try:
        code: int = options.run(options)
    except KeysyncError as error:
        print(f"keysync: {error.message}\n{error.hint}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # a result longer than the stream's buffer
        if not _of_the_result(error):
            raise
        lost, code = error, EXIT_UNEXPECTED
    except KeyboardInterrupt:
        return 130
    return code if _flushed(lost) else code or EXIT_UNEXPECTED


def _of_the_result(error: OSError) -> bool:
    """Whether it was in writing the result: the commands themselves do nothing else with files.

    A file that failed under them names itself, or failed in a frame of the layers below.
    """
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        trace = trace.tb_next
    return error.filename is None and module.startswith("agent.cli.")


def _prepare_streams() -> None:
    """A closed standard stream becomes /dev/null, so that no key file is opened under its number.

    What the terminal's encoding cannot show is escaped: a comment must not end a command.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free (open(2))
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  # reason: as the stream
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115  # reason: the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flushed(earlier: OSError | None) -> bool:
    """Whether the whole result could be written; a log that could not be is no failure."""
    last = _lost(sys.stdout)
    lost = earlier or last
    if lost and not isinstance(lost, BrokenPipeError):  # a reader who has gone needs no message
        print(f"keysync: The result could not be written: {lost.strerror}.", file=sys.stderr)
    _lost(sys.stderr)
    return lost is None


def _lost(stream: TextIO) -> OSError | None:
    """Why the rest of a stream could not be written; Python shall not try again at exit."""
    try:
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong without repeating what may be a key in the wrong place (G10)."""

    def error(self, message: str) -> NoReturn:
        super().error(_LONG_WORD.sub("…", message))


_LONG_WORD = re.compile(r"[\w+/=.-]{20,}")  # no word of the usage is so long


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags, with their help texts."""
    parser: argparse.ArgumentParser = _Parser(
        prog="keysync",
        description="Keeps authorized_keys in step with the account's SSH keys on the console.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keysync {__version__}")
    _add_global(parser, shown=True)
    parser.set_defaults(config=None, log_level=None, log_format="auto")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_sync(commands)
    run = _command(commands, "run", "poll and sync for ever, in the foreground (the service)")
    run.set_defaults(run=_run_daemon)
    _add_status(commands)
    _add_config(commands)
    _add_install(commands)
    _add_uninstall(commands)
    _add_forget(commands)
    _add_original(commands)
    return parser


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


def _command(
    commands: _Commands[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="Global options, before or after the command: --config PATH, --log-level LEVEL, "
        "--log-format FORMAT (keysync --help).",
    )
    _add_global(parser, shown=False)
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
    parser.set_defaults(run=_run_sync)


def _add_status(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "status", "say whether all is well, then who can log in and why")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument(
        "--check", action="store_true", help="print one line, for a health check; same exit code"
    )
    parser.set_defaults(run=_run_status)


def _add_config(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "config", "check or show the configuration")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = _command(actions, "check", "say whether the configuration is right")
    check.set_defaults(run=_run_config_check)
    show = _command(actions, "show", "show each option's value and where it comes from")
    show.set_defaults(run=_run_config_show)


def _add_install(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "install", "set up the service on this machine; safe to repeat")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done; change nothing"
    )
    parser.set_defaults(run=_run_install)


def _add_uninstall(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "uninstall", "remove all that install set up, and the state")
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
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done; change nothing"
    )
    parser.set_defaults(run=_run_uninstall)


def _add_forget(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands, "forget", "release a key file that was a target: the tag goes, the keys stay"
    )
    parser.add_argument("target", metavar="USER|PATH", help="whose key files, or which one")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done; change nothing"
    )
    parser.set_defaults(run=_run_forget)


def _add_original(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands, "original", "print a key file's bytes from before keysync's first change"
    )
    parser.add_argument("target", metavar="PATH|USER", help="the key file, or whose it is")
    parser.set_defaults(run=_run_original)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 86400")


def _run_sync(options: argparse.Namespace) -> int:
    from agent.cli.sync import run

    return run(options)


def _run_daemon(options: argparse.Namespace) -> int:
    from agent.cli.run import run  # loads APScheduler, which no other command needs

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


def _run_install(options: argparse.Namespace) -> int:
    from agent.cli.install import run

    return run(options)


def _run_uninstall(options: argparse.Namespace) -> int:
    from agent.cli.uninstall import run

    return run(options)


def _run_forget(options: argparse.Namespace) -> int:
    from agent.cli.forget import run

    return run(options)


def _run_original(options: argparse.Namespace) -> int:
    from agent.cli.original import run

    return run(options)
