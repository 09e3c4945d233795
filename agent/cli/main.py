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
    """Runs one command and returns its exit code; results on stdout, logs and errors on stderr."""
    _prepare_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    lost: OSError | None = None
    try:
        code = _run(arguments)
    except KeysyncError as error:
        lost = _flush(sys.stdout)  # the result so far comes before the error, also in a pipe
        print(f"keysync: {error.message}\n{error.hint}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # a result longer than the stream's buffer
        if not _is_from_printing(error):
            raise
        lost, code = error, EXIT_UNEXPECTED
    except KeyboardInterrupt:
        return 130
    return code if _wrote_everything(lost) else code or EXIT_UNEXPECTED


def _run(arguments: Sequence[str]) -> int:
    parser = build_parser()
    if not arguments:  # `keysync` alone lists the commands
        parser.print_help()
        return EXIT_OK
    return run_command(parser.parse_args(arguments))


def _is_from_printing(error: OSError) -> bool:
    """Whether printing the result failed: the commands use no files for anything else.

    The error of any other file names that file, or comes from a frame of the layers below.
    """
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        trace = trace.tb_next
    return error.filename is None and module.startswith("agent.cli.")


def _prepare_streams() -> None:
    """Replaces closed standard streams by /dev/null, so that no key file gets their number.

    A character that the terminal cannot show is escaped: a comment must not end a command.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number (open(2))
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  # reason: as the stream
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115  # reason: the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _wrote_everything(earlier: OSError | None) -> bool:
    """Whether the whole result was written, and says so if not; a lost log is no failure."""
    last = _flush(sys.stdout)
    lost = earlier or last
    if lost and not isinstance(lost, BrokenPipeError):  # a reader who left needs no message
        print(f"keysync: The result could not be written: {lost.strerror}.", file=sys.stderr)
    _flush(sys.stderr)
    return lost is None


def _flush(stream: TextIO) -> OSError | None:
    """Writes what the stream holds. On an error returns it, and Python does not retry at exit."""
    try:
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None
