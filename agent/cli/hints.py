"""What people are told to run next, with the configuration that they chose."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.errors import ConfigInvalid

if TYPE_CHECKING:
    from agent.events import Event
    from agent.log import Emit

_COMMAND = re.compile(r"\bkeysync (?=(?:sync|status|config|forget|original)\b)")


def with_config(text: str, path: str | None) -> str:
    """`text`, in which keysync's commands name the configuration that --config gave.

    KEYSYNC_CONFIG needs no word: it holds for the next command too.
    """
    if not path:
        return text
    return _COMMAND.sub(lambda _: f"keysync --config {shlex.quote(path)} ", text)


@contextlib.contextmanager
def configuration_needed(command: str) -> Iterator[None]:
    """Says that `command` did nothing, and what comes first, when the configuration is wrong."""
    try:
        yield
    except ConfigInvalid as error:
        error.message += f"\n{command} needs a right configuration first, so nothing was done."
        raise


def emit_with_config(emit: Emit, path: str | None) -> Emit:
    """The same for the hints of the log."""
    if not path:
        return emit

    def emit_named(event: Event) -> None:
        hint = getattr(event, "hint", None)  # some events give one
        if hint:
            event = event.replace(hint=with_config(hint, path))
        emit(event)

    return emit_named
