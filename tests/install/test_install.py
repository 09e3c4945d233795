"""`keysync install` on a machine of its own, from the built wheel."""

from __future__ import annotations

import json
import re
import stat

import pytest
import yaml

from sandbox.console import Console
from tests.install.support import (
    API_KEY,
    CONFIG,
    PROGRAM,
    STATE,
    TAG,
    key_file,
    keysync,
    set_key_file,
    tree,
    variables,
)
from tests.support.machine import key_line
from tests.support.own_machine import OwnMachine

LINK = "/usr/local/bin/keysync"
# Does the steps of a machine with systemd up to the first sync, without the systemd.
_PREPARE_SYSTEMD = """
import os
from agent.setup.host import Host
from agent.setup.install import plan_install
from agent.setup.layout import find_layout
from agent.setup.systemd import Systemd
program = "/opt/keysync/bin/keysync"
machine = Host(Systemd(program), True, False, program)
for step in plan_install(machine, find_layout(), os.environ).prepare:
    print(step.text)
    step.do()
"""


def _mode(machine: OwnMachine, path: str) -> tuple[int, int]:
    status = machine.path(path).stat()
    return stat.S_IMODE(status.st_mode), status.st_uid


def test_a_bare_machine_is_set_up_and_synced(machine: OwnMachine, console: Console) -> None:
    """Configuration: API key, configuration and link are placed, each with its mode whatever
    the umask, the first sync is done, and its result is the exit code.
    """
    console.add_key(key_line("laptop"))
    command = f"umask 000; {PROGRAM} install"
    done = machine.run("sh", "-c", command, environment=variables(console))
    assert key_file(machine).endswith(b"laptop " + TAG + b"\n")
    assert _mode(machine, API_KEY) == (0o600, 0)
    assert machine.path(API_KEY).read_text() == console.api_key + "\n"
    assert _mode(machine, CONFIG) == (0o644, 0)
    assert _mode(machine, "/etc/keysync") == (0o755, 0)
    assert _mode(machine, STATE) == (0o700, 0)
    assert str(machine.path(LINK).readlink()) == PROGRAM
    assert console.api_key not in done.text
    assert f"{PROGRAM} run" in done.stdout  # nothing keeps a service here, so it says what to start
    keysync(machine, "sync")  # without any variable: all that is needed is on the disk


def test_a_second_run_changes_nothing(machine: OwnMachine, console: Console) -> None:
    """Safe to repeat: no file is written anew, and nothing is announced as done."""
    console.add_key(key_line("laptop"))
    keysync(machine, "install", environment=variables(console))
    before = tree(machine, "/etc/keysync", "/root/.ssh", "/usr/local/bin")
    done = keysync(machine, "install", environment=variables(console))
    assert tree(machine, "/etc/keysync", "/root/.ssh", "/usr/local/bin") == before
    assert not re.search(r"(?m)^- ", done.stdout)


def test_an_upgrade_keeps_configuration_and_key(machine: OwnMachine, console: Console) -> None:
    """What a person wrote is kept, also when the environment offers another API key."""
    console.add_key(key_line("laptop"))
    written = f"api: {{url: '{console.url}', key_file: {API_KEY}}}\npoll: {{interval: 7s}}\n"
    machine.write(CONFIG, written)
    machine.write(API_KEY, console.api_key, 0o600)
    keysync(machine, "install", environment={"VAST_API_KEY": "another-key-never-looked-at"})
    assert machine.path(CONFIG).read_text() == written
    assert machine.path(API_KEY).read_text() == console.api_key


def test_the_copied_key_is_used_without_an_option(machine: OwnMachine, console: Console) -> None:
    """API key: a configuration without api.key_file finds the copy that install makes."""
    console.add_key(key_line("laptop"))
    machine.write(CONFIG, f"api: {{url: '{console.url}'}}\n")
    keysync(machine, "install", environment={"VAST_API_KEY": console.api_key})
    assert f"{API_KEY}" in keysync(machine, "config", "show").stdout
    keysync(machine, "sync")


def test_a_dry_run_changes_nothing(machine: OwnMachine, console: Console) -> None:
    """`--dry-run` shows the steps and what the first sync would do."""
    console.add_key(key_line("laptop"))
    before = tree(machine, "/etc/keysync", "/root/.ssh", "/usr/local/bin", STATE)
    done = keysync(machine, "install", "--dry-run", environment=variables(console))
    assert tree(machine, "/etc/keysync", "/root/.ssh", "/usr/local/bin", STATE) == before
    assert f"would write {CONFIG}\n" in done.stdout
    assert "would be added" in done.stdout


