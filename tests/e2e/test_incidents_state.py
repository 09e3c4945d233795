"""Revocation outranks bookkeeping (G11): the state folder is on a disk that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from tests.e2e.support import TAG, World, running
from tests.support.own_mounts import in_own_mounts, read_only, small_disk

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
