"""Revocation outranks bookkeeping (G11): the state folder is on a disk that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance
from sandbox.users import temporary_user
from tests.e2e.support import TAG, World, make_world, running
from tests.support.own_mounts import in_own_mounts, mount, read_only, small_disk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root mounts a tmpfs")


def fill(folder: Path) -> None:
    """No byte more finds room on this disk."""
    with (
        (folder / "something-else").open("ab", 0) as file,
        pytest.raises(OSError, match=os.strerror(errno.ENOSPC)),
    ):
        write_on(file)


def write_on(file: FileIO) -> None:
    while True:
        file.write(bytes(4096))


def fill_for_good(folder: Path) -> None:
    """Nor in the place of the reserve, which has been used up."""
    (folder / "reserve").unlink(missing_ok=True)
    fill(folder)


@contextlib.contextmanager
def full_disk(state: Path) -> Iterator[None]:
    fill_for_good(state)
    yield
    (state / "something-else").unlink()


def at_work(world: World, work: Callable[[], None]) -> None:
    """Runs `work` while the state is on a small disk of its own, which no one else sees."""

    def with_disk() -> None:
        with small_disk(world.state, "size=2m"):
            work()

    world.state.mkdir(mode=0o700)
    in_own_mounts(with_disk)


@pytest.mark.parametrize("unwritable", [full_disk, read_only], ids=["full", "read-only"])
def test_a_deleted_key_is_out_and_a_new_one_waits(
    world: World, unwritable: Callable[[Path], contextlib.AbstractContextManager[None]]
) -> None:
    """G11, incident 2: the deleted key is refused, exit code 74; what was added meanwhile is not
    recorded and so does not enter, until there is room again.
    """
    stays, goes, new = (world.instance.keygen(f"{name}-{unwritable.__name__}") for name in "sgn")

    def work() -> None:
        world.console.add_key(stays.public_line)
        key_id = world.console.add_key(goes.public_line)
        world.sync()
        assert world.lets_in(goes)
        with unwritable(world.state):
            world.console.delete_key(key_id)
            world.console.add_key(new.public_line)
            report, events = world.sync_and_log(exits=74)
            assert not world.lets_in(goes)
            assert world.lets_in(stays)
            assert not world.lets_in(new)
            assert report["result"] == "failed"
            [failed] = [event for event in events if event["event"] == "state.write_failed"]
            assert failed["level"] == "error"
            world.sync(exits=74)  # and so it stays
            assert not world.lets_in(new)
            assert "Could not write" in world.verdict(exits=74)
        world.sync()
        assert [world.lets_in(key) for key in (stays, goes, new)] == [True, False, True]
        world.status()

    at_work(world, work)


def test_a_key_of_the_full_days_is_revoked_like_any_other(world: World) -> None:
    """G11, R5, incident 2: added on a full disk, deleted, and put back later by another tool; the
    reserve is there to record it.
    """
    stays, brief = world.instance.keygen("full-stays"), world.instance.keygen("full-brief")

    def work() -> None:
        world.console.add_key(stays.public_line)
        world.sync()
        fill(world.state)
        key_id = world.console.add_key(brief.public_line)
        world.sync()  # out of the reserve
        assert world.lets_in(brief)
        fill_for_good(world.state)
        world.console.delete_key(key_id)
        world.sync(exits=74)
        assert not world.lets_in(brief)
        with world.instance.authorized_keys.open("ab") as file:
            file.write(brief.public_line.encode() + b"\n")
        assert world.lets_in(brief)
        world.sync(exits=74)
        assert not world.lets_in(brief)
        assert world.lines == [stays.public_line.encode() + b" " + TAG]

    at_work(world, work)


def test_an_agent_remembers_what_it_could_not_save(world: World, tmp_path: Path) -> None:
    """G11, R5, incident 2: listed and deleted while nothing could be written, a key that another
    tool puts in is revoked for the agent that runs, and for every sync once there was room again.
    """
    world.configure("poll: {interval: 1s, jitter: 0s}")
    stays, brief = world.instance.keygen("agent-stays"), world.instance.keygen("agent-brief")
    log = tmp_path / "log"

    def put_in() -> None:
        with world.instance.authorized_keys.open("ab") as file:
            file.write(brief.public_line.encode() + b"\n")

    def is_out() -> bool:
        return not world.lets_in(brief)

    def work() -> None:
        world.console.add_key(stays.public_line)
        with running(world, log) as agent:
            agent.await_event("key.added")
            with full_disk(world.state):
                key_id = world.console.add_key(brief.public_line)
                agent.await_polls(2)
                assert is_out()
                world.console.delete_key(key_id)
                agent.await_polls(2)
                put_in()
                agent.await_that(lambda: brief.public_line.encode() not in world.lines)
                assert is_out()
            agent.await_polls(2)
        put_in()
        assert world.lets_in(brief)
        world.sync()
        assert is_out()
        assert world.lets_in(stays)

    at_work(world, work)


def test_an_edited_only_key_is_replaced_although_the_journal_fails(world: World) -> None:
    """G11, G3: the ledger can be written and the journal alone cannot; the new key comes in, the
    old one is out, and nobody is locked out. The cycle ends with 74.
    """
    old, new = world.instance.keygen("journal-old"), world.instance.keygen("journal-new")
    key_id = world.console.add_key(old.public_line)
    world.sync()
    assert world.lets_in(old)
    (world.state / "journal.jsonl").mkdir()
    world.console.edit_key(key_id, new.public_line)
    report, events = world.sync_and_log(exits=74)
    assert world.lets_in(new)
    assert not world.lets_in(old)
    assert report["targets"][0]["result"] == "changed"
    assert [event["event"] for event in events].count("state.write_failed") == 1
    world.sync()


# ---- one disk for the state and the key file ----


@contextlib.contextmanager
def one_disk(user: str, console: Console) -> Iterator[World]:
    """A small disk at /home that only this test sees: the user's home and keysync's state."""
    mount("-t", "tmpfs", "-o", "mode=755,size=2m", "keysync-test", "/home")
    home, own = Path(pwd.getpwnam(user).pw_dir), Path("/home/of-keysync")
    home.mkdir(mode=0o700)
    shutil.chown(home, user, user)
    own.mkdir(mode=0o700)
    with Instance(user, ".ssh/authorized_keys") as instance:
        yield make_world(instance, console, own)


def test_a_deleted_key_goes_although_its_own_disk_is_full() -> None:
    """G11: not one byte is free for the new key file, and the journal needs none; the reserve makes
    room, and does not take it back as long as the disk is full.
    """

    def work() -> None:
        with one_disk(user, console) as world:
            disk, reserve = Path("/home"), world.state / "reserve"
            stays, first, second = (world.instance.keygen(f"one-disk-{at}") for at in range(3))
            ids = [world.console.add_key(key.public_line) for key in (stays, first, second)]
            world.sync()
            world.console.delete_key(ids[1])
            world.sync()  # from now on there is a journal with room in its last block
            assert world.lets_in(second)
            assert reserve.exists()
            fill(disk)
            world.console.delete_key(ids[2])
            world.sync()
            assert [world.lets_in(key) for key in (stays, first, second)] == [True, False, False]
            with world.instance.authorized_keys.open("ab") as file:
                file.write(second.public_line.encode() + b"\n")
            assert world.lets_in(second)
            world.sync()  # and once more, in the room that is left
            assert [world.lets_in(key) for key in (stays, second)] == [True, False]
            assert not reserve.exists()
            world.status()
            (disk / "something-else").unlink()
            world.sync()
            assert reserve.exists()

    with temporary_user() as user, Console() as console:
        in_own_mounts(work)
