"""`keysync run` as a real process: its schedule, its connection, its API key and its log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.clock import present
from agent.adapters.heartbeat import Condition, Heartbeat, read_heartbeat
from agent.adapters.state import StateDirectory
from agent.core.times import seconds_between
from sandbox.console import Console
from tests.service.support import FAST, SLOW, Agent, ServiceManager
from tests.support.bad_server import (
    BadServer,
    Connection,
    Script,
    answer,
    eventually,
    hang,
    script,
)
from tests.support.certificates import Authority
from tests.support.machine import (
    API_KEY,
    REPOSITORY,
    Machine,
    clean_environment,
    key_line,
    listing,
)

KEPT = script(answer(listing(key_line("laptop"))), keep=True)
TRUNCATED = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n["
REFUSED = answer(b"", "401 Unauthorized")
TAGGED = key_line("laptop") + " keysync:managed"


@dataclass(frozen=True)
class World:
    """A machine whose account is on a local console with one key, `laptop`."""

    console: Console
    machine: Machine
    key_id: int

    def give_api_key(self, value: str, mode: int = 0o600) -> None:
        """Puts another file in the place of the API key, as one does with `install` or `mv`."""
        new = self.machine.folder / "api_key.new"
        new.write_text(value)
        new.chmod(mode)
        new.rename(self.machine.api_key_file)


@contextlib.contextmanager
def world(folder: Path, options: str) -> Iterator[World]:
    with Console() as console:
        machine = Machine(folder, console.url, options)
        machine.set_api_key(console.api_key)
        yield World(console, machine, console.add_key(key_line("laptop")))


def waiting_for(released: threading.Event, *after: bytes) -> Script:
    """Answers only when it is released."""

    def step(connection: Connection) -> None:
        while not released.is_set():
            connection.wait(0.01)

    return script(step, *after, keep=True)


# The schedule


def test_it_follows_the_console(tmp_path: Path) -> None:
    """A key added or deleted on the console reaches the machine with nobody doing anything."""
    with world(tmp_path, FAST) as here, Agent(here.machine) as agent:
        assert eventually(lambda: here.machine.lines == [TAGGED])
        here.console.add_key(key_line("desktop"))
        assert eventually(lambda: len(here.machine.lines) == 2)
        here.console.delete_key(here.key_id)
        assert eventually(lambda: here.machine.lines == [key_line("desktop") + " keysync:managed"])
        started = agent.said("agent.started")[0]
        assert (started["pid"], started["interval_s"]) == (agent.process.pid, 1.0)
        assert agent.stop()[0] == 0


def test_drift_on_disk_is_repaired(tmp_path: Path) -> None:
    """R9: what somebody did to the file is mended by the next poll, though the list is the same."""
    with world(tmp_path, FAST) as here, Agent(here.machine):
        assert eventually(lambda: here.machine.lines == [TAGGED])
        here.machine.key_file.write_text("# emptied\n")
        assert eventually(lambda: here.machine.lines == ["# emptied", TAGGED])


def test_polls_use_one_connection(tmp_path: Path) -> None:
    """Polling: the connection is kept alive between polls, and given up at the end."""
    authority = Authority.made_in(tmp_path)
    trust = {"SSL_CERT_FILE": str(authority.path)}
    with BadServer(KEPT, tls=authority.server()) as server:
        with Agent(Machine(tmp_path, server.url, FAST), trust) as agent:
            agent.wait_for("sync.completed", times=3)
            assert agent.stop()[0] == 0
        assert server.connections == 1
        assert eventually(lambda: server.idle)


def test_by_hand_at_the_same_time(tmp_path: Path) -> None:
    """Polling: `keysync sync` at any moment is safe, and neither one fails for the other."""
    with world(tmp_path, FAST) as here, Agent(here.machine) as agent:
        agent.wait_for("sync.completed")
        codes = [here.machine.process("sync").code for _ in range(3)]
        assert codes == [0, 0, 0]
        agent.wait_for("sync.completed", times=3)
        assert agent.said("sync.failed") == []


# The API key


def test_the_api_key_is_read_again_before_each_poll(tmp_path: Path) -> None:
    """API key: a key reset on the console and replaced on disk works without a restart."""
    with world(tmp_path, SLOW) as here, Agent(here.machine) as agent:
        agent.wait_for("sync.completed")
        here.give_api_key(here.console.reset_api_key())
        agent.send(signal.SIGUSR1)
        agent.wait_for("sync.completed", times=2)
        assert agent.said("sync.failed") == []


def test_a_rejected_api_key_slows_down_until_the_file_is_replaced(tmp_path: Path) -> None:
    """No poll for a long time, keys stay, and recovery by itself soon after the new key."""
    with world(tmp_path, FAST.replace("2s", "1h")) as here, Agent(here.machine) as agent:
        agent.wait_for("sync.completed")
        new = here.console.reset_api_key()
        assert agent.wait_for("sync.failed")["kind"] == "credential_rejected"
        asked = len(here.console.requests)
        here.console.add_key(key_line("desktop"))
        # Two intervals: a daemon that did not slow down would have asked again.
        assert not eventually(lambda: len(here.console.requests) > asked, 2.2)
        assert here.machine.lines == [TAGGED]
        here.give_api_key(new)
        assert eventually(lambda: len(here.machine.lines) == 2, 2.5)
        assert agent.wait_for("sync.recovered")["kind"] == "credential_rejected"


def test_an_api_key_that_comes_later(tmp_path: Path) -> None:
    """API key: a missing file, and one with the wrong mode, is noticed when that is mended."""
    with world(tmp_path, SLOW) as here:
        here.machine.api_key_file.unlink()
        with Agent(here.machine) as agent:
            assert agent.wait_for("sync.failed")["kind"] == "credential_missing"
            here.give_api_key(here.console.api_key, mode=0o644)
            assert agent.wait_for("sync.failed", times=2)["kind"] == "credential_exposed"
            assert here.console.requests == []
            here.machine.api_key_file.chmod(0o600)
            assert eventually(lambda: here.machine.lines == [TAGGED], 2.5)


def test_a_new_api_key_is_used_at_once(tmp_path: Path) -> None:
    """API key: one that is replaced while all is well is used within seconds too."""
    with world(tmp_path, SLOW) as here, Agent(here.machine) as agent:
        agent.wait_for("sync.completed")
        here.give_api_key("WRONG")
        failed = agent.wait_for("sync.failed")
        assert (failed["kind"], failed["trigger"]) == ("credential_rejected", "signal")


def test_a_second_agent_names_the_first(tmp_path: Path) -> None:
    """Two on one state folder are told once, by the later one; the first one's end is not."""
    with world(tmp_path, SLOW) as here:
        with Agent(here.machine) as first:
            first.wait_for("sync.completed")
            assert first.said("agent.doubled") == []
            with here.machine.started("run") as second:
                assert second.stderr is not None
                found = [json.loads(second.stderr.readline()) for _ in range(2)]
                assert [one["event"] for one in found] == ["agent.started", "agent.doubled"]
                assert (found[1]["pid"], found[1]["level"]) == (first.process.pid, "warning")
                assert f"Another agent (process {first.process.pid}) uses" in found[1]["message"]
        with Agent(here.machine) as third:
            third.wait_for("sync.completed")
            assert third.said("agent.doubled") == []


