"""Before sshd lets anybody in: what a boot does with and without the console."""

from __future__ import annotations

from pathlib import Path

from tests.systemd.conftest import NewMachine
from tests.systemd.container import eventually
from tests.systemd.machine import API_KEY, BOOT, CONFIG, SERVICE, UNITS, USER, Machine, public_line

_BOUND_SECONDS = 15.0  # the shortened bounds below, and what a busy machine needs to boot
_SHORT_WAIT = "[Service]\nExecStart=\nExecStart=/opt/keysync/bin/keysync sync --wait 2\n"
_SHORT_BOUND = "[Service]\nTimeoutStartSec=3s\nTimeoutStopSec=1s\n"
# How Ubuntu 24.04 starts sshd: the first connection does.
_SOCKET = """\
[Unit]
Before=sockets.target
[Socket]
ListenStream=127.0.0.1:22
Accept=no
Service=ssh.service
"""
_BY_SOCKET = "[Unit]\nAfter=ssh.socket\nRequires=ssh.socket\n"


def test_an_account_key_works_the_moment_sshd_answers(machines: NewMachine) -> None:
    """The boot sync comes first: the first login after the first banner gets in, for each user."""
    with machines() as machine, machine.serving() as console:
        key = machine.new_key("account")
        console.add_key(public_line(key))
        machine.boot()
        machine.await_sshd(_BOUND_SECONDS)
        assert machine.logs_in(key)
        assert machine.logs_in(key, USER)
        machine.await_booted()
        assert machine.show(BOOT, "Result") == "success"
        machine.check_journal()


def test_without_the_console_the_last_state_lets_in(machines: NewMachine) -> None:
    """Nobody answers at boot (the wait of 20 s is shortened to 2): sshd is up within the bound,
    the keys of the last state work, and the agent recovers by itself when the console is back.
    """
    with machines() as machine:
        old, new = machine.new_key("old"), machine.new_key("new")
        _boot_once(machine, public_line(old))
        machine.drop_in(BOOT, _SHORT_WAIT)
        machine.boot()
        machine.await_sshd(_BOUND_SECONDS)
        assert machine.logs_in(old)
        assert machine.logs_in(old, USER)
        machine.await_booted()
        assert machine.show(BOOT, "Result") == "success", "no fault of the unit's"
        _recovers(machine, new)
        machine.check_journal()


def test_a_boot_sync_that_hangs_is_ended(machines: NewMachine) -> None:
    """A console that accepts and never answers (the bound of 45 s is shortened to 3) cannot keep
    sshd down: the sync is ended, sshd comes up, and the agent goes on by itself.
    """
    with machines() as machine:
        old, new = machine.new_key("old"), machine.new_key("new")
        _boot_once(machine, public_line(old))
        machine.drop_in(BOOT, _SHORT_BOUND)
        with machine.silence():
            machine.boot()
            machine.await_sshd(_BOUND_SECONDS)
            assert machine.logs_in(old)
        assert machine.show(BOOT, "Result") == "timeout"
        _recovers(machine, new)


def test_sshd_by_socket_waits_too_and_makes_no_cycle(machines: NewMachine) -> None:
    """Where a socket starts sshd, as on Ubuntu 24.04, no unit is dropped to break a cycle, and
    the first connection reaches an sshd that started after the boot sync.
    """
    with machines() as machine, machine.serving() as console:
        key = machine.new_key("account")
        console.add_key(public_line(key))
        machine.write(f"{UNITS}/ssh.socket", _SOCKET)
        machine.enable("ssh.socket", "sockets.target")
        machine.drop_in("ssh.service", _BY_SOCKET)
        machine.path(f"{UNITS}/multi-user.target.wants/ssh.service").unlink()
        machine.boot()
        machine.await_sshd(_BOUND_SECONDS)
        assert machine.logs_in(key)
        machine.await_booted()
        assert not [r for r in machine.journal("_PID=1") if "cycle" in str(r["MESSAGE"])]
        assert machine.show(BOOT, "Result") == "success"


def test_a_missing_api_key_keeps_nothing_down(machines: NewMachine) -> None:
    """Without the file that the unit loads the agent starts all the same, says what is missing,
    and goes on by itself when the file is there.
    """
    with machines() as machine, machine.serving() as console:
        key = machine.new_key("account")
        console.add_key(public_line(key))
        machine.path(API_KEY).unlink()
        machine.boot()
        machine.await_booted()
        assert machine.show(SERVICE, "ActiveState") == "active"
        assert machine.events("sync.failed")[0]["kind"] == "credential_missing"
        machine.set_api_key(console.api_key)
        machine.await_login(key)
        assert machine.show(SERVICE, "NRestarts") == "0"


def test_the_key_can_come_as_a_credential(machines: NewMachine) -> None:
    """A configuration without api.key_file gets the API key from the unit's LoadCredential=."""
    with machines() as machine, machine.serving() as console:
        key = machine.new_key("account")
        console.add_key(public_line(key))
        machine.configure(CONFIG.replace(f", key_file: {API_KEY}", ""))
        machine.boot()
        machine.await_sshd(_BOUND_SECONDS)
        assert machine.logs_in(key)
        machine.await_booted()
        assert machine.events("sync.completed")
        machine.check_journal()


def _boot_once(machine: Machine, line: str) -> None:
    """An earlier boot at which the console held this key."""
    with machine.serving() as console:
        console.add_key(line)
        machine.boot()
        machine.await_booted()
        assert machine.events("sync.completed", BOOT)
        machine.power_off()


def _recovers(machine: Machine, key: Path) -> None:
    """A key that the console now lists gets in, without a restart of the agent."""
    with machine.serving() as console:
        console.add_key(public_line(key))
        machine.await_login(key)
        eventually(lambda: machine.show(SERVICE, "ActiveState") == "active", "the agent is ready")
        assert machine.show(SERVICE, "NRestarts") == "0"
