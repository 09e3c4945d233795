"""Which accounts are targets, found among the users of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters.sshd_config import Sshd
from agent.config import Config, Target
from agent.core.ledger import KnownKey, Ledger, Retired, TargetOutcome
from agent.service.accounts import (
    FoundTarget,
    Origin,
    find_targets,
    forgotten_accounts,
    retired_places,
)
from sandbox.users import current_user, temporary_user
from tests.core.support import TAG, ed25519

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
    shutil.rmtree(Path(entry.pw_dir) / ".ssh", ignore_errors=True)


def write_keys(user: pwd.struct_passwd, data: bytes) -> Path:
    ssh = Path(user.pw_dir) / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    path = ssh / "authorized_keys"
    path.write_bytes(data)
    path.chmod(0o600)
    for one in (ssh, path):
        os.chown(one, user.pw_uid, user.pw_gid)
    return path


def found(ledger: Ledger = LEDGER) -> set[str]:
    """The users of `targets: auto`; sshd's default files, whatever this machine's sshd reads."""
    targets = find_targets(Config(), ledger, Sshd(search="/nonexistent"))
    assert {one.origin for one in targets} == {Origin.AUTO}
    assert {one.target.path for one in targets} == {None}
    return {one.target.user for one in targets}


def test_configured_targets_are_those_and_no_others() -> None:
    """§8: whoever else holds such a key is for `status` and `doctor` to name."""
    targets = (Target("root"), Target("al", "/a"))
    assert find_targets(Config(targets=targets), LEDGER, Sshd(search="/nonexistent")) == [
        FoundTarget(target, Origin.CONFIGURED) for target in targets
    ]


@needs_root
@pytest.mark.parametrize(
    "data",
    [
        KNOWN.line() + b" copied by the platform\n",
        b"restrict " + KNOWN.line() + b"\n",
        OTHER.line() + b" " + TAG + b"\n",
        OTHER.line() + b"\n# " + KNOWN.line() + b"\n",
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
    """§8: found anew in each cycle, so also no longer when the last line is gone."""
    assert somebody.pw_name not in found()
    write_keys(somebody, OTHER.line() + b"\n")
    assert somebody.pw_name not in found()
    write_keys(somebody, KNOWN.line() + b"\n")
    assert somebody.pw_name not in found(Ledger())


@needs_root
def test_a_file_that_cannot_be_read_keeps_its_account_a_target(
    somebody: pwd.struct_passwd,
) -> None:
    """R11: so that the failure is reported; a stranger's odd file is nobody's business."""
    path = write_keys(somebody, b"")
    path.unlink()
    path.mkdir()
    assert somebody.pw_name not in found()
    served = TargetOutcome(somebody.pw_name, str(path), "in_sync", NOW, "auto")
    assert somebody.pw_name in found(Ledger(targets=(served,)))
    configured = TargetOutcome(somebody.pw_name, str(path), "in_sync", NOW)
    assert somebody.pw_name not in found(Ledger(targets=(configured,)))


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


# ---- retired targets (R5) ----


def test_a_retired_file_is_where_it_was(tmp_path: Path) -> None:
    """R5, incident 9: sshd need not be asked, and need not read it any more."""
    path = str(tmp_path / "keys")
    [place] = retired_places(Retired(current_user(), path, NOW))
    assert (place.path, place.owner.uid) == (path, os.geteuid())


def test_a_retired_file_whose_user_is_gone(tmp_path: Path) -> None:
    """R5: its deleted keys are reported while the file is there, and then it is done with."""
    path = tmp_path / "keys"
    assert retired_places(Retired("no-such-user", str(path), NOW)) == []
    path.touch()
    [place] = retired_places(Retired("no-such-user", str(path), NOW))
    assert (place.user, place.path) == ("no-such-user", str(path))


@needs_root
def test_with_a_list_an_account_beside_it_is_named(somebody: pwd.struct_passwd) -> None:
    """Section 8, incident 33: a managed or revoked line in an account that is no target is told."""
    listed = Config(targets=(Target("root"),))
    path = write_keys(somebody, KNOWN.line("laptop") + b"\n")
    sshd = Sshd(search="/nonexistent")
    assert str(path) in {place.path for place in forgotten_accounts(listed, LEDGER, sshd)}
    for config in (Config(), Config(targets=(Target("root"), Target(somebody.pw_name)))):
        names = {place.user for place in forgotten_accounts(config, LEDGER, sshd)}
        assert somebody.pw_name not in names
    write_keys(somebody, OTHER.line("own") + b"\n")
    names = {place.user for place in forgotten_accounts(listed, LEDGER, sshd)}
    assert somebody.pw_name not in names