# Failures


def test_a_streak_is_logged_by_its_beginning_and_end(tmp_path: Path) -> None:
    """Logs: of several failed polls in a row the log has the first, and then their end."""
    page = answer(b"<html>")
    with (
        BadServer(page, page, KEPT) as server,
        Agent(Machine(tmp_path, server.url, SLOW)) as agent,
    ):
        for polls in range(1, 4):
            assert eventually(lambda polls=polls: len(server.heads) == polls)  # type: ignore[misc]  # reason: mypy cannot type a lambda's default
            agent.send(signal.SIGUSR1)
        end = agent.wait_for("sync.recovered")
        assert (end["kind"], end["failures"]) == ("html_page", 2)
        assert len(agent.said("sync.failed")) == 1


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """Incident 19: no request comes before the time that the API asked for, up to max_backoff; the
    log says when it comes.
    """
    busy = answer(b"", "429 Too Many Requests", ["Retry-After: 9999999999"])
    with (
        BadServer(script(busy, keep=True), KEPT) as server,
        Agent(Machine(tmp_path, server.url, FAST.replace("2s", "3s"))) as agent,
    ):
        failed = agent.wait_for("sync.failed")
        assert (failed["kind"], failed["next_poll_s"]) == ("rate_limited", 3)
        assert failed["failing_since"]
        assert not eventually(lambda: len(server.heads) > 1, 2.5)
        agent.wait_for("sync.recovered")


