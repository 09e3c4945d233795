"""Which paths keysync touches where others than root may write: every one has its attack (G8)."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.adapters.support import needs_strace
from tests.install.support import CONFIG, PROGRAM, set_key_file, variables
from tests.support.machine import REPOSITORY, key_line
from tests.support.own_machine import OwnMachine, open_workshop

pytestmark = [
    pytest.mark.attack,
    needs_strace,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a machine of its own"),
]
TRACE = "/run/trace"  # root's alone
# Each path, and the test in this folder in which a user plants things there or swaps them.
COVERED = {
    "~/.ssh": "test_paths: folder",
    "~/.ssh/authorized_keys": "test_paths: key file",
    "~/.ssh/authorized_keys2": "test_paths: the second file",
    "~/.ssh/.authorized_keys.keysync-*": "test_paths: temporary file",
    "~/.ssh/.authorized_keys2.keysync-*": "test_paths: the same as of the first file",
    "~/..ssh.keysync-*": "test_paths: temporary folder",
    "~/.config": "test_paths_own: API key",
    "~/.vast_api_key": "test_paths_own: API key",
}
_NONE: Mapping[str, str] = {}
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_RANDOM = re.compile(r"-[0-9a-f]{16}")


@pytest.fixture(scope="module")
def machine() -> Iterator[OwnMachine]:
    with open_workshop() as workshop, workshop.machine() as machine:
        machine.install_checkout()
        machine.path("/run/sshd").mkdir(mode=0o755)
        for name in ("alice", "bob"):
            machine.run("useradd", "-m", "-p", "*", name)
        yield machine


@pytest.fixture(scope="module")
def touched(machine: OwnMachine) -> dict[str, set[str]]:
    """What each command names in its system calls; the commands come in the order of a life."""
    found: dict[str, set[str]] = {}

    def traced(*words: str, exits: int = 0, environment: Mapping[str, str] = _NONE) -> None:
        strace = ("strace", "-f", "-y", "-s", "4096", "-e", "trace=%file", "-o", TRACE)
        machine.run(*strace, *words, exits=exits, environment=environment)
        text = machine.path(TRACE).read_text(errors="surrogateescape")
        found.setdefault(words[-1], set()).update(_paths(text))

    with Console() as console:
        platform = console.add_key(key_line("platform"))
        for name in ("root", "alice"):
            set_key_file(machine, key_line("platform").encode() + b"\n", name)
        traced(PROGRAM, "install", environment=variables(console))
        config = machine.path(CONFIG)
        users = "".join(f"  - user: {name}\n" for name in ("root", "alice", "bob"))
        # bob has no folder yet
        config.write_text(config.read_text().replace("targets: auto", "targets:\n" + users))
        traced(PROGRAM, "sync")
        console.add_key(key_line("laptop"))
        console.delete_key(platform)
        machine.run("cp", "/home/alice/.ssh/authorized_keys", "/home/alice/.ssh/authorized_keys2")
        machine.run("chown", "alice", "/home/alice/.ssh/authorized_keys2")
        for words in (["sync"], ["status"], ["original", "root"], ["sync", "--dry-run"]):
            traced(PROGRAM, *words)
        # In the foreground: otherwise the agent gets SIGTERM twice, and the second ends it.
        traced("timeout", "--foreground", "--preserve-status", "-s", "TERM", "3", PROGRAM, "run")
        config.write_text(re.sub("  key_file: .*\n", "  timeout: 5s\n", config.read_text()))
        machine.path("/etc/keysync/api_key").unlink()
        # As sudo with a kept HOME would start it.
        traced(PROGRAM, "sync", exits=77, environment={"HOME": "/home/alice"})
        traced(PROGRAM, "uninstall", "--yes", "--restore-original", "--allow-lockout")
    return found


def _paths(trace: str) -> Iterator[str]:
    for line in trace.splitlines():
        if "execve(" not in line:
            for folder, path in _PATH.findall(line.partition(") = ")[0]):
                named = os.path.normpath(os.path.join(folder or "/", path))
                if not Path(named).is_relative_to(REPOSITORY):  # code, wherever the checkout is
                    yield named


def _others_may_write(machine: OwnMachine, path: str) -> bool:
    """Whether anybody but root could put something under this name."""
    folder = "/"
    for name in path.split("/")[1:]:
        try:
            status = machine.path(folder).lstat()
        except OSError:
            return False  # nothing there: a folder above it would have to be made first
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(status.st_mode)
        if status.st_uid != 0 or others:
            return True
        folder = os.path.join(folder, name)
    return False


def test_each_path_that_a_user_controls_is_attacked(
    machine: OwnMachine, touched: dict[str, set[str]]
) -> None:
    """G8: a path that keysync begins to touch fails this until somebody has attacked it."""
    paths = set().union(*touched.values())
    assert "/root/.ssh/authorized_keys" in paths  # the trace sees what it should
    homes = "|".join(sorted({re.escape(user.pw_dir) for user in pwd.getpwall()} - {"/"}))
    controlled = {  # the key files of every account are looked for (targets: auto)
        re.sub(f"^(/home/[^/]+|{homes})/", "~/", _RANDOM.sub("-*", path))
        for path in paths
        if not path.startswith(("/proc/", "/dev/"))
        and not f"{REPOSITORY}/".startswith(f"{path}/")  # a clone below /tmp
        and _others_may_write(machine, path)
    }
    assert controlled == COVERED.keys()


@pytest.mark.parametrize("command", ["install", "sync", "status", "root", "--dry-run", "run"])
def test_each_command_was_traced(touched: dict[str, set[str]], command: str) -> None:
    """The list above holds nothing when a trace is empty."""
    assert CONFIG in touched[command]
