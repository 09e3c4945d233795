"""Which accounts are targets, found among the users of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.sshd_config import Sshd
from agent.config import Config, Target
from agent.core.known_keys import KnownKey
from agent.core.ledger import Ledger, SkippedFile, TargetOutcome
from agent.core.results import Origin
from agent.errors import TargetFailed
from agent.service.locate import KeyFileLocation
from agent.service.target_users import (
    FoundTarget,
    FoundTargets,
    Skipped,
    find_targets,
    find_untargeted_files,
    unserved,
)
from sandbox.users import temporary_user
from tests.core.support import TAG, ed25519
from tests.e2e.support import MachinesSshd
from tests.support.own_mounts import in_own_mounts

NOW = "2026-01-01T00:00:00Z"
KNOWN, OTHER = ed25519(0), ed25519(1)
LEDGER = Ledger(
    keys={KNOWN.fingerprint: KnownKey(KNOWN.fingerprint, "ssh-ed25519", "", 1, NOW, NOW)}
)
_ROOT = "needs root: it makes an ordinary user and removes it again"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=_ROOT)


@pytest.fixture(scope="module")
def _name() -> Iterator[str]:
    with temporary_user() as name:
        yield name


@pytest.fixture
def somebody(_name: str) -> Iterator[pwd.struct_passwd]:
    """A real user of this machine, without a key file."""
    entry = pwd.getpwnam(_name)
    yield entry
    ssh = Path(entry.pw_dir) / ".ssh"
    if ssh.is_symlink():
        shutil.rmtree(ssh.resolve())
        ssh.unlink()
    shutil.rmtree(ssh, ignore_errors=True)


def write_keys(user: pwd.struct_passwd, data: bytes) -> Path:
    ssh = Path(user.pw_dir) / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    path = ssh / "authorized_keys"
    path.write_bytes(data)
    path.chmod(0o600)
    for one in (ssh, path):
        os.chown(one, user.pw_uid, user.pw_gid)
    return path


def searched(ledger: Ledger = LEDGER) -> FoundTargets:
    return find_targets(Config(), ledger, Sshd(search="/nonexistent"))


def found(ledger: Ledger = LEDGER) -> set[str]:
    """The users of `targets: auto`; sshd's default files, whatever this machine's sshd reads."""
    targets = searched(ledger).targets
    assert {one.origin for one in targets} == {Origin.AUTO}
    assert {one.target.path for one in targets} == {None}
    return {one.target.user for one in targets}


def test_configured_targets_are_those_and_no_others() -> None:
    """Configuration: whoever else holds such a key is for `status` and `doctor` to name."""
    targets = (Target("root"), Target("al", "/a"))
    assert find_targets(Config(targets=targets), LEDGER, Sshd(search="/nonexistent")) == (
        [FoundTarget(target, Origin.CONFIGURED) for target in targets],
        [],
    )


@needs_root
@pytest.mark.parametrize(
    "data",
    [
        KNOWN.line() + b" copied by the platform\n",
        b"restrict " + KNOWN.line() + b"\n",
        OTHER.line() + b" " + TAG + b"\n",
        OTHER.line() + b"\n# " + KNOWN.line() + b"\n",
        KNOWN.line()[:30] + b"\r" + KNOWN.line()[30:] + b"\n",
    ],
)
def test_an_account_that_holds_one_of_the_accounts_keys_is_found(
    somebody: pwd.struct_passwd, data: bytes
) -> None:
    """Incident 33: the platform copies root's lines to other users, tag included."""
    write_keys(somebody, data)
    assert found() >= {"root", somebody.pw_name}


@needs_root
def test_an_account_with_other_keys_is_left_alone(somebody: pwd.struct_passwd) -> None:
    """Configuration: found anew in each cycle, so also no longer when the last line is gone."""
    assert somebody.pw_name not in found()
    write_keys(somebody, OTHER.line() + b"\n")
    assert somebody.pw_name not in found()
    write_keys(somebody, KNOWN.line() + b"\n")
    assert somebody.pw_name not in found(Ledger())


@needs_root
def test_a_file_that_cannot_be_read_keeps_its_account_a_target(
    somebody: pwd.struct_passwd,
) -> None:
    """R11: so that the failure is reported; another one's odd file fails no cycle."""
    path = write_keys(somebody, b"")
    path.unlink()
    path.mkdir()
    assert somebody.pw_name not in found()
    served = TargetOutcome(somebody.pw_name, str(path), "in_sync", NOW, "auto")
    assert somebody.pw_name in found(Ledger(targets=(served,)))
    configured = TargetOutcome(somebody.pw_name, str(path), "in_sync", NOW)
    assert somebody.pw_name not in found(Ledger(targets=(configured,)))


def as_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_a_second_name(path: Path) -> None:
    path.with_name("elsewhere").hardlink_to(path)


def as_somebody_elses(path: Path) -> None:
    os.chown(path, 1, 1)


def too_large(path: Path) -> None:
    os.truncate(path, 1 << 30)  # with a hole: the disk has room


def behind_a_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to("moved")
    os.chown(path.parent, path.stat().st_uid, -1, follow_symlinks=False)