def test_a_defect_does_not_end_the_agent(tmp_path: Path) -> None:
    """One boundary; an exception is named with its place, and its text stays secret."""
    with (
        world(tmp_path, SLOW) as here,
        ServiceManager(tmp_path) as manager,
        Agent(
            here.machine, manager.environment, ("-m", "tests.service.odd_agent", "defect")
        ) as agent,
    ):
        failed = agent.wait_for("agent.failed")
        assert failed["kind"] == "LookupError"
        assert failed["where"].startswith("providers/vast.py:")
        assert "unexpected error" in manager.wait_for("READY=1")
        agent.send(signal.SIGHUP)
        assert agent.wait_for("sync.recovered")["kind"] == "LookupError"
        assert eventually(lambda: here.machine.lines == [TAGGED])
        assert agent.stop()[0] == 0
        assert API_KEY not in (tmp_path / "log").read_text()


def test_nothing_leaks(tmp_path: Path) -> None:
    """No thread and no descriptor is left by polls that fail in every way."""
    ways: list[Script | bytes] = [
        script(hang),
        answer(b"", "500 Oops"),
        TRUNCATED,
        script(),
        REFUSED,
    ]
    with BadServer(KEPT, *ways, KEPT) as server:
        machine = Machine(tmp_path, server.url, SLOW)
        machine.configure(timeout="200ms")
        with Agent(machine) as agent:
            agent.wait_for("sync.completed")
            before = _settled(agent)
            for polls in range(2, len(ways) + 3):
                agent.send(signal.SIGUSR1)
                assert eventually(lambda polls=polls: len(server.heads) >= polls)  # type: ignore[misc]  # reason: mypy cannot type a lambda's default
            agent.wait_for("sync.recovered")
            agent.send(signal.SIGHUP)
            agent.wait_for("sync.completed", times=3)
            assert eventually(lambda: agent.resources == before), (before, agent.resources)


def _settled(agent: Agent) -> dict[str, Any]:
    """What the agent holds when the cycle that has just been reported is over."""
    held = agent.resources
    for _ in range(50):
        time.sleep(0.1)
        if agent.resources == held:
            return held
        held = agent.resources
    raise AssertionError(held)


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_it_leaves_when_told(tmp_path: Path, number: signal.Signals) -> None:
    """At once when nothing runs, with exit code 0, and says why."""
    with world(tmp_path, SLOW) as here, Agent(here.machine) as agent:
        agent.wait_for("sync.completed")
        code, seconds = agent.stop(number)
        assert (code, agent.events[-1]["event"]) == (0, "agent.stopped")
        assert agent.events[-1]["reason"] == number.name
        assert seconds < 2.0


def test_a_running_sync_is_finished(tmp_path: Path) -> None:
    """SIGTERM in the middle of a sync that goes on: it is written and reported first."""
    released = threading.Event()
    good = answer(listing(key_line("laptop")))
    with BadServer(waiting_for(released, good)) as server:
        machine = Machine(tmp_path, server.url, SLOW)
        with Agent(machine) as agent, ServiceManager(tmp_path) as manager:
            assert eventually(lambda: len(server.heads) == 1)
            agent.send(signal.SIGTERM)
            # Not at once: it must have been told before the answer comes.
            assert not eventually(lambda: agent.process.poll() is not None, 0.3)
            released.set()
            assert agent.process.wait(5) == 0
            assert manager.messages == []
        assert machine.lines == [TAGGED]
        assert [event["event"] for event in agent.events[-2:]] == [
            "sync.completed",
            "agent.stopped",
        ]


def test_a_hanging_request_is_broken_off(tmp_path: Path) -> None:
    """Within 5 s with exit code 0, also when the console never answers, keys unchanged."""
    with BadServer(script(hang)) as server:
        machine = Machine(tmp_path, server.url, SLOW)
        machine.configure(timeout="60s")
        with Agent(machine) as agent:
            assert eventually(lambda: len(server.heads) == 1)
            agent.send(signal.SIGTERM)
            code, seconds = agent.stop()  # told twice is told once
            assert code == 0
            assert seconds < 5.0
            assert [event["event"] for event in agent.events[-2:]] == [
                "sync.failed",  # it was ended, not abandoned
                "agent.stopped",
            ]
        assert machine.lines == []


