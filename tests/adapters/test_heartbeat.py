"""What the agent leaves for `keysync status`, and what it tells of the agent."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.adapters.clock import present
from agent.adapters.heartbeat import (
    Condition,
    Heartbeat,
    process_start,
    read_heartbeat,
    write_heartbeat,
)
from agent.adapters.state_files import HEARTBEAT
from agent.core.times import Moment


def own_heartbeat() -> Heartbeat:
    """Of an agent that is this very process and polls in 30 s."""
    now = present()
    start = process_start(os.getpid())
    assert start is not None
    return Heartbeat("1.2", os.getpid(), start, 30.0, 90.0, now, now, now.after(30.0), "in_sync")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    return folder


def test_what_is_written_is_read(state: Path) -> None:
    """Incident 22: status sees the agent; the file is its owner's alone, and nothing else stays."""
    heartbeat = own_heartbeat()._replace(kind="timeout", failing_since=present(), stopped=present())
    write_heartbeat(str(state), own_heartbeat())
    write_heartbeat(str(state), heartbeat)
    assert read_heartbeat(str(state)) == heartbeat
    assert os.listdir(state) == [HEARTBEAT]
    assert stat.S_IMODE((state / HEARTBEAT).stat().st_mode) == 0o600


def test_what_a_killed_agent_left_half_written_goes(state: Path) -> None:
    """State: the state folder does not fill up."""
    (state / f".{HEARTBEAT}.0123456789abcdef").write_text("{")
    write_heartbeat(str(state), own_heartbeat())
    assert os.listdir(state) == [HEARTBEAT]


def test_no_folder_is_no_error(tmp_path: Path) -> None:
    """Incident 22: bookkeeping never stops the agent."""
    write_heartbeat(str(tmp_path / "missing"), own_heartbeat())
    assert read_heartbeat(str(tmp_path / "missing")) is None


def test_a_full_disk_is_no_error_and_keeps_the_last_one(state: Path) -> None:
    """Incident 22: a heartbeat that could not be written whole does not take the place of one."""
    earlier = own_heartbeat()
    write_heartbeat(str(state), earlier)
    script = (
        "import resource, signal, sys\n"
        "from agent.adapters.heartbeat import read_heartbeat, write_heartbeat\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "found = read_heartbeat(sys.argv[1])\n"
        "write_heartbeat(sys.argv[1], found._replace(result='failed'))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(state)], check=True, timeout=60)
    assert read_heartbeat(str(state)) == earlier
    assert os.listdir(state) == [HEARTBEAT]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"version": 7}', b'{"pid": "x"}'],
)
def test_a_damaged_one_is_none(state: Path, data: bytes) -> None:
    """Incident 22: nothing is made up of it, and status goes on."""
    (state / HEARTBEAT).write_bytes(data)
    assert read_heartbeat(str(state)) is None


@pytest.mark.parametrize("value", [None, True, -1, float("nan"), 10**400, "x", [], {}])
def test_any_wrong_value_is_none_or_harmless(state: Path, value: object) -> None:
    """Incident 22: what cannot be understood is not shown, and what is shown can be judged."""
    write_heartbeat(str(state), own_heartbeat())
    good = json.loads((state / HEARTBEAT).read_bytes())
    refused = 0
    for name in good:
        (state / HEARTBEAT).write_text(json.dumps({**good, name: value}))
        found = read_heartbeat(str(state))
        refused += found is None
        if found is not None:
            assert found.condition() in Condition
    assert refused >= 3


def test_what_a_version_writes_more_or_less(state: Path) -> None:
    """Incident 22: an agent that runs on while keysync is replaced is still understood."""
    heartbeat = own_heartbeat()._replace(kind=None)
    write_heartbeat(str(state), heartbeat)
    raw = json.loads((state / HEARTBEAT).read_bytes())
    del raw["kind"]
    (state / HEARTBEAT).write_text(json.dumps({**raw, "new": 1}))
    assert read_heartbeat(str(state)) == heartbeat


def test_it_runs() -> None:
    """Incident 22: the process is there, and its next poll is to come."""
    assert own_heartbeat().condition() is Condition.RUNNING


def test_it_was_stopped() -> None:
    """Incident 22: an orderly end is told from a kill."""
    stopped = own_heartbeat()._replace(stopped=present(), stop_reason="SIGTERM")
    assert stopped.condition() is Condition.STOPPED


def test_it_was_killed() -> None:
    """Incident 22: no process, and a zombie is none."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        start = process_start(child.pid)
        assert start is not None
        killed = own_heartbeat()._replace(pid=child.pid, process_start=start)
        assert killed.condition() is Condition.RUNNING
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert killed.condition() is Condition.DEAD
    assert killed.condition() is Condition.DEAD


def test_another_process_has_its_id_now() -> None:
    """Incident 22: a process id that was used again is not the agent."""
    reused = own_heartbeat()._replace(process_start=1)
    assert reused.condition() is Condition.DEAD


def test_the_machine_was_restarted() -> None:
    """Incident 22: the same id and start time in another boot is not the agent."""
    now = present()
    started = Moment(now.at, "0" * 32, now.seconds)
    assert own_heartbeat()._replace(started=started).condition() is Condition.DEAD


def test_it_is_stuck() -> None:
    """Incident 22: a poll that should long have ended; by the steady clock."""
    heartbeat = own_heartbeat()
    assert heartbeat.condition(present().after(30.0 + 89.0)) is Condition.RUNNING
    late = present().after(30.0 + 91.0)._replace(at="2001-01-01T00:00:00Z")
    assert heartbeat.condition(late) is Condition.OVERDUE
