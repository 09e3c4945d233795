"""The command `keysync`, also as `python -m agent`."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
from types import TracebackType


def main() -> int:
    """Runs one command and returns its exit code.

    A command ends too soon for cyclic garbage to matter, and collecting it, also at exit, takes a
    fifth of a sync's time. The daemon enables the collector again.
    """
    gc.disable()
    sys.excepthook = _print_internal_error
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it, and set it itself
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the API key
    from agent.cli.main import main as command

    try:
        return command()
    finally:
        gc.freeze()


def _print_internal_error(
    kind: type[BaseException],
    error: BaseException,
    _trace: TracebackType | None,
) -> None:
    """Prints where keysync failed and what led to it, in the order of a traceback.

    The exceptions' own texts are left out, because they could hold a secret (G10).
    """
    import traceback

    chain: list[BaseException] = []
    before: BaseException | None = error
    while before is not None and len(chain) < _MAX_CHAIN:
        chain.insert(0, before)
        before = before.__cause__ or before.__context__
    for one in chain:
        traceback.print_tb(one.__traceback__)
        sys.stderr.write(_description(one) + "\n")
    sys.stderr.write(
        f"keysync: Internal error ({kind.__name__}); details withheld, they may contain secrets.\n"
        "This is a bug in keysync: please report it with the lines above.\n"
    )


_MAX_CHAIN = 20  # a chain can be circular


def _description(error: BaseException) -> str:
    """The exception's type, and what can be said about it without its text."""
    name = type(error).__name__
    # Subclasses from libraries have error numbers of their own (ssl, socket.getaddrinfo).
    if isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno:
        return f"{name}: {os.strerror(error.errno)}"
    if isinstance(error, ImportError) and error.name:
        return f"{name}: {error.name}"
    return name


if __name__ == "__main__":
    sys.exit(main())
