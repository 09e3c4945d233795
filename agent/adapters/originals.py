"""The key files as they were before keysync's first change (G5), each in two private files.

The bytes are written first and the note about them last: without a note the bytes do not count.
Functions take a descriptor of the state folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from typing import NamedTuple

from agent.adapters.files.atomic import write_atomically
from agent.adapters.files.own_file import read_private
from agent.adapters.state_files import ORIGINAL
from agent.adapters.typed_json import from_json, json_bytes, json_object

_NOTE = re.compile(ORIGINAL + "[0-9a-f]+[.]json")


class Original(NamedTuple):
    """A key file as it was before keysync's first change; `data` is None when there was none."""

    user: str
    path: str
    data: bytes | None
    saved_at: str  # RFC 3339, UTC


class _Note(NamedTuple):
    """What stands beside the bytes."""

    user: str
    path: str
    existed: bool
    saved_at: str


def note_name(path: str) -> str:
    """The name of the note about the key file at `path`."""
    return f"{ORIGINAL}{hashlib.sha256(path.encode()).hexdigest()[:24]}.json"


def is_saved(directory: int, path: str) -> bool:
    """Whether the original of the key file at `path` was saved. Raises OSError."""
    return read_private(directory, note_name(path)) is not None


def save(directory: int, original: Original) -> None:
    """Saves the bytes and then the note. Raises OSError."""
    user, path, data, saved_at = original
    note = note_name(path)
    write_atomically(directory, _bytes_name(note), data or b"")
    write_atomically(directory, note, json_bytes(_Note(user, path, data is not None, saved_at)))


def saved(directory: int) -> list[Original]:
    """Every original, by path. Raises OSError, also when a file is not what `save` wrote."""
    notes = filter(_NOTE.fullmatch, os.listdir(directory))
    return sorted((_read(directory, note) for note in notes), key=lambda one: one.path)


def _read(directory: int, name: str) -> Original:
    try:
        note = from_json(_Note, json_object(read_private(directory, name) or b""))
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{name} is damaged: {error}") from error
    data = read_private(directory, _bytes_name(name)) if note.existed else None
    if note.existed and data is None:
        raise OSError(errno.EINVAL, f"{_bytes_name(name)} is missing")
    return Original(note.user, note.path, data, note.saved_at)


def _bytes_name(note: str) -> str:
    return note.removesuffix("json") + "bytes"
