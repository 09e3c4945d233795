"""Restricted lines in files that are no target, beside a target that gives a path (R4)."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.sshd_config import Sshd
from agent.config import Target
from agent.core.desired_keys import DesiredKeys
from agent.service.locate import KeyFileLocation, locate
from agent.service.user_sync import restricted_beside
from sandbox.users import current_user, temporary_user
from tests.adapters.support import needs_root
from tests.core.support import ed25519

KEY, OTHER = ed25519(0), ed25519(1)
RESTRICTED = b'command="/bin/backup" ' + KEY.line() + b"\n"
WANTED = DesiredKeys({}, {})
_SSHD = """#!/bin/sh
touch {folder}/asked
echo "authorizedkeysfile {files}"
"""


@dataclass
class Home:
    """A user's folder, and an sshd that says what it reads and leaves a trace when it is asked."""

    folder: Path

    def __post_init__(self) -> None:
        self.default = self.folder / "authorized_keys"
        owner = Owner(os.geteuid(), os.getegid(), str(self.folder))
        target = str(self.folder / "named")
        self.location = KeyFileLocation(current_user(), target, owner, beside=(str(self.default),))

    def write(self, data: bytes) -> None:
        self.default.write_bytes(data)
        self.default.chmod(0o600)

    def sshd(self, files: object) -> Sshd:
        binary = self.folder / "sshd"
        binary.write_text(_SSHD.format(folder=self.folder, files=files))
        binary.chmod(0o755)
        return Sshd(f"{self.folder}:{os.environ['PATH']}")

    @property
    def was_asked(self) -> bool:
        return (self.folder / "asked").exists()

    def restricted(self, sshd: Sshd, *served: str) -> frozenset[bytes]:
        return restricted_beside([self.location], (self.location.path, *served), WANTED, sshd)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    tmp_path.chmod(0o700)
    return Home(tmp_path)


def test_a_target_with_a_path_has_the_default_files_beside_it() -> None:
    """R4: sshd reads these where it is not configured otherwise."""
    [location] = locate(Target(current_user(), "/etc/keys"), Sshd("/nowhere"))
    folder = pwd.getpwnam(current_user()).pw_dir + "/.ssh"
    assert location.beside == (f"{folder}/authorized_keys", f"{folder}/authorized_keys2")


def test_a_restriction_counts_where_sshd_reads_it(home: Home) -> None:
    """R4: sshd says so itself."""
    home.write(RESTRICTED + OTHER.line() + b"\n")
    assert home.restricted(home.sshd(f"/etc/keys {home.default}")) == {KEY.blob}


def test_a_restriction_that_sshd_does_not_read_counts_for_nothing(home: Home) -> None:
    """R1: a line that an image left behind keeps no listed key out."""
    home.write(RESTRICTED)
    assert home.restricted(home.sshd("/etc/keys")) == frozenset()


@needs_root
def test_where_sshd_cannot_be_asked_the_default_files_count(tmp_path: Path) -> None:
    """R4: a target with a path needs no sshd, and a restriction is not undercut for that."""
    with temporary_user() as name:
        account = pwd.getpwnam(name)
        folder = Path(account.pw_dir, ".ssh")
        folder.mkdir(mode=0o700)
        (folder / "authorized_keys2").write_bytes(RESTRICTED)
        for path in (folder, folder / "authorized_keys2"):
            os.chown(path, account.pw_uid, account.pw_gid)
        places = locate(Target(name, "/etc/keys"), Sshd(str(tmp_path)))
        found = restricted_beside(places, ["/etc/keys"], WANTED, Sshd(str(tmp_path)))
        assert found == {KEY.blob}


@pytest.mark.parametrize("data", [b"", KEY.line() + b"\n", None])
def test_sshd_is_not_asked_without_need(home: Home, data: bytes | None) -> None:
    """Configuration: a target with a path needs no sshd."""
    if data is not None:
        home.write(data)
    assert home.restricted(home.sshd(home.default)) == frozenset()
    assert not home.was_asked


def test_a_served_file_is_not_read_once_more(home: Home) -> None:
    """Configuration: its restrictions count anyway, and sshd is not asked; also by another name."""
    home.write(RESTRICTED)
    (home.folder / "link").symlink_to(home.default)
    assert home.restricted(home.sshd(home.default), str(home.folder / "link")) == frozenset()
    assert not home.was_asked


def test_a_file_that_cannot_be_read_is_passed_over(home: Home) -> None:
    """R11: it is no target, and no failure."""
    home.default.mkdir()
    assert home.restricted(home.sshd(home.default)) == frozenset()


def test_a_user_who_is_gone(home: Home) -> None:
    """R11: the account may be removed while the cycle runs."""
    home.write(RESTRICTED)
    home.location = replace(home.location, user="nobody-of-this-name")
    assert home.restricted(home.sshd(home.default)) == frozenset()
