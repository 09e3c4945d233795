"""A real supervisor keeps the agent: the platform's containers in short."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.install.support import (
    API_KEY,
    CONFIG,
    PROGRAM,
    STATE,
    eventually,
    key_file,
    keysync,
    open_door,
    set_key_file,
    variables,
)
from tests.support.machine import key_line
from tests.support.own_machine import OwnMachine

PROGRAM_FILE = "/etc/supervisor/conf.d/keysync.conf"
# As Debian's package and the platform's images have it, in the foreground.
_SUPERVISORD = """\
[unix_http_server]
file=/run/supervisor.sock
[supervisord]
nodaemon=true
user=root
logfile=/dev/null
logfile_maxbytes=0
pidfile=/run/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix:///run/supervisor.sock
[include]
files = /etc/supervisor/conf.d/*.conf
"""


@pytest.fixture
def supervised(machine: OwnMachine) -> OwnMachine:
    """A machine with supervisor, which is yet to be started."""
    machine.write("/etc/supervisor/supervisord.conf", _SUPERVISORD)
    machine.path("/etc/supervisor/conf.d").mkdir()
    for name in ("supervisord", "supervisorctl"):
        program = Path(sys.executable).with_name(name)
        machine.run("ln", "-sf", str(program), f"/usr/local/bin/{name}")
    return machine


@contextlib.contextmanager
def _running(machine: OwnMachine, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = machine.start("supervisord", "-c", "/etc/supervisor/supervisord.conf", log=log)
    try:
        socket = machine.path("/run/supervisor.sock")
        eventually(socket.is_socket, f"supervisor's socket: {log.read_text()}")
        yield process
    finally:
        machine.run("supervisorctl", "shutdown", exits=None)
        process.wait(20)


def _state(machine: OwnMachine) -> list[str]:
    return machine.run("supervisorctl", "status", "keysync", exits=None).stdout.split()


def _pid(machine: OwnMachine) -> int:
    return int(machine.run("supervisorctl", "pid", "keysync", exits=None).stdout)


def test_the_story_under_supervisor(
    supervised: OwnMachine, console: Console, tmp_path: Path
) -> None:
    """Installed from the wheel, an account's key gets in; what is added, edited and deleted on the
    console is followed; a reset of the API key is recovered from without a restart; a killed agent
    is started again; uninstall gives the file back byte for byte.
    """
    machine, log = supervised, tmp_path / "supervisord.log"
    with open_door(machine, tmp_path) as door, _running(machine, log):
        original = f"{door.keygen('platform')}\n# no newline at the end".encode()
        set_key_file(machine, original)
        console.add_key(original.decode().split("\n")[0])
        machine.write(
            CONFIG,
            f"api: {{url: '{console.url}', key_file: {API_KEY}}}\n"
            "poll: {interval: 1s, jitter: 0s}\n",
        )

        done = keysync(machine, "install", environment={"VAST_API_KEY": console.api_key})
        assert "RUNNING" in done.stdout
        assert door.lets_in("platform")

        added = console.add_key(door.keygen("laptop"))
        eventually(lambda: door.lets_in("laptop"), "the added key gets in")
        console.edit_key(added, door.keygen("desktop"))
        eventually(lambda: door.lets_in("desktop"), "the edited key gets in")
        assert not door.lets_in("laptop")
        console.delete_key(added)
        eventually(lambda: not door.lets_in("desktop"), "the deleted key is refused")
        assert door.lets_in("platform")

        pid = _pid(machine)
        console.reset_api_key()
        console.add_key(door.keygen("tablet"))
        eventually(lambda: b"credential_rejected" in log.read_bytes(), "the reset is noticed")
        assert not door.lets_in("tablet")
        machine.write(API_KEY, console.api_key, 0o600)
        eventually(lambda: door.lets_in("tablet"), "the new API key is used")
        assert _pid(machine) == pid

        machine.run("kill", "-KILL", str(pid))
        eventually(lambda: _pid(machine) not in (0, pid), "the killed agent is started again")
        console.add_key(door.keygen("phone"))
        eventually(lambda: door.lets_in("phone"), "the new agent follows the console")

        keysync(machine, "uninstall", "--yes", "--restore-original")
        assert key_file(machine) == original
        assert "no such process" in " ".join(_state(machine))
        assert not machine.path(PROGRAM_FILE).exists()
        assert not machine.path(STATE).exists()
        assert not door.lets_in("phone")
        assert door.lets_in("platform")


def test_an_upgrade_restarts_the_agent(
    supervised: OwnMachine, console: Console, tmp_path: Path
) -> None:
    """A second install puts the present version to work, by a clean end of the old one."""
    console.add_key(key_line("laptop"))
    with _running(supervised, tmp_path / "log"):
        keysync(supervised, "install", environment=variables(console))
        pid = _pid(supervised)
        done = keysync(supervised, "install", environment=variables(console))
        assert "RUNNING" in done.stdout
        assert _pid(supervised) not in (0, pid)
        assert b"agent.stopped" in (tmp_path / "log").read_bytes()


def test_before_supervisor_runs_the_base_image_is_prepared(
    supervised: OwnMachine, console: Console, tmp_path: Path
) -> None:
    """In the base image hooks run before supervisor: install does not need it to run, and it starts
    the agent when it starts. The boot hook is placed too.
    """
    console.add_key(key_line("laptop"))
    supervised.path("/etc/vast_boot.d").mkdir()
    done = keysync(supervised, "install", environment=variables(console))
    assert "it will start the agent" in done.stdout
    assert supervised.names("/etc/vast_boot.d") == {"40-keysync.sh"}
    with _running(supervised, tmp_path / "log"):
        eventually(lambda: "RUNNING" in _state(supervised), "supervisor starts the agent")
        keysync(supervised, "uninstall", "--yes")
    assert not supervised.names("/etc/vast_boot.d")
    assert not supervised.names("/etc/supervisor/conf.d")


def test_supervisor_that_nobody_starts_is_not_relied_on(
    supervised: OwnMachine, console: Console
) -> None:
    """Installed but not running, and not in the base image: it would never start the agent."""
    console.add_key(key_line("laptop"))
    done = keysync(supervised, "install", environment=variables(console))
    assert f"{PROGRAM} run" in done.stdout
    assert not supervised.names("/etc/supervisor/conf.d")
