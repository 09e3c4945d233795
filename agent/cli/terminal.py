"""Text for people: colour and progress on a terminal, plain aligned text elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


def coloured(text: str, colour: str) -> str:
    """`text` in a colour ("" for none) when stdout is a terminal and NO_COLOR is not set."""
    if not (text and colour and sys.stdout.isatty()) or "NO_COLOR" in os.environ:
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
    for row, colour in itertools.zip_longest(rows, colours, fillvalue=""):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(indent + coloured(line.rstrip(), colour))


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Shows `text` on a terminal while the block runs; a log line in between overwrites it."""
    shown = sys.stderr.isatty()
    if shown:
        print(text, end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(end="\r\033[K", file=sys.stderr, flush=True)
