"""install and uninstall against a hostile user: what root makes, gives away and restores (G8).

Everything happens on a machine of its own, where the real paths below /etc and /var are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from sandbox.console import Console
from tests.install.support import CONFIG, PROGRAM, ROOTS_FILE, key_file, set_key_file, variables
from tests.support.machine import REPOSITORY, key_line
from tests.support.own_machine import Done, OwnMachine, open_workshop

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a machine of its own"),
]
ORIGINAL = key_line("by hand").encode() + b"\n"
SECRET = "secret-of-somebody-else"
# What alice does in her home, in the place of $P; root's part of it comes first, after a `;`.
_PLANTS = {
    "link": ("ln -s /srv/victim/.ssh/authorized_keys $P", ""),
    "link to a folder": ("ln -s /srv/victim/.ssh $P", ""),
    "dangling link": ("ln -s /srv/victim/nothing $P", ""),
    "pipe": ("mkfifo $P", ""),
    "directory": ("mkdir -p $P/full", ""),
    "hard link": ("true", "ln /srv/victim/.ssh/authorized_keys $P"),
    "device": ("true", "mknod $P c 1 5; chown alice $P"),
    "root's own": ("mv $P.aside $P", "cp /srv/victim/.ssh/authorized_keys $P.aside"),
    "root's own folder": ("mv $P.aside $P", "cp -r /srv/victim/.ssh $P.aside"),
}
_SEEN = "find /srv/victim -printf '%p %i %u %g %m %s %T@\\n' | sort; cat /srv/victim/.ssh/*"


@pytest.fixture(scope="module")
def machine() -> Iterator[OwnMachine]:
    with open_workshop() as workshop, workshop.machine() as machine:
        machine.install_checkout()
        machine.path("/run/sshd").mkdir(mode=0o755)
        machine.run("useradd", "-m", "-p", "*", "alice")
        machine.write("/srv/victim/.ssh/authorized_keys", SECRET + "\n", 0o600)
        machine.run("chmod", "700", "/srv/victim", "/srv/victim/.ssh")
        yield machine


def _seen(machine: OwnMachine) -> str:
    return machine.run("sh", "-c", _SEEN).stdout


def _plant(machine: OwnMachine, plant: str, path: str) -> None:
    alices, roots = _PLANTS[plant]
    work = f"cd /home/alice; P={path}; "
    machine.run("sh", "-c", f"{work}{roots or 'true'}")
    machine.run("sh", "-c", work + alices, user="alice")


def _uninstall(machine: OwnMachine, exits: int) -> Done:
    command = (PROGRAM, "uninstall", "--yes", "--restore-original")
    return machine.run("timeout", "60", *command, exits=exits)


def test_giving_the_originals_back(machine: OwnMachine) -> None:
    """G5, G8: an uninstall writes into a user's folder and removes a file from it: whatever lies
    there instead is refused by name, and all that comes after stays for the next attempt.
    """
    with Console() as console:
        set_key_file(machine, ORIGINAL)
        set_key_file(machine, ORIGINAL, "alice")
        console.add_key(key_line("by hand"))
        console.add_key(key_line("laptop"))
        machine.run(PROGRAM, "install", environment=variables(console))
    assert b"laptop" in key_file(machine, "alice")
    before = _seen(machine)
    for path in (".ssh/authorized_keys", ".ssh"):
        for plant in _PLANTS:
            if path == ".ssh" and plant == "directory":
                continue  # a folder of her own, in which there is no file: nothing to refuse
            machine.run("mv", f"/home/alice/{path}", "/home/alice/kept")
            _plant(machine, plant, path)
            done = _uninstall(machine, exits=74)
            assert f"/home/alice/{path}" in done.text, plant
            assert SECRET not in done.text, plant
            assert _seen(machine) == before, plant
            assert machine.path(CONFIG).exists()
            machine.run("sh", "-c", f"cd /home/alice; rm -rf {path}; mv kept {path}")
    _uninstall(machine, exits=0)
    assert key_file(machine, "alice") == ORIGINAL
    assert machine.path(ROOTS_FILE).read_bytes() == ORIGINAL
    assert not machine.path(CONFIG).exists()
    owner = machine.run("stat", "-c", "%U %a", "/home/alice/.ssh/authorized_keys").stdout
    assert owner == "alice 600\n"


_HAND_OVER = """
import sys
from agent.errors import TargetFailed
from agent.setup.service_account import service_account
try:
    for step in service_account(sys.argv[1]):
        step.do()
