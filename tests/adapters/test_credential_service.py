"""The API key of a machine where the service has an account of its own, and root works by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.adapters.support import needs_root
from tests.support.machine import REPOSITORY
from tests.support.own_machine import OwnMachine, open_workshop

pytestmark = needs_root
_KEY = "0123456789abcdef0123456789abcdef"
_STATE, _PATH = "/var/lib/keysync", "/var/lib/keysync/api_key"
_FIND = """
import os, pwd, sys
from agent.adapters.credential import find_credential
from agent.errors import CredentialRejected
uid = pwd.getpwnam(sys.argv[2]).pw_uid
os.setgroups([])
os.setresuid(uid, uid, uid)
try:
    print(find_credential(sys.argv[1], {}).value)
except CredentialRejected as error:
    print(error.kind, error.message)
"""
_OPEN = """
import sys
from agent.adapters.files.safe_path import open_directory
from agent.adapters.files.atomic import Owner
from agent.errors import TargetFailed
try:
    open_directory(sys.argv[1], Owner(0, 0))
except TargetFailed as error:
    print(error.kind)
"""


@pytest.fixture(scope="module")
def installed() -> Iterator[OwnMachine]:
    with open_workshop() as workshop, workshop.machine() as machine:
        machine.run("useradd", "--system", "--user-group", "--no-create-home", "keysync")
        machine.run("useradd", "-m", "alice")
        yield machine


@pytest.fixture
def machine(installed: OwnMachine) -> OwnMachine:
    """With the key in the service's own folder."""
    installed.run("rm", "-rf", _STATE, "/srv/link")
    installed.run("install", "-d", "-m700", "-o", "keysync", _STATE)
    _write(installed, "keysync")
    return installed


def _write(machine: OwnMachine, owner: str) -> None:
    machine.write(_PATH, _KEY + "\n", 0o600)
    machine.run("chown", owner, _PATH)


def _python(machine: OwnMachine, script: str, path: str, user: str = "root") -> str:
    command = (sys.executable, "-c", script, path, user)
    return machine.run(*command, environment={"PYTHONPATH": str(REPOSITORY)}).stdout.strip()


@pytest.mark.parametrize("owner", ["keysync", "root"])
def test_root_uses_the_services_key(machine: OwnMachine, owner: str) -> None:
    """API key: `sudo keysync sync` finds the daemon's key, also by a link of the service's."""
    _write(machine, owner)
    machine.run("ln", "-s", _PATH, "/srv/link")
    machine.run("chown", "-h", "keysync", "/srv/link")
    for path in (_PATH, "/srv/link"):
        assert _python(machine, _FIND, path) == _KEY


@pytest.mark.parametrize("what", ["folder", "file"])
def test_nobody_elses_is_used_beside_it(machine: OwnMachine, what: str) -> None:
    """G8: another account chooses neither the key nor the way to it."""
    machine.run("chown", "alice", _STATE if what == "folder" else _PATH)
    assert _python(machine, _FIND, _PATH).startswith("credential_untrusted")


def test_a_user_does_not_trust_the_service(machine: OwnMachine) -> None:
    """G8: it is root alone who shares a key with the service."""
    machine.run("chmod", "755", _STATE)
    _write(machine, "alice")
    assert _python(machine, _FIND, _PATH, user="alice").startswith("credential_untrusted")


def test_the_service_leads_root_to_no_key_file(machine: OwnMachine) -> None:
    """G8: the account counts for the API key alone, not for a folder that root writes to."""
    machine.run("install", "-d", "-o", "root", f"{_STATE}/.ssh")
    assert _python(machine, _OPEN, f"{_STATE}/.ssh") == "wrong_owner"
