"""What the demo says: chapters, commands with their output, and claims that must hold."""

import os
import sys
import textwrap
from dataclasses import dataclass, field
from typing import TextIO

_WIDTH = 96
_BOLD, _DIM, _GREEN, _RED = "1", "2", "32", "31"


class WrongOutcome(AssertionError):
    """A claim of the story does not hold; the demo ends here."""


@dataclass(slots=True)
class Story:
    """Tells the story as plain lines, in colour only on a terminal without NO_COLOR."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    chapters: int = 0
    claims: int = 0

    def chapter(self, title: str) -> None:
        """Begin the next numbered chapter."""
        self.chapters += 1
        self.heading(f"{self.chapters}. {title}")

    def heading(self, text: str) -> None:
        """Set a heading off from what came before."""
        self._line("")
        self._line(self._painted(text, _BOLD))

    def say(self, text: str) -> None:
        """Say what happens, as wrapped text."""
        self._line(textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   "))

    def command(self, line: str, output: str) -> None:
        """Show a command and what it printed, unwrapped."""
        self._line(f"   {self._painted('$', _DIM)} {line}")
        for printed in output.rstrip("\n").split("\n"):
            self._line(f"   {self._painted('|', _DIM)} {printed}".rstrip())

    def claim(self, text: str, holds: bool, otherwise: str = "") -> None:
        """Show a claim that holds; raise `WrongOutcome` for one that does not."""
        if not holds:
            raise WrongOutcome(f"{text}{f': {otherwise}' if otherwise else ''}")
        self.claims += 1
        self._line(f"   {self._painted('ok', _GREEN)} {text}")

    def wrong(self, text: str) -> None:
        """Show what went wrong, once, as the last line."""
        self._line(f"   {self._painted('WRONG', _RED)} {text}")

    def _painted(self, text: str, code: str) -> str:
        coloured = self.out.isatty() and not os.environ.get("NO_COLOR")
        return f"\033[{code}m{text}\033[0m" if coloured else text

    def _line(self, text: str) -> None:
        print(text, file=self.out, flush=True)