except TargetFailed as error:
    print(error.kind)
else:
    print("given")
"""


def _hand_over(machine: OwnMachine, path: str) -> str:
    found = machine.run(
        sys.executable, "-c", _HAND_OVER, path, environment={"PYTHONPATH": str(REPOSITORY)}
    )
    return found.stdout.strip()


def _owner(machine: OwnMachine, path: str) -> str:
    return machine.run("stat", "-c", "%U %a", path).stdout.strip()


def test_giving_the_state_folder_to_the_service(machine: OwnMachine) -> None:
    """G8: root gives away what only root put there, and no other file under a name of keysync's."""
    machine.run(
        "sh", "-c", "mkdir -p /srv/state; touch /srv/state/lock; ln -s /srv/state /srv/link"
    )
    assert _hand_over(machine, "/srv/link") == "given"
    assert (_owner(machine, "/srv/state"), _owner(machine, "/srv/state/lock")) == (
        "keysync 700",
        "keysync 644",
    )
    assert _hand_over(machine, "/srv/new/state") == "given"
    before = _seen(machine)
    machine.run("sh", "-c", "cd /srv; mkdir half; touch half/lock half/state.json")
    machine.run("chown", "keysync:", "/srv/half/lock")  # an earlier hand-over ended here
    machine.run("chmod", "700", "/srv/half")
    assert _hand_over(machine, "/srv/half") == "given"
    for path in ("half", "half/lock", "half/state.json"):
        assert _owner(machine, f"/srv/{path}").startswith("keysync ")
    for prepare, kind in (
        ("mkdir $P; ln /srv/victim/.ssh/authorized_keys $P/lock", "state_dir_shared"),
        ("mkdir $P; ln -s /srv/victim/.ssh/authorized_keys $P/lock", "state_dir_shared"),
        ("mkdir $P; touch $P/lock; chown alice $P/lock", "state_dir_shared"),
        (
            "mkdir $P; touch /srv/2nd; chown keysync /srv/2nd; ln /srv/2nd $P/lock",
            "state_dir_shared",
        ),
        ("mkdir $P; touch $P/something", "state_dir_shared"),
        ("ln -s /srv/victim $P; chown -h alice $P", "symlink"),
        ("ln -s /srv/victim $P", "state_dir_shared"),
        ("mkdir $P; chown alice $P", "wrong_owner"),
    ):
        machine.run("sh", "-c", f"rm -rf /srv/odd; P=/srv/odd; {prepare}")
        assert _hand_over(machine, "/srv/odd") == kind, prepare
        assert _seen(machine) == before, prepare
    for path in ("/home/alice/state", "/home/alice/not/yet"):
        assert _hand_over(machine, path) == "wrong_owner"
        assert not machine.path(path).parent.joinpath("yet").exists()


def test_state_that_others_can_exchange_is_not_removed(machine: OwnMachine) -> None:
    """G8: names of keysync's in a folder that alice can lead elsewhere are not its files."""
    machine.run("sh", "-c", "mkdir -p /etc/keysync /home/alice/state; touch /home/alice/state/lock")
    machine.write(CONFIG, "state_dir: /home/alice/state\n")
    done = machine.run(PROGRAM, "uninstall", "--yes", exits=74)
    assert "others can put directories in its place" in done.text
    assert machine.path("/home/alice/state/lock").exists()