@needs_root
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (as_a_link, "not_a_file"),
        (as_a_second_name, "hard_link"),
        (as_somebody_elses, "wrong_owner"),
        (too_large, "key_file_too_large"),
        (behind_a_link, "symlink"),
    ],
)
def test_a_file_that_cannot_be_searched_is_named(
    somebody: pwd.struct_passwd, make: Callable[[Path], None], kind: str
) -> None:
    """R5: a deleted key may stand in it. Its account is a target only if it was one before."""
    path = write_keys(somebody, KNOWN.line() + b"\n")
    make(path)
    targets, skipped = searched()
    assert somebody.pw_name not in {one.target.user for one in targets}
    file = SkippedFile(somebody.pw_name, str(path), kind)
    assert [one.file for one in skipped if one.location.user == somebody.pw_name] == [file]
    listed = Config(targets=(Target("root"),))
    beside = find_untargeted_files(listed, LEDGER, Sshd(search="/nonexistent"))
    assert file in [one.file for one in beside.skipped]
    assert str(path) not in {location.path for location in beside.found}
    served = TargetOutcome(somebody.pw_name, str(path), "in_sync", NOW, "auto")
    targets, skipped = searched(Ledger(targets=(served,)))
    assert somebody.pw_name in {one.target.user for one in targets}
    assert somebody.pw_name not in {one.location.user for one in skipped}


@needs_root
def test_a_file_that_is_not_there_is_nothing_to_name(somebody: pwd.struct_passwd) -> None:
    """Section 8: most accounts of a machine have no key file, and some no home."""
    assert somebody.pw_name not in {one.location.user for one in searched().skipped}
    ssh = Path(somebody.pw_dir) / ".ssh"
    ssh.touch()
    assert somebody.pw_name not in {one.location.user for one in searched().skipped}
    ssh.unlink()


def test_a_shared_file_is_named_once_and_a_served_one_not_at_all() -> None:
    """G12: sshd may read one file for all users of the machine."""
    error = TargetFailed("wrong_owner", "It is another user's.", "chown it.")
    skipped = [
        Skipped(KeyFileLocation(user, path, Owner(1, 1)), error)
        for user in ("al", "bo", "cy")
        for path in ("/all", f"/{user}", "/roots")
    ]
    paths = [one.location.path for one in unserved(skipped, {"/roots"})]
    assert sorted(paths) == ["/al", "/all", "/bo", "/cy"]


@needs_root
def test_the_search_changes_nothing(somebody: pwd.struct_passwd) -> None:
    """G9: not even a mode that sshd would refuse; that is for the cycle to mend."""
    path = write_keys(somebody, KNOWN.line() + b"\n")
    path.chmod(0o666)
    before = path.stat()
    assert somebody.pw_name in found()
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_ctime_ns,
    )


@needs_root
def test_with_a_list_an_account_beside_it_is_named(somebody: pwd.struct_passwd) -> None:
    """R5, incidents 15, 33: a managed or revoked line in an account that is no target is told."""
    listed = Config(targets=(Target("root"),))
    path = write_keys(somebody, KNOWN.line("laptop") + b"\n")
    sshd = Sshd(search="/nonexistent")
    assert str(path) in {
        location.path for location in find_untargeted_files(listed, LEDGER, sshd).found
    }
    for config in (Config(), Config(targets=(Target("root"), Target(somebody.pw_name)))):
        names = {location.user for location in find_untargeted_files(config, LEDGER, sshd).found}
        assert somebody.pw_name not in names
    write_keys(somebody, OTHER.line("own") + b"\n")
    names = {location.user for location in find_untargeted_files(listed, LEDGER, sshd).found}
    assert somebody.pw_name not in names


@needs_root
@pytest.mark.parametrize("more", ["", "\nMatch User nobody\n    X11Forwarding no"])
def test_a_file_that_sshd_reads_for_every_user_makes_none_a_target(
    somebody: pwd.struct_passwd, tmp_path: Path, more: str
) -> None:
    """Configuration: root's turn serves it; else no account's own file would be left alone. Who
    holds such a key in a file of the account's own is found as ever.
    """
    everybodys = tmp_path / "keys"
    everybodys.write_bytes(KNOWN.line() + b"\n")
    own = Path(somebody.pw_dir, "own")

    def work() -> None:
        MachinesSshd(tmp_path).reads(f"%h/own {everybodys}{more}")
        listed = Config(targets=(Target("nobody"),))
        beside = {location.path for location in find_untargeted_files(listed, LEDGER, Sshd()).found}
        assert beside == {str(everybodys)}
        assert found_users() == {"root"}
        own.write_bytes(KNOWN.line() + b"\n")
        assert found_users() == {"root", somebody.pw_name}

    def found_users() -> set[str]:
        return {one.target.user for one in find_targets(Config(), LEDGER, Sshd()).targets}

    try:
        in_own_mounts(work)
    finally:
        own.unlink(missing_ok=True)


@needs_root
def test_an_ordinary_user_serves_their_own_file_alone(somebody: pwd.struct_passwd) -> None:
    """Section 8: without root there is nobody else whose file could be written."""
    write_keys(somebody, KNOWN.line() + b"\n")
    os.seteuid(somebody.pw_uid)
    try:
        assert found() == {somebody.pw_name}
    finally:
        os.seteuid(0)
