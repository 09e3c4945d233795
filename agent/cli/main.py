"""The command line: streams, dispatch, and exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from agent.cli.parser import build_parser, run_command
from agent.errors import EXIT_OK, EXIT_UNEXPECTED, KeysyncError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code; results on stdout, logs and errors on stderr."""
    _prepare_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    lost: OSError | None = None
    try:
        code = _run(arguments)
    except KeysyncError as error:
        lost = _lost(sys.stdout)  # what led to the error comes before it, also through a pipe
        print(f"keysync: {error.message}\n{error.hint}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # a result longer than the stream's buffer
        if not _of_the_result(error):
            raise
        lost, code = error, EXIT_UNEXPECTED
    except KeyboardInterrupt:
        return 130
    return code if _flushed(lost) else code or EXIT_UNEXPECTED


def _run(arguments: Sequence[str]) -> int:
    parser = build_parser()
    if not arguments:  # somebody who wants to know what there is
        parser.print_help()
        return EXIT_OK
    return run_command(parser.parse_args(arguments))


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
