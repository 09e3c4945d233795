"""The command `keysync`, also as `python -m agent`."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
from types import TracebackType


def main() -> int:
    """Runs one command and gives its exit code.

    A command lives too briefly for cyclic garbage to matter, and looking for it, at the end too,
    takes a fifth of a sync's time. The daemon switches the collector on again.
    """
    gc.disable()
    sys.excepthook = _tell_defect
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it; its unit sets it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the API key
    from agent.cli.main import main as command

    try:
        return command()
    finally:
        gc.freeze()


def _tell_defect(
    kind: type[BaseException],
    error: BaseException,
    _trace: TracebackType | None,
) -> None:
    """Where keysync failed, and what led to it, in the order of a traceback.

    Without the exceptions' own texts, which could hold a secret (G10).
    """
    import traceback

    chain: list[BaseException] = []
    before: BaseException | None = error
    while before is not None and len(chain) < _LONGEST_CHAIN:
        chain.insert(0, before)
        before = before.__cause__ or before.__context__
    for one in chain:
        traceback.print_tb(one.__traceback__)
        sys.stderr.write(_named(one) + "\n")
    sys.stderr.write(
        f"keysync: This is a defect of keysync ({kind.__name__}, said without its details).\n"
        "Please report it with the lines above.\n"
    )


_LONGEST_CHAIN = 20  # a chain can be a circle


def _named(error: BaseException) -> str:
    """The kind, and what is known of it from other places than its text."""
    name = type(error).__name__
    # Subclasses of libraries have numbers of their own (ssl, socket.getaddrinfo).
    if isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno:
        return f"{name}: {os.strerror(error.errno)}"
    if isinstance(error, ImportError) and error.name:
        return f"{name}: {error.name}"
    return name


if __name__ == "__main__":
    sys.exit(main())
