"""The journal of removed lines: a record for each, in keysync's own folder (G5).

What it holds of one key file is bounded, the oldest records go first (G12).
"""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Sequence

from agent.adapters.files.atomic import read_all, write_all, write_atomically
from agent.adapters.files.own_file import open_private

JOURNAL = "journal.jsonl"
MAX_JOURNAL_BYTES = 48 << 10  # for each key file
_MOST_JOURNAL = 64 << 20
_RECORD_END = b'"path": '  # from here on, what makes two records say the same


def _journal(directory: int) -> bytes:
    """All of the journal, which is made when missing."""
    fd = open_private(directory, JOURNAL, os.O_RDWR)
    try:
        return read_all(fd, _MOST_JOURNAL)
    finally:
        os.close(fd)


class JournalRecords:
    """The records of the journal, and how those of one key file are kept within their bound.

    A journal that is too large to be read, from a version without the bound, gets another name.
    """

    def __init__(self, directory: int, path: str, now: str) -> None:
        self._directory = directory
        self._path = _RECORD_END + json.dumps(path).encode()
        try:
            self._data = _journal(directory)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            aside = f"{JOURNAL}.large-{now.replace(':', '')}"
            os.rename(JOURNAL, aside, src_dir_fd=directory, dst_dir_fd=directory)
            self._data = b""

    def _own(self, record: bytes) -> bool:
        return self._path in record

    def missing(self, removed: Sequence[bytes], head: bytes) -> tuple[list[bytes], int]:
        """A record for each line that has none yet, and the number of those that find no room."""
        known = {
            record[record.find(_RECORD_END) :]
            for record in self._data.split(b"\n")
            if self._own(record)
        }
        found: list[bytes] = []
        size = at = 0
        lines = tuple(dict.fromkeys(removed))
        for at, line in enumerate(lines):
            end = self._path + b', "removed": "' + base64.b64encode(line) + b'"}'
            if end not in known:
                size += len(head) + len(end) + 1
                if size > MAX_JOURNAL_BYTES:
                    return found, len(lines) - at
                found.append(head + end + b"\n")
        return found, 0

    def add(self, new: Sequence[bytes]) -> None:
        """Appends the records, or writes the journal anew without the oldest of this key file."""
        text = b"".join(new)
        own = sum(len(r) + 1 for r in self._data.split(b"\n") if self._own(r))
        if own + len(text) > MAX_JOURNAL_BYTES:
            write_atomically(self._directory, JOURNAL, self._without_oldest(own, text) + text)
            return
        fd = open_private(self._directory, JOURNAL, os.O_WRONLY | os.O_APPEND)
        try:
            os.ftruncate(fd, len(self._data))  # what a full disk left of the first try
            torn = self._data and not self._data.endswith(b"\n")  # by a full disk or a crash
            write_all(fd, b"\n" + text if torn else text)
            os.fsync(fd)
            os.fsync(self._directory)
        finally:
            os.close(fd)

    def _without_oldest(self, own: int, text: bytes) -> bytes:
        kept = []
        for record in filter(None, self._data.split(b"\n")):
            if self._own(record) and own + len(text) > MAX_JOURNAL_BYTES:
                own -= len(record) + 1
            else:
                kept.append(record + b"\n")
        return b"".join(kept)