def test_a_dry_run_uses_the_key_that_is_in_place(machine: OwnMachine, console: Console) -> None:
    """As the README tells: the API key is put in place first, and then a dry run is made."""
    console.add_key(key_line("laptop"))
    machine.write(API_KEY, console.api_key, 0o600)
    done = keysync(machine, "install", "--dry-run", environment={"VAST_URL": console.url})
    assert "would be added" in done.stdout


def test_users_with_the_accounts_keys_become_targets(machine: OwnMachine, console: Console) -> None:
    """A new configuration says `targets: auto`, so root and the users whose file holds one of
    the account's keys are served, and nobody else; `status` names each of them.
    """
    for user in ("copied", "stranger", "empty"):
        machine.run("useradd", "-m", user)
    console.add_key(key_line("platform"))
    set_key_file(machine, f"{key_line('platform')}\n".encode())
    set_key_file(machine, f"# by hook 46\n{key_line('platform')}\n".encode(), "copied")
    set_key_file(machine, f"{key_line('of a friend')}\n".encode(), "stranger")
    done = keysync(machine, "install", environment=variables(console))
    assert done.stdout.splitlines()[-1] == "OK: keysync is set up, and the key files are in sync."
    assert yaml.safe_load(machine.path(CONFIG).read_text())["targets"] == "auto"
    assert TAG in key_file(machine, "copied")
    assert TAG not in key_file(machine, "stranger")
    targets = json.loads(keysync(machine, "status", "--json").stdout)["targets"]
    assert [(one["user"], one["origin"]) for one in targets] == [
        ("root", "auto"),
        ("copied", "auto"),
    ]


def test_without_an_api_key_it_says_what_to_do(machine: OwnMachine, console: Console) -> None:
    """An empty file of mode 0600 waits for the key, the exit code is 77, and the way is told; with
    the key in it the next run is well.
    """
    console.add_key(key_line("laptop"))
    done = keysync(machine, "install", exits=77, environment={"VAST_URL": console.url})
    assert (machine.path(API_KEY).read_bytes(), _mode(machine, API_KEY)) == (b"", (0o600, 0))
    assert "user_read" in done.stdout
    assert f"cat >{API_KEY}" in done.stdout
    assert "nano" not in done.stdout
    assert "PROBLEM: keysync is set up, but not in sync: " in done.stdout.splitlines()[-1]
    keysync(machine, "install", environment=variables(console))
    assert machine.path(API_KEY).read_text() == console.api_key + "\n"


def test_a_key_file_that_others_can_read_is_not_taken_over(
    machine: OwnMachine, console: Console
) -> None:
    """API key: the chmod that mends it is told."""
    machine.write("/root/.vast_api_key", console.api_key, 0o644)
    done = keysync(machine, "install", exits=77, environment={"VAST_URL": console.url})
    assert "can be read or written by others" in done.stdout
    assert machine.path(API_KEY).read_bytes() == b""


def test_a_failed_first_sync_is_the_exit_code(machine: OwnMachine, console: Console) -> None:
    """The machine is set up all the same, and the agent can go on trying."""
    console.fault = "outage"
    keysync(machine, "install", exits=75, environment=variables(console))
    assert machine.names("/etc/keysync") == {"config.yaml", "api_key"}


def test_a_step_that_fails_ends_the_run(machine: OwnMachine, console: Console) -> None:
    """Exit code 74, what failed and why, and no later step."""
    machine.write("/etc/keysync", "a file in the way")
    done = keysync(machine, "install", exits=74, environment=variables(console))
    assert "This step failed" in done.stderr
    assert "/etc/keysync" in done.stderr
    assert not machine.path(LINK).is_symlink()


def test_another_configuration_is_refused(machine: OwnMachine) -> None:
    """The service reads one place only, so install does not pretend otherwise."""
    done = keysync(machine, "--config", "/root/mine.yaml", "install", exits=78)
    assert CONFIG in done.stderr


