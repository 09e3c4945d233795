"""Writes events to stderr: JSON lines for a service, aligned key-value lines on a terminal."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias

from agent import __version__
from agent.providers import provider

if TYPE_CHECKING:
    from structlog.typing import Processor

    from agent.events import Event

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "json", "console")
# sd-daemon(3): the priority prefix that makes `journalctl -p` work.
_PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}

_IN_THE_OUTPUT = (
    *("sync.", "key.", "user."),
    *("target.failed", "target.defaulted", "state.write_failed"),
)

_MAX_ID_CHARS = 64

Emit: TypeAlias = "Callable[[Event], None]"


def make_emit(level: str | None, style: str, stream: TextIO) -> Emit:
    """A function that writes events of at least `level` to `stream`.

    Without a level, a terminal gets warnings and errors, except those that the command's output
    also tells; everything else gets info as well. structlog is imported for the first event that
    is written.
    """
    terminal = stream.isatty()
    left_out = _IN_THE_OUTPUT if terminal and level is None else ()
    lowest = LEVELS.index(level or ("warning" if terminal else "info"))
    as_json = style == "json" or (style == "auto" and not terminal)
    colours = terminal and "NO_COLOR" not in os.environ

    def emit(event: Event) -> None:
        if LEVELS.index(event.level) >= lowest and not event.name.startswith(left_out):
            _write(event, stream, as_json=as_json, colours=colours)

    return emit


def _write(event: Event, stream: TextIO, *, as_json: bool, colours: bool) -> None:
    import structlog

    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=20)
    )
    fields: dict[str, object] = {
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "level": event.level,
        "event": event.name,
        **(_origin() if as_json else {}),  # a terminal is on this machine
        **event.values(),
    }
    line = str(renderer(None, event.level, fields))
    prefix = _PRIORITIES[event.level] if _is_journal(stream) else ""
    with contextlib.suppress(OSError):  # a full disk or a closed pipe must not stop a sync
        structlog.PrintLogger(stream).msg(f"{prefix}{line}")


@functools.cache
def _origin() -> dict[str, object]:
    """Where a line comes from, for logs collected from many machines."""
    return {
        "service": "keysync",
        "version": __version__,
        "host": os.uname().nodename,
        "instance_id": _instance_id(),
    }


def _instance_id() -> str | None:
    """The platform's id of the instance, else machine-id(5), else None.

    Process 1 has the platform's variables; login shells and services lack them.
    """
    own = os.environ.get(provider.INSTANCE_ID_VARIABLE, "")
    return (own or _first_process_value() or _content("/etc/machine-id"))[:_MAX_ID_CHARS] or None


def _first_process_value() -> str:
    prefix = f"{provider.INSTANCE_ID_VARIABLE}="
    for variable in _content("/proc/1/environ").split("\0"):
        if variable.startswith(prefix):
            return variable.removeprefix(prefix)
    return ""


def _content(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream leads to the journal.

    JOURNAL_STREAM holds the device and inode of the journal's stream (systemd.exec(5)); a child
    process inherits it even when its stderr leads elsewhere.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
