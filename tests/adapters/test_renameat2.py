"""Exchanging two names, and taking one only when it is free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters.files import renameat2


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_two_names_are_exchanged(tmp_path: Path, directory: int) -> None:
    """Both files live on, each under the other's name."""
    inodes = [(tmp_path / name).stat().st_ino for name in ("one", "two")]
    assert renameat2.exchange(directory, "one", "two")
    assert [(tmp_path / name).stat().st_ino for name in ("two", "one")] == inodes


def test_a_name_that_is_missing_cannot_be_exchanged(directory: int) -> None:
    """The error is the system's own; nothing else is tried."""
    with pytest.raises(FileNotFoundError):
        renameat2.exchange(directory, "one", "three")


def test_a_taken_name_is_not_replaced(tmp_path: Path, directory: int) -> None:
    """Whoever made the file first keeps it; a name that is free is taken."""
    with pytest.raises(FileExistsError):
        renameat2.no_replace(directory, "one", "two")
    assert (tmp_path / "two").read_bytes() == b"2"
    renameat2.no_replace(directory, "one", "three")
    assert sorted(os.listdir(tmp_path)) == ["three", "two"]


def test_a_dangling_link_is_a_taken_name(tmp_path: Path, directory: int) -> None:
    """G8: nothing is made where a link leads."""
    (tmp_path / "three").symlink_to(tmp_path / "four")
    with pytest.raises(FileExistsError):
        renameat2.no_replace(directory, "one", "three")
    assert not (tmp_path / "four").exists()
