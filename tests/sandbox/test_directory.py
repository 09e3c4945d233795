"""The directory of a console: its user's alone, and one console's at a time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox.directory import DirectoryError
from sandbox.world import World
from tests.sandbox.support import LINE


def refusal(directory: Path) -> str:
    """Why a console does not take a directory."""
    with pytest.raises(DirectoryError) as refused:
        World.open(directory)
    return str(refused.value)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "kept"
    made.mkdir(mode=0o700)
    return made


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_directory_that_others_write_to(directory: Path, mode: int) -> None:
    """What others could have put there is not trusted: it is refused, with what to do."""
    directory.chmod(mode)
    assert f"chmod go-w {directory}" in refusal(directory)
    assert list(directory.iterdir()) == []
    directory.chmod(mode & ~0o022)
    World.open(directory).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_directory_of_somebody_else(directory: Path) -> None:
    """Root too keeps its data only where nobody else is the owner."""
    os.chown(directory, 65534, 65534)
    assert "belongs to somebody else" in refusal(directory)
    assert list(directory.iterdir()) == []


def test_a_link_to_a_directory(directory: Path, tmp_path: Path) -> None:
    """A link that somebody planted leads to no directory of ours."""
    (tmp_path / "link").symlink_to(directory)
    assert "is a link" in refusal(tmp_path / "link")
    assert list(directory.iterdir()) == []


def test_what_was_prepared_is_not_written_to(directory: Path, tmp_path: Path) -> None:
    """Neither a link nor a file that waits where the credentials are written gets to know them."""
    new = directory / "credentials.json.new"
    target = tmp_path / "target"
    target.write_text("as it was")
    for prepare in (new.symlink_to, new.hardlink_to):
        prepare(target)
        World.open(directory).close()
        assert target.read_text() == "as it was"
        assert not new.exists()
    assert stat.S_IMODE((directory / "credentials.json").lstat().st_mode) == 0o600


@pytest.mark.parametrize("old", [False, True])
def test_every_file_is_closed_to_others(directory: Path, old: bool) -> None:
    """The database and what SQLite writes beside it are its owner's, even if not before."""
    before = os.umask(0)
    try:
        if old:
            for end in ("", "-wal", "-shm"):
                (directory / f"console.sqlite3{end}").touch(mode=0o666)
        world = World.open(directory)
    finally:
        os.umask(before)
    world.account.add_key(LINE)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    world.close()
    names = ("credentials.json", *(f"console.sqlite3{end}" for end in ("", "-wal", "-shm")))
    assert modes == dict.fromkeys(names, 0o600)


def test_lost_credentials(directory: Path) -> None:
    """Without the file there is a new password that works, and the old one is dead."""
    world = World.open(directory)
    old, key = world.credentials, world.account.add_key(LINE)
    world.close()
    (directory / "credentials.json").unlink()
    again = World.open(directory)
    assert again.account.check_password(again.credentials.password)
    assert not again.account.check_password(old.password)
    assert again.api_keys.find(again.credentials.api_key) is not None
    assert (again.credentials.login, again.account.stored()) == (old.login, [key])
    again.close()


@pytest.mark.parametrize("left", [0, 1, 20, -1])
def test_torn_credentials(directory: Path, left: int) -> None:
    """Half a file is told by its name, with what to do, and that helps."""
    World.open(directory).close()
    file = directory / "credentials.json"
    file.write_text(file.read_text()[:left])
    assert f"{file} is damaged: delete it" in refusal(directory)
    file.unlink()
    World.open(directory).close()


@pytest.mark.parametrize("text", ["[]", '{"login": 5}', '"x"', "\xff", "[" * 100_000])
def test_other_things_than_credentials(directory: Path, text: str) -> None:
    """What is no object of texts is told in the same way."""
    (directory / "credentials.json").write_bytes(text.encode("latin-1"))
    assert "is damaged" in refusal(directory)


@pytest.mark.parametrize("text", ["{}", '{"login": "x", "password": "y", "token": "z"}'])
def test_the_credentials_of_another_program(directory: Path, text: str) -> None:
    """A file of the same name that is not ours is refused and stays as it is."""
    (directory / "credentials.json").write_text(text)
    assert "of another program" in refusal(directory)
    assert (directory / "credentials.json").read_text() == text


def test_a_second_console(directory: Path) -> None:
    """It is refused and takes nothing from the first; after the first's end it may come."""
    world = World.open(directory)
    number = world.platform.add_instance("C.1", keys_file=directory / "authorized_keys")
    world.platform.attach(number, LINE)
    assert "another console runs" in refusal(directory)
    assert [key.text for key in world.platform.attached(number)] == [LINE]
    world.close()
    World.open(directory).close()
