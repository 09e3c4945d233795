"""Hints that name the next command, with the configuration that the user chose."""

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
    """`text` with `--config PATH` added to keysync's commands in it, if --config was given.

    KEYSYNC_CONFIG need not be repeated: it applies to the next command too.
    """
    if not path:
        return text
    return _COMMAND.sub(lambda _: f"keysync --config {shlex.quote(path)} ", text)


@contextlib.contextmanager
def configuration_needed(command: str) -> Iterator[None]:
    """Adds to a ConfigInvalid that `command` did nothing, and why."""
    try:
        yield
    except ConfigInvalid as error:
        error.message += f"\n{command} needs a valid configuration, so nothing was done."
        raise


def emit_with_config(emit: Emit, path: str | None) -> Emit:
    """An `emit` that does the same to the hints of logged events."""
    if not path:
        return emit

    def emit_named(event: Event) -> None:
        hint = getattr(event, "hint", None)  # some events give one
        if hint:
            event = event.replace(hint=with_config(hint, path))
        emit(event)

    return emit_named
