"""Which files sshd reads for a user: asked from a real sshd with configurations of our own."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.adapters.sshd import KeyFiles, key_files
from sandbox.console import Console
from tests.adapters.support import FOREIGN_KEY, KEY, MANAGED, User, needs_root, target
from tests.support.machine import TAG, Machine, key_line

REAL = "/usr/sbin/sshd"
DEFAULT = (".ssh/authorized_keys",)

Ask = Callable[[str], KeyFiles]

_WHY = "needs root and sshd: only root reads sshd's effective configuration"
needs_sshd = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(REAL), reason=_WHY)


@pytest.fixture
def me() -> pwd.struct_passwd:
    """Somebody whose id is not that of the name, so that every token shows."""
    found = pwd.getpwuid(os.geteuid())
    return pwd.struct_passwd((found.pw_name, "x", 4321, 4321, "", "/home/of me", "/bin/sh"))


@pytest.fixture
def ask(tmp_path: Path, me: pwd.struct_passwd) -> Ask:
    """Asks the real sshd, found first in the search path, about a configuration."""

    def asked(configuration: str) -> KeyFiles:
        (tmp_path / "sshd_config").write_text(configuration)
        script = tmp_path / "sshd"
        script.write_text(f'#!/bin/sh\nexec {REAL} "$@" -f {tmp_path}/sshd_config\n')
        script.chmod(0o755)
        return key_files(me, search=str(tmp_path))

    return asked


@needs_sshd
@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (".ssh/authorized_keys", ["/home/of me/.ssh/authorized_keys"]),
        ("%h/.ssh/keys", ["/home/of me/.ssh/keys"]),
        ("/etc/ssh/keys/%u", ["/etc/ssh/keys/root"]),
        ("/etc/ssh/keys/%U", ["/etc/ssh/keys/4321"]),
        ("/etc/100%%/%u", ["/etc/100%/root"]),
        ("/etc/%%u", ["/etc/%u"]),
        ("a /b c", ["/home/of me/a", "/b", "/home/of me/c"]),
        ("a %h/a", ["/home/of me/a"]),
        ("none", []),
        ("NONE", []),
    ],
)
def test_tokens_and_relative_paths(ask: Ask, value: str, paths: list[str]) -> None:
    """sshd_config(5), AuthorizedKeysFile and TOKENS; in sshd's order, each file once."""
    assert ask(f"AuthorizedKeysFile {value}\n") == KeyFiles(tuple(paths), "sshd")


@needs_sshd
def test_sshds_own_default(ask: Ask) -> None:
    """An empty configuration: two files in the home."""
    folder = "/home/of me/.ssh"
    assert ask("").paths == (f"{folder}/authorized_keys", f"{folder}/authorized_keys2")


@needs_sshd
@pytest.mark.parametrize(
    "match", ["User root", "LocalPort 22", "Address 127.0.0.1", "Host localhost", "All"]
)
def test_match_blocks_are_heeded(ask: Ask, match: str) -> None:
    """testbed: what sshd would read for this very user, and a LocalPort must not fail."""
    found = ask(f"AuthorizedKeysFile other\nMatch {match}\n  AuthorizedKeysFile /mine/%u\n")
    assert found.paths == ("/mine/root",)
    found = ask("AuthorizedKeysFile /mine/%u\nMatch User nobody\n  AuthorizedKeysFile other\n")
    assert found.paths == ("/mine/root",)


def _in(me: pwd.struct_passwd) -> tuple[str, ...]:
    return tuple(f"{me.pw_dir}/{path}" for path in DEFAULT)


