"""Text for people: colour and a spinner on a terminal, plain aligned text elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
_SPINNER = "|/-\\"
_SPINNER_DELAY_SECONDS = 0.4
_SPINNER_STEP_SECONDS = 0.1


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in a colour when `stream` (default stdout) is a terminal and NO_COLOR is not set."""
    stream = sys.stdout if stream is None else stream
    if not text or not stream.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{_COLOURS[colour]}m{text}\033[0m"


def print_error(text: str) -> None:
    """Prints to stderr, after everything on stdout, which a pipe would buffer."""
    sys.stdout.flush()
    print(text, file=sys.stderr)


def print_table(
    rows: Sequence[Sequence[str]], colours: Sequence[str] = (), indent: str = ""
) -> None:
    """Prints left-aligned columns; `colours` holds a colour or "" for each row."""
    if not rows:
        return
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for at, row in enumerate(rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        colour = colours[at] if at < len(colours) else ""
        print(indent + (coloured(line.rstrip(), colour) if colour else line.rstrip()))


@contextlib.contextmanager
def spinner(text: str) -> Iterator[None]:
    """Shows `text` on a terminal while the block runs, if that takes more than a moment."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def spin() -> None:
        step = 0
        pause = _SPINNER_DELAY_SECONDS
        while not done.wait(pause):
            pause = _SPINNER_STEP_SECONDS
            sys.stderr.write(f"\r{_SPINNER[step % len(_SPINNER)]} {text}")
            sys.stderr.flush()
            step += 1
        if step:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
