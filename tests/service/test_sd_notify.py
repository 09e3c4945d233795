"""What systemd is told, over the real protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from agent.adapters.sd_notify import Notifier
from agent.adapters.state import StateDirectory
from tests.service.support import FAST, SLOW, Agent, ServiceManager
from tests.service.test_daemon import KEPT, waiting_for, world
from tests.support.bad_server import BadServer, answer, eventually
from tests.support.machine import Machine, key_line, listing


def test_ready_comes_after_the_first_attempt(tmp_path: Path) -> None:
    """Not before the keys that the account has could log in."""
    released = threading.Event()
    good = answer(listing(key_line("laptop")))
    with (
        BadServer(waiting_for(released, good)) as server,
        ServiceManager(tmp_path) as manager,
        Agent(Machine(tmp_path, server.url, SLOW), manager.environment) as agent,
    ):
        assert eventually(lambda: len(server.heads) == 1)
        assert manager.messages == []
        released.set()
        said = manager.wait_for("READY=1").splitlines()
        assert said[1].startswith("STATUS=in sync: 1 listed key, 1 key file; next poll in ")
        assert agent.said("sync.completed") != []


def test_ready_comes_also_when_the_first_attempt_failed(tmp_path: Path) -> None:
    """A machine without a network comes up; its status says what is wrong."""
    with ServiceManager(tmp_path) as manager:
        machine = Machine(tmp_path, options=SLOW)
        with Agent(machine, manager.environment) as agent:
            said = manager.wait_for("READY=1").splitlines()
            assert said[1].startswith("STATUS=failed: No connection to 127.0.0.1")
            assert "; next poll in " in said[1]
            assert agent.said("sync.failed")[0]["kind"] == "connection_failed"


def test_ready_is_said_once_and_then_the_status(tmp_path: Path) -> None:
    """sd_notify(3): READY=1 is for start-up and the end of a reload."""
    with (
        world(tmp_path, FAST) as here,
        ServiceManager(tmp_path) as manager,
        Agent(here.machine, manager.environment),
    ):
        manager.wait_for("STATUS=in sync", times=2)
        assert len(manager.told("READY=1")) == 1
        assert manager.told("WATCHDOG=1") == []  # none was asked for


def test_a_reload_is_announced_and_ended(tmp_path: Path) -> None:
    """sd_notify(3): RELOADING=1 with the time of the reload, then READY=1."""
    with (
        world(tmp_path, SLOW) as here,
        ServiceManager(tmp_path) as manager,
        Agent(here.machine, manager.environment) as agent,
    ):
        manager.wait_for("READY=1")
        before = time.monotonic_ns() // 1000
        agent.send(signal.SIGHUP)
        first, second = manager.wait_for("RELOADING=1").splitlines()
        assert first == "RELOADING=1"
        name, _, value = second.partition("=")
        assert name == "MONOTONIC_USEC"
        assert before <= int(value) <= time.monotonic_ns() // 1000
        assert "configuration reloaded" in manager.wait_for("READY=1", times=2)


def test_a_rejected_reload_is_ended_too(tmp_path: Path) -> None:
    """sd_notify(3): without READY=1 systemd would wait for the end of the reload for ever."""
    with (
        world(tmp_path, SLOW) as here,
        ServiceManager(tmp_path) as manager,
        Agent(here.machine, manager.environment) as agent,
    ):
        manager.wait_for("READY=1")
        here.machine.config.write_text("targets: []\n")
        agent.send(signal.SIGHUP)
        assert "configuration rejected" in manager.wait_for("READY=1", times=2)


def test_the_end_is_announced(tmp_path: Path) -> None:
    """sd_notify(3): STOPPING=1 is the last word."""
    with (
        BadServer(KEPT) as server,
        ServiceManager(tmp_path) as manager,
        Agent(Machine(tmp_path, server.url, SLOW), manager.environment) as agent,
    ):
        manager.wait_for("READY=1")
        agent.stop()
        assert manager.messages[-1].startswith("STOPPING=1")


def test_the_watchdog_is_fed_while_the_loop_turns(tmp_path: Path) -> None:
    """Often enough, also while nothing is to be done; not at all when it is stopped."""
    with (
        world(tmp_path, SLOW) as here,
        ServiceManager(tmp_path, watchdog=1.0) as manager,
        Agent(here.machine, manager.environment) as agent,
    ):
        manager.wait_for("READY=1")
        begun = time.monotonic()
        fed = len(manager.told("WATCHDOG=1"))
        manager.wait_for("WATCHDOG=1", times=fed + 4)
        assert (time.monotonic() - begun) / 4 < 1.0
        agent.send(signal.SIGSTOP)
        fed = len(manager.told("WATCHDOG=1"))
        assert not eventually(lambda: len(manager.told("WATCHDOG=1")) > fed + 1, 1.2)


def test_the_watchdog_is_not_fed_while_a_sync_is_stuck(tmp_path: Path) -> None:
    """A loop that turns around a stuck sync is no life; when it ends, it is fed again."""
    program = ("-m", "tests.service.odd_agent", "impatient")
    with world(tmp_path, SLOW) as here, ServiceManager(tmp_path, watchdog=1.0) as manager:
        here.machine.configure(timeout="500ms")
        with contextlib.ExitStack() as lock:
            lock.enter_context(StateDirectory(str(here.machine.state)).locked(1.0))
            with Agent(here.machine, manager.environment, program):
                manager.wait_for("WATCHDOG=1")
                fed = 0

                def starves() -> bool:
                    nonlocal fed
                    before, fed = fed, len(manager.told("WATCHDOG=1"))
                    return before == fed and not eventually(
                        lambda: len(manager.told("WATCHDOG=1")) > fed, 1.0
                    )

                assert eventually(starves)
                lock.close()
                manager.wait_for("READY=1")
                manager.wait_for("WATCHDOG=1", times=fed + 2)


@pytest.mark.parametrize("address", ["", "vsock:2:1", "notify"])
def test_an_address_of_another_kind_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """sd_notify(3): only a path and an abstract address are sockets of this kind. What lies by
    such a name in the current directory is somebody else's.
    """
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(address or "unused")
        other.setblocking(False)
        Notifier({"NOTIFY_SOCKET": address}).ready("x")
        with pytest.raises(BlockingIOError):
            other.recv(100)


def test_a_service_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """sd_notify(3): keysync goes on without it."""
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")


def test_a_socket_in_the_abstract_name_space() -> None:
    """sd_notify(3): an address with @ is one of unix(7)'s abstract addresses."""
    name = f"keysync-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).status("a\nb")
        assert manager.recv(100) == b"STATUS=a b"


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_whether_a_watchdog_waits(environment: dict[str, str], seconds: float | None) -> None:
    """sd_watchdog_enabled(3): the time, and only for the process that is meant."""
    assert Notifier(environment).watchdog_seconds == seconds
