"""The boot hook and the onstart script, run as the platform runs them."""

from __future__ import annotations

import re
import time

import pytest

from sandbox.console import Console
from tests.install.support import (
    API_KEY,
    CONFIG,
    ONSTART,
    PROGRAM,
    ROOTS_FILE,
    TAG,
    eventually,
    key_file,
    keysync,
    release_variables,
    set_key_file,
    variables,
)
from tests.support.machine import key_line
from tests.support.own_machine import OwnMachine

HOOK = "/etc/vast_boot.d/40-keysync.sh"
_HOOK_SECONDS = 45 + 10

# The provider's boot script in short: hooks are sourced, in order, with an ERR trap and nounset.
_BOOT = """\
#!/bin/bash
set -u
trap 'echo "ERR in $BASH_SOURCE" >>/boot.log' ERR
snapshot() {
    { set -o; shopt; trap; umask; declare -F; compgen -v | grep -Ev '^(BASH_|_$|RANDOM|SRANDOM)' \\
        | grep -Ev '^(SECONDS|EPOCH|LINENO|FUNCNAME|PIPESTATUS|when|script)'; pwd; } >"/$when.txt"
}
for script in /etc/vast_boot.d/[0-9][0-9]-*.sh; do
    case $script in *40-keysync.sh) when=before; snapshot ;; esac
    . "$script"
    case $script in *40-keysync.sh) when=after; snapshot ;; esac
done
echo complete >>/boot.log
"""
_MOVE_HOMES = """\
mkdir -p /home_ssh/root
mv /root/.ssh /home_ssh/root/.ssh
ln -s /home_ssh/root/.ssh /root/.ssh
echo 35 >>/boot.log
"""
_COPY_KEYS = """\
echo 46 >>/boot.log
cp /root/.ssh/authorized_keys /seen-by-46
"""


@pytest.fixture
def base_image(machine: OwnMachine, console: Console) -> OwnMachine:
    """A machine with the base image's boot, on which keysync was installed."""
    machine.write("/boot.sh", _BOOT, 0o755)
    machine.write("/etc/vast_boot.d/35-homes.sh", _MOVE_HOMES)
    machine.write("/etc/vast_boot.d/46-keys.sh", _COPY_KEYS)
    machine.write(CONFIG, f"api: {{url: '{console.url}', key_file: {API_KEY}}}\n")
    console.add_key(key_line("platform"))
    set_key_file(machine, f"{key_line('platform')}\n".encode())
    keysync(machine, "install", environment=variables(console))
    return machine


def test_the_boot_hook_syncs_between_35_and_46(base_image: OwnMachine, console: Console) -> None:
    """A boot sync comes after the homes have moved and before root's keys are copied to the users.
    Options, traps, variables, functions, umask and folder of the boot script are as they were.
    """
    console.add_key(key_line("added while off"))
    base_image.run("/boot.sh")
    assert base_image.path("/boot.log").read_text() == "35\n46\ncomplete\n"
    seen = base_image.path("/seen-by-46").read_bytes()
    assert key_line("added while off").encode() + b" " + TAG in seen
    before, after = (base_image.path(f"/{when}.txt").read_text() for when in ("before", "after"))
    assert after == before
    assert "snapshot" in before  # the comparison sees something


def test_an_unreachable_console_holds_the_boot_for_a_bounded_time(
    base_image: OwnMachine, console: Console
) -> None:
    """The hook waits for the API for 20 s, then the boot goes on; the keys stay."""
    console.fault = "outage"
    before = key_file(base_image)
    start = time.monotonic()
    base_image.run("/boot.sh")
    assert 15 < time.monotonic() - start < _HOOK_SECONDS
    assert base_image.path("/boot.log").read_text() == "35\n46\ncomplete\n"
    assert base_image.path("/seen-by-46").read_bytes() == before


def test_the_boot_hook_survives_a_missing_program(base_image: OwnMachine) -> None:
    """Somebody removed /opt/keysync by hand: the boot goes on, also under `set -e`."""
    base_image.run("rm", "-rf", "/opt/keysync")
    base_image.write("/boot.sh", _BOOT.replace("set -u", "set -eu"), 0o755)
    base_image.run("/boot.sh")
    assert base_image.path("/boot.log").read_text() == "35\n46\ncomplete\n"


def test_the_boot_hook_survives_a_failed_sync(base_image: OwnMachine) -> None:
    """A wrong configuration ends the sync with 78, not the boot, also under `set -e`."""
    base_image.write(CONFIG, "nonsense: true\n")
    base_image.write("/boot.sh", _BOOT.replace("set -u", "set -eu"), 0o755)
    done = base_image.run("/boot.sh")
    assert 'unknown option "nonsense"' in done.stderr
    assert base_image.path("/boot.log").read_text() == "35\n46\ncomplete\n"


# ---- onstart ----


def _agents(machine: OwnMachine) -> list[str]:
    listed = machine.run("ps", "-eo", "pid,stat,args").stdout.splitlines()
    return [
        line.split()[0]
        for line in listed
        if re.search(r"/opt/keysync/bin/python3? -I -m agent run$", line) and " Z" not in line
    ]


def test_onstart_fits_the_platform() -> None:
    """The platform's documents disagree about the limit; 4,048 characters is the lowest."""
    assert len(ONSTART.read_text()) < 4048


def test_onstart_never_fails_the_start_and_follows_the_console(
    bare: OwnMachine, console: Console
) -> None:
    """With neither systemd nor supervisor. What goes wrong is said, the exit code stays 0, and the
    next start, with that put right, ends in an agent that follows the console and is started again
    when it is killed. One more start leaves one agent; uninstall leaves none.
    """
    done = bare.run("sh", "/root/onstart.sh")
    assert "KEYSYNC_SOURCE or KEYSYNC_SHA256 is not set" in done.stdout
    release = release_variables(bare)
    template = variables(console) | release | {"KEYSYNC_SOURCE": "/tmp/nothing.whl"}
    done = bare.run("sh", "/root/onstart.sh", environment=template)
    assert "could not be installed" in done.stdout
    assert not bare.path(PROGRAM).exists()
    assert not bare.path(ROOTS_FILE).exists()
    template["KEYSYNC_SOURCE"] = "file://SECRET:p@ss@nowhere/keysync.whl"
    done = bare.run("sh", "/root/onstart.sh", environment=template)
    assert "keysync: installing nowhere/keysync.whl\n" in done.stdout
    assert not re.search("SECRET|p@ss|ss@", done.stdout)

    console.add_key(key_line("platform"))
    template |= release
    api = f"{{url: '{console.url}', key_file: {API_KEY}}}"
    bare.write(CONFIG, f"api: {api}\npoll: {{interval: 1s, jitter: 0s}}\n")
    done = bare.run("sh", "/root/onstart.sh", environment=template)
    assert "keysync: starting the agent;" in done.stdout
    eventually(lambda: _agents(bare), "the agent runs")
    console.add_key(key_line("laptop"))
    eventually(lambda: b"laptop" in key_file(bare), "the agent follows the console")

    done = bare.run("bash", "/root/onstart.sh", environment=template)
    assert "keysync: the agent is already running;" in done.stdout
    [agent] = _agents(bare)
    bare.run("kill", "-KILL", agent)
    eventually(lambda: _agents(bare) not in ([], [agent]), "the killed agent is started again")

    keysync(bare, "uninstall", "--yes")
    eventually(lambda: "keysync run" not in bare.run("ps", "-eo", "args").stdout, "the loop ended")