def test_the_units_are_made_for_this_machine(machine: OwnMachine, console: Console) -> None:
    """Under systemd there is an account that can log in nowhere, it owns the state, the units start
    this program, and a drop-in opens the folders of targets outside the homes.
    """
    machine.run("mkdir", "-p", "/srv/keys of bob/.ssh")
    target = "/srv/keys of bob/.ssh/authorized_keys"
    machine.write(
        CONFIG,
        f"api: {{key_file: {API_KEY}}}\n"
        f"targets: [{{user: root}}, {{user: root, path: '{target}'}}]\n",
    )
    machine.run("mkdir", "-m755", STATE)
    machine.write(f"{STATE}/state.json", "{}", 0o600)
    script = ("/opt/keysync/bin/python", "-c", _PREPARE_SYSTEMD)
    machine.run(*script, environment=variables(console))
    account = machine.run("getent", "passwd", "keysync").stdout.strip().split(":")
    assert account[5:] == ["/nonexistent", "/usr/sbin/nologin"]
    assert _mode(machine, STATE) == (0o700, int(account[2]))
    assert _mode(machine, f"{STATE}/state.json") == (0o600, int(account[2]))
    for unit, command in (("keysync", "run"), ("keysync-boot", "sync --wait 20")):
        text = machine.path(f"/etc/systemd/system/{unit}.service").read_text()
        assert re.search(rf"(?m)^ExecStart=-?{PROGRAM} {command}$", text)
        more = machine.path(f"/etc/systemd/system/{unit}.service.d/targets.conf").read_text()
        assert more.endswith('[Service]\nReadWritePaths="-/srv/keys of bob/.ssh"\n')
    machine.write(CONFIG, f"api: {{key_file: {API_KEY}}}\n")
    again = machine.run(*script, environment=variables(console)).stdout.splitlines()
    assert again == [
        f"remove /etc/systemd/system/{unit}.service.d/targets.conf"
        for unit in ("keysync", "keysync-boot")
    ]


def test_homes_elsewhere_are_open_to_the_sandbox(machine: OwnMachine, console: Console) -> None:
    """With `targets: auto` an account whose home is not below /home may become a target later, so
    the sandbox lets the service write there from the start.
    """
    machine.run("useradd", "-m", "-d", "/data/far", "far")
    script = ("/opt/keysync/bin/python", "-c", _PREPARE_SYSTEMD)
    machine.run(*script, environment=variables(console))
    text = machine.path("/etc/systemd/system/keysync.service.d/targets.conf").read_text()
    assert re.findall(r"(?m)^ReadWritePaths=(.*)$", text) == ['"-/data/far"']


_FAKE_SYSTEMCTL = """#!/bin/sh
case "$*" in
*ActiveState*) echo {state} ;;
*StatusText*) echo '{words}' ;;
esac
"""


@pytest.mark.parametrize(
    ("state", "words", "well"),
    [
        ("active", "in sync: 1 listed key, 1 key file; next poll in 31 s", True),
        ("active", "failed: sshd could not be asked; next poll in 31 s", False),
        ("activating", "", False),
    ],
)
def test_a_service_that_fails_is_the_exit_code(
    machine: OwnMachine, console: Console, state: str, words: str, well: bool
) -> None:
    """Incident 13: the first sync went well, and the service it started reports a failure: install
    ends non-zero, with the reason, what to do, and one verdict line.
    """
    console.add_key(key_line("laptop"))
    machine.run("mkdir", "-p", "/run/systemd/system")
    machine.write(
        "/usr/local/sbin/systemctl", _FAKE_SYSTEMCTL.format(state=state, words=words), 0o755
    )
    done = keysync(machine, "install", exits=None, environment=variables(console))
    assert (done.code == 0) == well, done.text
    verdict = "OK: keysync is set up" if well else "PROBLEM: the service reports a failure: "
    assert f"\n{verdict}" in done.stdout
    if not well:
        assert f"keysync.service is {state}: {words}" in done.stdout
        assert "journalctl -u keysync.service" in done.stdout.splitlines()[-1]


