"""How the time to read the options in front of a key grows with their length.

The file belongs to its user, who may write a line of any length: were the time quadratic, one line
would keep all other users waiting (R11, G12).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.options import end_of_options, parse_options

PIECES = (b"pty,", b'environment="A=1",', b",", b'\\"', b'""')
_BYTES = 100_000
_TIMES = 4
_RUNS = 5


@dataclass(frozen=True, slots=True)
class OptionsGrowth:
    """Time per byte of a long field over that of one a quarter as long: 1 is linear, 4 quadratic.

    `what` is the function and the piece of which the worst field was made.
    """

    what: str
    figure: float


def measure_options() -> OptionsGrowth:
    """The worst over both functions and all pieces."""
    found = [
        OptionsGrowth(f"{read.__name__} of {piece.decode()}", growth_per_byte(read, piece))
        for read in (parse_options, end_of_options)
        for piece in PIECES
    ]
    return max(found, key=lambda one: one.figure)


def growth_per_byte(read: Callable[[bytes], object], piece: bytes, size: int = _BYTES) -> float:
    """Processor time per byte at `_TIMES` times the size over that at the size itself."""
    short = piece * (size // len(piece))
    return _seconds(read, short * _TIMES) / _seconds(read, short) / _TIMES


def _seconds(read: Callable[[bytes], object], text: bytes) -> float:
    """The fastest of some runs: whatever else the machine does only adds to it."""

    def once() -> float:
        start = time.process_time()
        read(text)
        return time.process_time() - start

    return max(1e-6, min(once() for _ in range(_RUNS)))
