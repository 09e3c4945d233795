"""The directory that a console keeps its data in: its user's own, and one console's at a time."""

import fcntl
import json
import os
import stat
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class DirectoryError(RuntimeError):
    """A directory that a console must not use; the message says why, and what to do."""


class Claim:
    """A directory held by this console; it is free again after `release`, or with the process."""

    def __init__(self, path: Path) -> None:
        """Take the directory, raising `DirectoryError` when another could reach or has it."""
        try:
            self._descriptor = os.open(path, _FLAGS)
        except NotADirectoryError:
            raise DirectoryError(f"{path} is a link or a file: name a directory itself") from None
        try:
            _check(path, os.fstat(self._descriptor))
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            message = f"another console runs on {path}: end it, or name another directory"
            raise DirectoryError(message) from None
        except DirectoryError:
            self.release()
            raise

    def release(self) -> None:
        """Let another console have it; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_texts(path: Path) -> dict[str, str] | None:
    """The texts that `write_texts` left there; None without a file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise _torn(path) from None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise _torn(path)
    return found


def write_texts(path: Path, texts: dict[str, str]) -> None:
    """Replace the file as a whole by one that is closed to others, whatever was prepared there."""
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        json.dump(texts, file)
    new.replace(path)


def _check(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise DirectoryError(f"{path} belongs to somebody else: name a directory of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DirectoryError(
            f"others may write to {path}: name another directory, or if you trust what is in it, "
            f"close it with `chmod go-w {path}`"
        )


def _torn(path: Path) -> DirectoryError:
    return DirectoryError(f"{path} is damaged: delete it, and the next start makes a new one")