def test_no_users_link_opens_the_sandbox(machine: OwnMachine, console: Console) -> None:
    """G8: a folder that an unprivileged user's own link leads to never becomes writable, nor does
    the one above it when the link leads nowhere; for a folder yet to be made it is the home.
    """
    targets = []
    for user, link in (("astray", "/doesnotexist"), ("greedy", "/etc"), ("plain", None)):
        machine.run("useradd", "-m", "-d", f"/data/{user}", user)
        if link is not None:
            machine.run("ln", "-s", link, f"/data/{user}/.ssh")
            machine.run("chown", "-h", user, f"/data/{user}/.ssh")
        targets.append(f"{{user: {user}, path: /data/{user}/.ssh/authorized_keys}}")
    targets.append("{user: root, path: /missing/authorized_keys}")
    machine.write(CONFIG, f"api: {{key_file: {API_KEY}}}\ntargets: [{', '.join(targets)}]\n")
    script = ("/opt/keysync/bin/python", "-c", _PREPARE_SYSTEMD)
    machine.run(*script, environment=variables(console))
    text = machine.path("/etc/systemd/system/keysync.service.d/targets.conf").read_text()
    assert re.findall(r"(?m)^ReadWritePaths=(.*)$", text) == ['"-/data/plain"']


def test_a_shared_folder_is_not_given_to_the_account(machine: OwnMachine, console: Console) -> None:
    """With a state_dir that holds what others put there, nothing in it and not itself changes."""
    machine.write("/srv/shared/precious", "mine")
    machine.write(CONFIG, f"api: {{key_file: {API_KEY}}}\nstate_dir: /srv/shared\n")
    before = tree(machine, "/srv/shared")
    script = ("/opt/keysync/bin/python", "-c", _PREPARE_SYSTEMD)
    done = machine.run(*script, exits=1, environment=variables(console))
    assert "/srv/shared cannot be given to the account keysync" in done.stderr
    assert tree(machine, "/srv/shared") == before
    assert _mode(machine, "/srv/shared/precious")[1] == _mode(machine, "/srv/shared")[1] == 0


def test_a_persons_account_is_not_the_services(machine: OwnMachine, console: Console) -> None:
    """A user who happens to be called keysync does not get the power over all key files."""
    machine.run("useradd", "-m", "keysync")
    script = ("/opt/keysync/bin/python", "-c", _PREPARE_SYSTEMD)
    done = machine.run(*script, exits=1, environment=variables(console))
    assert "The user keysync is a person's" in done.stderr
    assert not machine.names("/etc/keysync")


def test_a_program_that_the_service_cannot_reach_is_refused(
    machine: OwnMachine, console: Console
) -> None:
    """The service runs as an account of its own: below a closed folder it could not start."""
    machine.run("chmod", "700", "/opt/keysync")
    script = ("/opt/keysync/bin/python", "-c", _PREPARE_SYSTEMD)
    done = machine.run(*script, exits=1, environment=variables(console))
    assert "the folder /opt/keysync is closed to others" in done.stderr
    assert not machine.names("/etc/keysync")


def test_an_ordinary_user_gets_an_installation_of_their_own(
    machine: OwnMachine, console: Console
) -> None:
    """Not as root: configuration, key and state are in the home, the target is that user."""
    machine.run("useradd", "-m", "alice")
    console.add_key(key_line("laptop"))
    done = keysync(machine, "install", user="alice", environment=variables(console))
    assert key_file(machine, "alice").endswith(TAG + b"\n")
    home = "/home/alice"
    assert machine.names(f"{home}/.config/keysync") == {"config.yaml", "api_key"}
    assert "state.json" in machine.names(f"{home}/.local/state/keysync")
    assert not machine.names("/etc/keysync")
    assert f"{PROGRAM} --config {home}/.config/keysync/config.yaml run" in done.stdout
    keysync(machine, "uninstall", "--yes", "--restore-original", "--allow-lockout", user="alice")
    assert machine.names(f"{home}/.ssh") == set()
    assert not machine.names(f"{home}/.config/keysync")


def test_a_later_address_is_said_not_written(machine: OwnMachine, console: Console) -> None:
    """A VAST_URL that the configuration does not hold reaches the first sync alone: install says so
    loudly and leaves a person's file as it is.
    """
    console.add_key(key_line("laptop"))
    machine.write(CONFIG, f"api: {{key_file: {API_KEY}}}\n")
    done = keysync(machine, "install", environment=variables(console))
    assert "VAST_URL is not in the configuration" in done.stdout
    assert f"  url: {console.url}\n" in done.stdout
    assert machine.path(CONFIG).read_text() == f"api: {{key_file: {API_KEY}}}\n"
    machine.write(CONFIG, f"api: {{url: '{console.url}', key_file: {API_KEY}}}\n")
    again = keysync(machine, "install", environment=variables(console))
    assert "VAST_URL" not in again.stdout