@needs_sshd
def test_a_configuration_that_sshd_refuses(ask: Ask, me: pwd.struct_passwd) -> None:
    """Targets: sshd's default is assumed, and why is said in sshd's words."""
    found = ask("NoSuchOption yes\n")
    assert (found.paths, found.source) == (_in(me), "default")
    assert found.problem is not None
    assert "sshd -T failed" in found.problem
    assert "sshd_config" in found.problem


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "sshd -T failed: 3"),
        ("echo 'sshd: no hostkeys available -- exiting.' >&2; exit 1", "no hostkeys available"),
        ("echo port 22", "names no authorizedkeysfile"),
        ("exec sleep 60", "timed out"),
        ("kill -9 $$", "sshd -T failed"),
        ("head -c 100000 /dev/zero", "names no authorizedkeysfile"),
    ],
)
def test_an_sshd_that_does_not_answer(
    tmp_path: Path, me: pwd.struct_passwd, script: str, words: str
) -> None:
    """Whatever goes wrong, sshd's default is assumed with the reason; nothing hangs."""
    program = tmp_path / "sshd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    found = key_files(me, search=str(tmp_path))
    assert (found.paths, found.source) == (_in(me), "default")
    assert words in str(found.problem)


def test_no_sshd_at_all(tmp_path: Path, me: pwd.struct_passwd) -> None:
    """§8: a machine without sshd is told so, and gets the usual path."""
    assert key_files(me, search=str(tmp_path)) == KeyFiles(
        _in(me), "default", "no sshd is installed"
    )


# ---- several files ----


@pytest.fixture
def two_files(machine: Machine, user: User) -> Machine:
    """A target without a path, on a machine whose sshd reads two files for the user."""
    found = key_files(pwd.getpwnam(user.name)).paths
    if found != (f"{user.keys}", f"{user.keys}2"):
        pytest.skip(reason=f"this machine's sshd does not read its default files but {found}")
    user.make_ssh()
    machine.configure(targets=target(user.name))
    return machine


def _write_second(user: User, data: bytes) -> Path:
    path = user.ssh / "authorized_keys2"
    path.write_bytes(data)
    path.chmod(0o600)
    user.give(path)
    return path


@needs_root
def test_a_revoked_key_goes_from_the_second_file_too(
    two_files: Machine, console: Console, user: User
) -> None:
    """R5 holds for every file that sshd reads; keys are added to the first one only (R1)."""
    key_id = console.add_key(key_line("gone"))
    gone = key_line("gone").encode()
    second = _write_second(user, FOREIGN_KEY + b"\n" + gone + b"\n")
    assert two_files.here("sync").code == 0
    assert user.keys.read_bytes() == MANAGED + gone + f" {TAG}\n".encode()
    assert second.read_bytes() == FOREIGN_KEY + b"\n" + gone + f" {TAG}\n".encode()
    console.delete_key(key_id)
    assert two_files.here("sync").code == 0
    assert user.keys.read_bytes() == MANAGED
    assert second.read_bytes() == FOREIGN_KEY + b"\n"
    with second.open("ab") as file:
        file.write(gone + b"\n")
    assert two_files.here("sync").code == 0
    assert second.read_bytes() == FOREIGN_KEY + b"\n"


@needs_root
def test_a_second_file_is_not_made(two_files: Machine, user: User) -> None:
    """R1: where there is none, there is still none."""
    assert two_files.here("sync").code == 0
    assert os.listdir(user.ssh) == ["authorized_keys"]


@needs_root
def test_a_restricted_line_in_the_second_file_is_not_undercut(
    two_files: Machine, user: User
) -> None:
    """R4: sshd would take an unrestricted line in the first file before it comes to this one."""
    line = b'restrict,command="true" ' + KEY + b"\n"
    user.write_keys(FOREIGN_KEY + b"\n" + KEY + b"\n")
    second = _write_second(user, line)
    assert two_files.here("sync", "--confirm-removals").code == 0
    assert user.keys.read_bytes() == FOREIGN_KEY + b"\n"
    assert second.read_bytes() == line


@needs_root
def test_a_second_file_that_cannot_be_read_is_not_passed_over(
    two_files: Machine, user: User
) -> None:
    """R5, R10, R11: a key could live on in it, so the sync is no success; the first is served."""
    os.mkfifo(user.ssh / "authorized_keys2")
    done = two_files.here("sync", "--json")
    assert done.code == 74
    results = {found["path"]: found["result"] for found in done.json["targets"]}
    assert results == {f"{user.keys}": "changed", f"{user.keys}2": "failed"}
    assert user.keys.read_bytes() == MANAGED
