"""The command `keysync`, also as `python -m agent`."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Runs one command and gives its exit code.

    A command lives too briefly for cyclic garbage to matter, and looking for it, at the end too,
    takes a fifth of a sync's time. The daemon switches the collector on again.
    """
    gc.disable()
    from agent.cli.main import main as command

    try:
        return command()
    finally:
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
