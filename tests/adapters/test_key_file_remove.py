"""Taking a key file away, for the restore of a file that did not exist."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.files.key_file import KeyFile, Snapshot
from agent.errors import TargetFailed

ME = Owner(os.geteuid(), os.getegid())


def _remove(path: Path) -> list[bytes]:
    """What was handed over before the file was gone."""
    seen: list[bytes] = []

    def keep(found: Snapshot) -> None:
        seen.append(found.data)

    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.remove(keep)
    return seen


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"last words\n")
    path.chmod(0o600)
    return path


def test_the_file_is_gone_and_its_bytes_were_handed_over(key_file: Path) -> None:
    """Nothing is left in the folder, and nothing is lost."""
    assert _remove(key_file) == [b"last words\n"]
    assert os.listdir(key_file.parent) == []


def test_no_file_is_nothing_to_do(tmp_path: Path) -> None:
    """Neither without the file nor without its folder."""
    assert _remove(tmp_path / "authorized_keys") == []
    assert _remove(tmp_path / "missing" / "authorized_keys") == []


def test_a_link_is_not_removed(key_file: Path) -> None:
    """G8: what is not a plain file of the user's own is refused, and what it leads to stays."""
    link = key_file.with_name("link")
    link.symlink_to(key_file)
    with pytest.raises(TargetFailed) as raised:
        _remove(link)
    assert raised.value.kind == "not_a_file"
    assert link.is_symlink()
    assert key_file.read_bytes() == b"last words\n"


def test_what_cannot_be_kept_is_not_removed(key_file: Path) -> None:
    """G5: when the bytes of the last moment cannot be saved, the file has its name again."""
    seen: list[bytes] = []

    def keep(found: Snapshot) -> None:
        seen.append(found.data)
        if len(seen) > 1:
            raise TargetFailed("disk_full", "No room for a copy.", "Make room.")
        with key_file.open("ab") as file:
            file.write(b"late\n")

    with (
        KeyFile.opened(str(key_file), ME, for_writing=True) as file,
        pytest.raises(TargetFailed, match="No room"),
    ):
        file.remove(keep)
    assert seen == [b"last words\n", b"last words\nlate\n"]
    assert key_file.read_bytes() == b"last words\nlate\n"
    assert os.listdir(key_file.parent) == ["authorized_keys"]


def test_no_appended_line_is_lost(key_file: Path) -> None:
    """Every line that somebody appends meanwhile was handed over, or stands in a new file."""
    stop = threading.Event()
    written: list[bytes] = []

    def append() -> None:
        while not stop.is_set():
            line = b"line %d\n" % len(written)
            fd = os.open(key_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(fd, line)
            os.close(fd)
            written.append(line)
            stop.wait(0.0005)

    thread = threading.Thread(target=append)
    thread.start()
    try:
        while len(written) < 20:
            stop.wait(0.001)
        timer = threading.Timer(0.5, stop.set)
        timer.start()
        seen = _remove(key_file)
        timer.join()
    finally:
        stop.set()
        thread.join()
    left = key_file.read_bytes() if key_file.exists() else b""
    kept = {line for data in (*seen, left) for line in data.splitlines(keepends=True)}
    assert kept >= set(written)
