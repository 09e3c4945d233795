"""The command `keysync`, also as `python -m agent`."""

from __future__ import annotations

import contextlib
import gc
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
    _error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Where keysync failed, without the exception's own text, which could hold a secret (G10)."""
    import traceback

    traceback.print_tb(trace)
    sys.stderr.write(
        f"keysync: This is a defect of keysync ({kind.__name__}, said without its details).\n"
        "Please report it with the lines above.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
