"""A process that is no root but may override file permissions, as the unit starts the agent: it
has root's duties (G8), serves every target, and shares its state with root alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.adapters.files.key_file import KeyFile
from agent.errors import TargetFailed
from tests.adapters.support import KEY, MANAGED, User, needs_root, target, until
from tests.support.machine import Done, Machine, clean_environment, run
from tests.support.service_user import SERVICE_UID, service_command, service_environment

pytestmark = needs_root
_IMPORTS = "import os, sys\n"


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """Its state folder is the service's, as StateDirectory= makes it."""
    machine.state.mkdir(mode=0o700)
    os.chown(machine.state, SERVICE_UID, SERVICE_UID)
    return machine


def _service(machine: Machine, *arguments: str) -> Done:
    """Runs a command as the service."""
    done = run(service_command(machine, *arguments), service_environment())
    return Done(done.returncode, done.stdout, done.stderr)


def test_every_target_is_served(machine: Machine, user: User) -> None:
    """R1, G9: root's file and a user's, its directory made, owner and mode the user's own."""
    machine.configure(targets=target("root", machine.key_file) + target(user.name, user.keys))
    done = _service(machine, "sync", "--json")
    assert done.code == 0, done.stdout + done.stderr
    for path, uid in ((machine.key_file, 0), (user.keys, user.uid)):
        assert path.read_bytes() == MANAGED
        assert (path.stat().st_uid, path.stat().st_mode & 0o7777) == (uid, 0o600)
    assert (user.ssh.stat().st_uid, user.ssh.stat().st_mode & 0o7777) == (user.uid, 0o700)
    again = _service(machine, "sync", "--json")
    assert again.json["result"] == "in_sync"


def test_a_link_of_roots_is_followed(machine: Machine, tmp_path: Path) -> None:
    """G8: the platform makes /root/.ssh such a link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    machine.configure(targets=target("root", link / "authorized_keys"))
    done = _service(machine, "sync", "--json")
    assert done.code == 0, done.stdout + done.stderr
    assert (elsewhere / "authorized_keys").read_bytes() == MANAGED
    assert link.is_symlink()


def test_an_editor_at_work_is_waited_for(machine: Machine, user: User) -> None:
    """G7: a lease, for which another user than the owner needs CAP_LEASE, tells that somebody has
    the file open for writing; it is not replaced before, and what is written then is kept.
    """
    user.write_keys(b"# before\n")
    machine.configure(targets=target(user.name, user.keys))
    inode = user.keys.stat().st_ino
    command = service_command(machine, "sync", "--json")
    with subprocess.Popen(command, env=service_environment(), stdout=subprocess.DEVNULL) as sync:
        with user.keys.open("ab") as editor:
            until(lambda: len(os.listdir(user.ssh)) > 1, "the new file beside the old one")
            with pytest.raises(subprocess.TimeoutExpired):
                sync.wait(1.0)
            assert user.keys.stat().st_ino == inode
            editor.write(b"# at the last moment\n")
        assert sync.wait(30) == 0
    assert user.keys.read_bytes() == b"# before\n# at the last moment\n" + MANAGED


def test_state_is_the_services_own(machine: Machine) -> None:
    """Everything that the process writes into its folder is its own, and nobody else's."""
    assert _service(machine, "sync", "--json").code == 0
    files = list(machine.state.iterdir())
    assert len(files) > 2
    found = {(path.stat().st_uid, path.stat().st_mode & 0o7777) for path in files}
    assert found == {(SERVICE_UID, 0o600)}


def test_state_of_somebody_else_is_refused(machine: Machine, user: User) -> None:
    """Root and the service account share a folder; any other user's is believed by neither."""
    user.give(machine.state)
    done = machine.process("sync", "--json")
    assert (done.code, done.json["error"]["kind"]) == (74, "wrong_owner")
    assert _service(machine, "sync", "--json").json["error"]["kind"] == "wrong_owner"
    assert list(machine.state.iterdir()) == []


_READ = """\
from agent.adapters.files import key_file
from agent.adapters.files.atomic import Owner
from agent.adapters.sshd_config import Sshd
from agent.config import Target
from agent.errors import TargetFailed
from agent.service.locate import locate

os.setgroups([]); os.setresgid({gid}, {gid}, {gid}); os.setresuid({uid}, {uid}, {uid})
try:
    [place] = locate(Target(sys.argv[1], sys.argv[2]), Sshd())
    with key_file.KeyFile.opened(place.path, place.owner, for_writing=False) as file:
        print("read", file.read().data.decode())
except TargetFailed as error:
    print(error.kind, error.message)
"""


def _read_as(uid: int, gid: int, user: User) -> str:
    """What a process of this user, without any power, makes of the key file of `user`."""
    words = [sys.executable, "-c", _IMPORTS + _READ.format(uid=uid, gid=gid), user.name]
    done = run([*words, str(user.keys)], clean_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_power_the_system_decides(user: User) -> None:
    """Who may not is told so by the system call, with the path; keysync does not guess before."""
    user.write_keys(KEY)
    path = f"{user.ssh}/authorized_keys"
    assert _read_as(SERVICE_UID, SERVICE_UID, user).startswith("permission_denied Could not")
    assert path in _read_as(SERVICE_UID, SERVICE_UID, user)
    user.home.chmod(0o755)
    user.ssh.chmod(0o755)
    user.keys.chmod(0o644)
    assert _read_as(SERVICE_UID, SERVICE_UID, user) == f"read {KEY.decode()}\n"


def test_oneself_there_is_no_power_to_borrow(user: User) -> None:
    """G8 is about others' power: in one's own account also a directory of root's is read."""
    user.write_keys(KEY)
    os.chown(user.ssh, 0, user.gid)
    user.ssh.chmod(0o750)
    user.home.chmod(0o777)  # so that it could have been put there by anybody
    assert _read_as(user.uid, user.gid, user) == f"read {KEY.decode()}\n"
    with (
        pytest.raises(TargetFailed) as refused,
        KeyFile.opened(str(user.keys), user.owner, for_writing=False),
    ):
        pass
    assert refused.value.kind == "wrong_owner"
