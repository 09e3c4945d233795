"""From `keysync install` to `keysync uninstall --restore-original`, on a machine with systemd."""

from __future__ import annotations

from pathlib import Path

from tests.systemd.conftest import NewMachine
from tests.systemd.machine import (
    BOOT,
    CONFIG,
    SERVICE,
    SSHD_CONFIG,
    UNITS,
    USER,
    Machine,
    public_line,
)

_KEYSYNC = "/opt/keysync/bin/keysync"
_ROOTS = "/home_ssh/root/.ssh/authorized_keys"
_USERS = f"/home/{USER}/.config/keys"
_ELSEWHERE = "/srv/keys"


def test_a_machine_is_taken_over_and_given_back(machines: NewMachine) -> None:
    """Install finds who holds the account's keys, starts the sandboxed service and repeats
    safely; uninstall gives each file its original bytes back and leaves nothing behind.
    """
    with machines(keysync=False) as machine, machine.serving() as console:
        platforms, added = machine.new_key("platforms"), machine.new_key("added")
        console.add_key(public_line(platforms))
        original = f"# ours, \r\n\n{public_line(platforms)}\nno key at all".encode()
        _write_keys(machine, original)
        machine.boot()
        machine.await_booted()
        before = _everything(machine)

        _install(machine, "--dry-run")
        assert _everything(machine) == before
        said = _install(machine)
        assert f"{SERVICE} is active: in sync" in said
        _install(machine)
        for unit in (SERVICE, BOOT):
            machine.run("systemctl", "is-enabled", unit)
        assert int(machine.show(SERVICE, "MainPID")) > 0

        console.add_key(public_line(added))
        machine.run("systemctl", "kill", "--kill-who=main", "--signal=SIGUSR1", SERVICE)
        machine.await_login(added)
        machine.await_login(added, USER)
        machine.check_journal()

        machine.run(_KEYSYNC, "uninstall", "--restore-original", "--yes")
        assert machine.path(_ROOTS).read_bytes() == original
        assert machine.path(_USERS).read_bytes() == original
        assert machine.path("/root/.ssh").is_symlink()
        assert machine.logs_in(platforms)
        assert not machine.logs_in(added)
        assert _everything(machine) == before
        assert machine.run("systemctl", "list-units", "--all", "--no-legend", "keysync*") == ""


def test_a_target_elsewhere_can_be_written(machines: NewMachine) -> None:
    """A configuration that is there is kept, and the sandbox lets its targets be written."""
    with machines(keysync=False) as machine, machine.serving() as console:
        first, second = machine.new_key("first"), machine.new_key("second")
        console.add_key(public_line(first))
        machine.path(_ELSEWHERE).mkdir(mode=0o755)
        machine.configure(
            f"{CONFIG.partition('targets:')[0]}"
            f"targets: [{{user: {USER}, path: {_ELSEWHERE}/{USER}}}]\n"
        )
        config = machine.path("/etc/keysync/config.yaml").read_bytes()
        machine.write(SSHD_CONFIG, f"AuthorizedKeysFile {_ELSEWHERE}/%u\n")
        machine.boot()
        machine.await_booted()
        _install(machine)
        assert machine.path("/etc/keysync/config.yaml").read_bytes() == config
        console.add_key(public_line(second))
        machine.await_login(second, USER)
        assert machine.events("target.failed") == []


def _install(machine: Machine, *options: str) -> str:
    return machine.run(
        *(_KEYSYNC, "install", *options),
        VAST_URL="http://127.0.0.1:8080",
        VAST_API_KEY=machine.console.api_key,
    )


def _write_keys(machine: Machine, data: bytes) -> None:
    """As the platform does: root's file, and the same lines for the user."""
    for path in (_ROOTS, _USERS):
        machine.path(path).parent.mkdir(exist_ok=True)
        machine.path(path).write_bytes(data)
        machine.path(path).chmod(0o600)
    machine.chroot("chown", "-R", USER, str(Path(_USERS).parent))


def _everything(machine: Machine) -> list[str]:
    """What install could leave: units, links, accounts, configuration, state."""
    folders = (UNITS, "/etc/keysync", "/usr/local/bin", "/var/lib")
    found = [path for folder in folders for path in machine.path(folder).rglob("*")]
    accounts = machine.path("/etc/passwd").read_text().splitlines()
    return sorted(map(str, found)) + accounts
