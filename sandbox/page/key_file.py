"""Reading a key file that belongs to somebody else, who must neither stop nor trick the page."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

_MOST_BYTES = 1024 * 1024
_MOST_LINES = 1000
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class KeyFileText:
    """The first lines of a file; `more` says what is left out, or why all of it is."""

    lines: tuple[str, ...] = ()
    more: str = ""


def read_key_file(path: Path, user: str) -> KeyFileText:
    """Read a regular file of the instance's user, of root or of our own; nothing else is shown."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return KeyFileText()
    except OSError as error:
        return KeyFileText(more=f"The file is not shown: {error.strerror}.")
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return KeyFileText(more="The file is not shown: it is no regular file.")
        if status.st_uid not in _trusted(user):
            return KeyFileText(more="The file is not shown: it belongs to another user.")
        return _text(file.read(_MOST_BYTES), status.st_size)


def _text(data: bytes, size: int) -> KeyFileText:
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    left = len(lines) - _MOST_LINES
    shown = tuple(line.decode(errors="backslashreplace") for line in lines[:_MOST_LINES])
    if size > _MOST_BYTES:
        return KeyFileText(shown, f"and {max(left, 0)} more in the first MiB, and what follows it")
    return KeyFileText(shown, f"and {left} more" if left > 0 else "")


def _trusted(user: str) -> set[int]:
    try:
        return {0, os.geteuid(), pwd.getpwnam(user).pw_uid}
    except KeyError:
        return {0, os.geteuid()}