def test_a_sync_that_waits_for_another_is_left(tmp_path: Path) -> None:
    """Within 5 s with exit code 0, also while somebody else holds the lock."""
    with (
        world(tmp_path, SLOW) as here,
        StateDirectory(str(here.machine.state)).locked(1.0),
        Agent(here.machine) as agent,
    ):
        assert eventually(lambda: _waits_for_lock(agent.process.pid))
        code, seconds = agent.stop()
        assert code == 0
        assert seconds < 5.0
        assert agent.events[-1]["event"] == "agent.stopped"


def _waits_for_lock(pid: int) -> bool:
    """Whether the process has the lock file open."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(fd))
    return any(link.endswith("/state/lock") for link in links)


def test_a_wrong_configuration_at_the_start_is_logged_as_an_error(tmp_path: Path) -> None:
    """Incident 23: exit code 78 before anything is done, and one JSON line of level error."""
    machine = Machine(tmp_path, options="polll: {}\n")
    done = machine.process("run")
    assert (done.code, done.stdout) == (78, "")
    [line] = done.events
    assert (line["event"], line["level"]) == ("agent.start_failed", "error")
    assert line["kind"] == "config_invalid"
    assert 'did you mean "poll"' in line["message"]
    assert not machine.state.exists()


def test_a_failure_at_the_start_has_its_priority_in_the_journal(tmp_path: Path) -> None:
    """Incident 23: `journalctl -p warning` sees a crash loop."""
    machine = Machine(tmp_path, options="polll: {}\n")
    with (tmp_path / "journal").open("wb") as journal:
        status = os.fstat(journal.fileno())
        stream = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        command = [sys.executable, "-m", "agent", "--config", str(machine.config), "run"]
        done = subprocess.run(
            command, env=clean_environment() | stream, stderr=journal, cwd=REPOSITORY, check=False
        )
    assert done.returncode == 78
    assert (tmp_path / "journal").read_bytes().startswith(b"<3>{")


# What it says of itself


def test_the_heartbeat_follows_the_agent(tmp_path: Path) -> None:
    """Incident 22: running with its next poll, failing since, stopped with its reason, killed."""
    with BadServer(KEPT, answer(b"", "500 Oops")) as server:
        machine = Machine(tmp_path, server.url, SLOW)
        with Agent(machine) as agent:
            agent.wait_for("sync.completed")
            assert eventually(lambda: read_heartbeat(str(machine.state)) is not None)
            assert eventually(lambda: beat(machine).result == "changed")
            well = beat(machine)
            assert (well.pid, well.interval_s) == (agent.process.pid, 3600.0)
            assert well.condition() is Condition.RUNNING
            assert well.failing_since is None
            assert well.next_poll is not None
            wait = seconds_between(present(), well.next_poll)
            assert wait is not None
            assert 3500 < wait <= 3600
            agent.send(signal.SIGUSR1)
            assert eventually(lambda: beat(machine).kind == "server_error")
            assert beat(machine).failing_since is not None
            agent.stop()
            assert beat(machine).condition() is Condition.STOPPED
            assert beat(machine).stop_reason == "SIGTERM"
        with Agent(machine) as agent:
            assert eventually(lambda: beat(machine).pid == agent.process.pid)
            agent.process.kill()
            agent.process.wait()
            assert beat(machine).condition() is Condition.DEAD


def beat(machine: Machine) -> Heartbeat:
    found = read_heartbeat(str(machine.state))
    assert found
    return found


def test_what_started_a_cycle_is_in_its_lines(tmp_path: Path) -> None:
    """Logs: a poll of the schedule, a signal, and a sync by hand."""
    with world(tmp_path, SLOW) as here, Agent(here.machine) as agent:
        assert agent.wait_for("sync.completed")["trigger"] == "poll"
        agent.send(signal.SIGUSR1)
        assert agent.wait_for("sync.completed", times=2)["trigger"] == "signal"
        assert here.machine.process("sync").event("sync.completed")["trigger"] == "manual"
        boot = here.machine.process("sync", "--wait", "5")
        assert boot.event("sync.completed")["trigger"] == "boot"


def test_an_unchanged_poll_has_no_line(tmp_path: Path) -> None:
    """Incident 25: at the usual level the log has the first poll, and then what changes."""
    with BadServer(KEPT) as server:
        machine = Machine(tmp_path, server.url, FAST)
        with Agent(machine, level=()) as agent:
            assert eventually(lambda: len(server.heads) >= 4)
            assert len(agent.said("sync.completed")) == 1


def test_a_second_wrong_api_key_is_named(tmp_path: Path) -> None:
    """Incident 27: the same kind of failure with another key is news."""
    with BadServer(script(REFUSED, keep=True), script(REFUSED, keep=True)) as server:
        machine = Machine(tmp_path, server.url, SLOW)
        with Agent(machine) as agent:
            first = agent.wait_for("sync.failed")
            machine.set_api_key("SECONDWRONGKEY" + "0" * 40 + "2222")
            second = agent.wait_for("sync.failed", times=2)
            assert first["kind"] == second["kind"] == "credential_rejected"
            assert API_KEY[-4:] in first["message"]
            assert "2222" in second["message"]


# Signals


def test_sigusr1_syncs_now(tmp_path: Path) -> None:
    """Polling: whatever the interval."""
    with world(tmp_path, SLOW) as here, Agent(here.machine) as agent:
        agent.wait_for("sync.completed")
        here.console.add_key(key_line("desktop"))
        agent.send(signal.SIGUSR1)
        agent.wait_for("sync.completed", times=2)
        assert len(here.machine.lines) == 2


def test_sigusr1_while_one_runs_syncs_once_more(tmp_path: Path) -> None:
    """The running sync may have the list already, so another follows, however often asked."""
    released = threading.Event()
    good = answer(listing(key_line("laptop")))
    with (
        BadServer(waiting_for(released, good), KEPT) as server,
        Agent(Machine(tmp_path, server.url, SLOW)) as agent,
    ):
        assert eventually(lambda: len(server.heads) == 1)
        for _ in range(3):
            agent.send(signal.SIGUSR1)
        assert not eventually(lambda: len(server.heads) > 1, 0.3)
        released.set()
        agent.wait_for("sync.completed", times=2)
        assert not eventually(lambda: len(server.heads) > 2, 1.5)


def test_many_wishes_do_not_hammer_the_api(tmp_path: Path) -> None:
    """The API takes about one request a second from one address, so wishes wait for their turn."""
    with world(tmp_path, SLOW) as here, Agent(here.machine) as agent:
        here.console.switches.min_interval = 1.0
        agent.wait_for("sync.completed")
        for times in (2, 3):
            agent.send(signal.SIGUSR1)
            agent.wait_for("sync.completed", times=times)
        assert agent.said("sync.failed") == []


def test_reload(tmp_path: Path) -> None:
    """SIGHUP takes the new file and syncs with it; the old connection is given up."""
    with world(tmp_path, SLOW) as here, BadServer(KEPT) as old:
        machine = Machine(tmp_path, old.url, SLOW)
        machine.set_api_key(here.console.api_key)
        with Agent(machine) as agent:
            agent.wait_for("sync.completed")
            machine.url, machine.options = here.console.url, FAST
            machine.configure()
            agent.send(signal.SIGHUP)
            reloaded = agent.wait_for("config.reloaded")
            assert (reloaded["interval_s"], reloaded["targets"]) == (1.0, 1)
            assert eventually(lambda: len(here.console.requests) >= 3)
            assert eventually(lambda: old.idle)
            assert len(old.heads) == 1


def test_reload_of_a_wrong_file(tmp_path: Path) -> None:
    """A wrong configuration is reported with its line, and the old one goes on."""
    with (
        world(tmp_path, FAST) as here,
        ServiceManager(tmp_path) as manager,
        Agent(here.machine, manager.environment) as agent,
    ):
        agent.wait_for("sync.completed")
        here.machine.options = "poll: {interval: soon}\n"
        here.machine.configure()
        agent.send(signal.SIGHUP)
        rejected = agent.wait_for("config.rejected")
        assert f"{here.machine.config}:" in rejected["message"]
        assert "poll.interval" in rejected["message"]
        here.console.add_key(key_line("desktop"))
        assert eventually(lambda: len(here.machine.lines) == 2)
        assert "earlier one is in use" in manager.wait_for("in use")
        here.machine.options = FAST
        here.machine.configure()
        agent.send(signal.SIGHUP)
        agent.wait_for("config.reloaded")
