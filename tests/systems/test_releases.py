"""keysync on Debian 13 and sid: the service, a real sshd, and the release's own ssh."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from sandbox.console import Console
from tests.systemd.container import eventually
from tests.systemd.machine import SERVICE, SSHD_CONFIG, USER, Machine
from tests.systems.conftest import NewMachine

pytestmark = [pytest.mark.systems, pytest.mark.timeout(600)]

_KEYSYNC = "/opt/keysync/bin/keysync"
_OPTIONS = (
    *("-F", "none", "-T", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
    *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"),
    *("-o", "UserKnownHostsFile=/dev/null"),
)


def _new_key(machine: Machine, name: str, key_type: str) -> str:
    """A key made by the machine's own ssh-keygen; its public half as one line."""
    machine.run("ssh-keygen", "-q", "-t", key_type, "-N", "", "-C", name, "-f", f"/run/{name}")
    return machine.run("cat", f"/run/{name}.pub").strip()


def _logs_in(machine: Machine, name: str, user: str) -> bool:
    words = ("ssh", *_OPTIONS, "-i", f"/run/{name}", f"{user}@127.0.0.1", "echo", "in")
    told = machine.run("sh", "-c", f"{' '.join(words)} 2>&1 || :")
    assert told == "in\n" or "Permission denied (" in told, told
    return told == "in\n"


def _await(machine: Machine, name: str, user: str, *, inside: bool) -> None:
    what = f"{user} is {'let in' if inside else 'refused'} with {name}"
    eventually(lambda: _logs_in(machine, name, user) is inside, what, 40)


@contextlib.contextmanager
def _booted(machine: Machine) -> Iterator[Console]:
    """The console serves from the start, or sshd would wait for the sync at boot."""
    with machine.serving() as console:
        machine.boot()
        machine.await_sshd(60)
        yield console


def _add_edit_delete(machine: Machine, key_type: str) -> None:
    """Real logins to both accounts, while the service runs."""
    with _booted(machine) as console:
        first = _new_key(machine, "first", key_type)
        second = _new_key(machine, "second", key_type)
        other = _new_key(machine, "other", "ed25519")
        console.add_key(other)
        key_id = console.add_key(f"{first}\n")
        for user in ("root", USER):
            _await(machine, "first", user, inside=True)
            assert not _logs_in(machine, "second", user)
        console.edit_key(key_id, second)
        for user in ("root", USER):
            _await(machine, "second", user, inside=True)
            _await(machine, "first", user, inside=False)
        status = json.loads(machine.run(_KEYSYNC, "status", "--json", expect=None))
        for target in status["targets"]:
            assert [key["login"] for key in target["keys"]] == ["yes", "yes"]
        console.delete_key(key_id)
        for user in ("root", USER):
            _await(machine, "second", user, inside=False)
            assert _logs_in(machine, "other", user)
    assert machine.events("key.rejected") == []


@pytest.mark.parametrize(
    ("release", "key_type"), [("trixie", "ed25519"), ("sid", "mldsa44-ed25519")]
)
def test_add_edit_delete(machines: NewMachine, release: str, key_type: str) -> None:
    """R1, R2; incident 30: a key of the newest type that the release's own ssh-keygen makes."""
    with machines(release) as machine:
        _add_edit_delete(machine, key_type)


def test_the_file_that_sshd_reads_is_the_one_written(machines: NewMachine) -> None:
    """Incident 32: OpenSSH 10.6 prints the keywords of `sshd -T` with capitals."""
    with machines("sid") as machine:
        machine.path("/etc/ssh/keys").mkdir()
        file = "AuthorizedKeysFile /etc/ssh/keys/%u\n"
        machine.write(SSHD_CONFIG, f"PerSourcePenalties no\n{file}")
        machine.drop_in(SERVICE, "[Service]\nReadWritePaths=/etc/ssh/keys\n")
        _add_edit_delete(machine, "mldsa44-ed25519")
        assert "AuthorizedKeysFile /etc/ssh/keys/%u" in machine.run("sshd", "-T")
        assert machine.path("/etc/ssh/keys/root").exists()
        assert not machine.path("/home_ssh/root/.ssh/authorized_keys").exists()


def test_a_key_that_this_sshd_does_not_know_is_refused_by_name(machines: NewMachine) -> None:
    """G2: on Debian 13 a key of OpenSSH 10.6 is rejected as unsupported, and the others enter."""
    with machines("sid") as newer, _booted(newer):
        unknown = _new_key(newer, "unknown", "mldsa44-ed25519")
    with machines("trixie") as machine:
        with _booted(machine) as console:
            console.add_key(unknown)
            console.add_key(_new_key(machine, "known", "ed25519"))
            _await(machine, "known", "root", inside=True)
        rejected = machine.events("key.rejected")
        assert [event["reason"] for event in rejected] == ["unsupported_by_sshd"]
        assert "ssh-mldsa44-ed25519" in rejected[0]["detail"]
