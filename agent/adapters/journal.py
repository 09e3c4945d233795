"""The journal of removed lines: a JSON record for each, in keysync's own folder (G5).

What it holds of one key file is bounded; the oldest records go first (G12).
"""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Sequence

from agent.adapters.files.atomic import read_all, write_all, write_atomically
from agent.adapters.files.own_file import open_private
from agent.adapters.state_files import JOURNAL, LARGE_JOURNAL

MAX_JOURNAL_BYTES = 48 << 10  # for each key file
_MAX_BYTES = 64 << 20  # of all key files together
_IDENTITY = b'"path": '  # from here on, two records of the same removal are equal


class JournalRecords:
    """The records of the key file at `path`, in the journal of the open folder `directory`.

    A journal that is too large to be read, on a machine with very many key files, gets another
    name, so that removals can still be recorded. Raises OSError, as its methods do.
    """

    def __init__(self, directory: int, path: str, sync_id: str, now: str) -> None:
        self._directory = directory
        self._path = path
        self._head = json.dumps({"at": now, "sync_id": sync_id}).encode()[:-1] + b", "
        self._about = _IDENTITY + json.dumps(path).encode()
        try:
            self._data = _read(directory)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            aside = f"{LARGE_JOURNAL}{now.replace(':', '')}"
            os.rename(JOURNAL, aside, src_dir_fd=directory, dst_dir_fd=directory)
            self._data = b""

    def missing(self, removed: Sequence[bytes]) -> tuple[list[bytes], int]:
        """A record for each removed line that has none yet, and the number of lines left out.

        Lines are left out when their records alone would go beyond MAX_JOURNAL_BYTES; one more
        record then says how many.
        """
        known = {record[record.find(_IDENTITY) :] for record in self._all() if self._is_own(record)}
        found: list[bytes] = []
        size = 0
        lines = tuple(dict.fromkeys(removed))
        for at, line in enumerate(lines):
            identity = self._about + b', "removed": "' + base64.b64encode(line) + b'"}'
            if identity not in known:
                record = self._head + identity + b"\n"
                size += len(record)
                if size > MAX_JOURNAL_BYTES:
                    omitted = len(lines) - at
                    return [*found, self._omission(omitted)], omitted
                found.append(record)
        return found, 0

    def _omission(self, omitted: int) -> bytes:
        about = {"path": self._path, "omitted": omitted}
        return self._head + json.dumps(about).encode()[1:] + b"\n"

    def add(self, new: Sequence[bytes]) -> None:
        """Appends the records, or rewrites the journal without the oldest of this key file."""
        text = b"".join(new)
        excess = sum(len(r) + 1 for r in self._all() if self._is_own(r)) + len(text)
        excess -= MAX_JOURNAL_BYTES
        if excess > 0:
            write_atomically(self._directory, JOURNAL, self._without_oldest(excess) + text)
            return
        fd = open_private(self._directory, JOURNAL, os.O_WRONLY | os.O_APPEND)
        try:
            os.ftruncate(fd, len(self._data))  # a first try may have ended on a full disk
            torn = self._data and not self._data.endswith(b"\n")  # by a full disk or a crash
            write_all(fd, b"\n" + text if torn else text)
            os.fsync(fd)
            os.fsync(self._directory)
        finally:
            os.close(fd)

    def _without_oldest(self, excess: int) -> bytes:
        kept = []
        for record in self._all():
            if self._is_own(record) and excess > 0:
                excess -= len(record) + 1
            else:
                kept.append(record + b"\n")
        return b"".join(kept)

    def _all(self) -> list[bytes]:
        return [record for record in self._data.split(b"\n") if record]

    def _is_own(self, record: bytes) -> bool:
        return self._about in record


def _read(directory: int) -> bytes:
    """All of the journal, which is made if it is missing."""
    fd = open_private(directory, JOURNAL, os.O_RDWR)
    try:
        return read_all(fd, _MAX_BYTES)
    finally:
        os.close(fd)
