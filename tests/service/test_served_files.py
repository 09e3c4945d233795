"""Which files a cycle serves, and which it watches although they are no target's any more (R5)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.adapters.sshd_config import Sshd
from agent.config import Config, Target
from agent.core.known_keys import KnownKey
from agent.core.ledger import Ledger, Retired, TargetOutcome
from agent.core.results import Origin
from agent.service.served_files import ServedFiles, find_served_files, retired_file
from sandbox.users import current_user
from tests.core.support import TAG, ed25519
from tests.e2e.support import MachinesSshd
from tests.support.own_mounts import in_own_mounts

NOW, EARLIER = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
KNOWN, OTHER = ed25519(0), ed25519(1)
KEYS = {KNOWN.fingerprint: KnownKey(KNOWN.fingerprint, "ssh-ed25519", "", 1, EARLIER, EARLIER)}
NOBODY = "no-such-user"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: for files of root's")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an earlier cycle found the key file of a target."""
    made = tmp_path / "keys"
    made.touch(mode=0o600)
    return made


def places(
    path: Path,
    *targets: Target,
    origin: Origin = Origin.AUTO,
    user: str | None = None,
    retired: tuple[Retired, ...] = (),
) -> ServedFiles:
    """With `targets: auto` unless some are given; sshd cannot be asked, so its default is read."""
    outcome = TargetOutcome(user or current_user(), str(path), "in_sync", EARLIER, origin.value)
    ledger = Ledger(keys=KEYS, targets=(outcome,), retired=retired)
    return find_served_files(
        Config(targets=targets or None), ledger, Sshd(search="/nonexistent"), NOW
    )


def at(path: Path, found: ServedFiles) -> list[tuple[str, Origin, str | None]]:
    """What is said of one file: its user, why it is served, and what is wrong."""
    return [
        (one.location.user, one.origin, one.error.kind if one.error else None)
        for one in found.found
        if one.location.path == str(path)
    ]


# ---- what `auto` had found and finds no more ----


@pytest.mark.parametrize(
    "data", [KNOWN.line() + b"\n", b"restrict " + KNOWN.line(), OTHER.line() + b" " + TAG + b"\n"]
)
def test_what_sshd_names_no_more_is_retired_while_it_holds_a_key(path: Path, data: bytes) -> None:
    """R5, incident 7: an sshd that runs may still let in whoever stands there."""
    path.write_bytes(data)
    found = places(path)
    assert found.retired == (Retired(current_user(), str(path), NOW),)
    assert at(path, found) == [(current_user(), Origin.RETIRED, None)]
    assert str(path) not in {one.location.path for one in found.of_targets}


@pytest.mark.parametrize("data", [b"", OTHER.line() + b"\n", None])
def test_what_holds_nothing_of_keysyncs_is_done_with(path: Path, data: bytes | None) -> None:
    """Configuration: an account that `auto` finds no more is left alone."""
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    found = places(path)
    assert found.retired == ()
    assert at(path, found) == []


def test_what_cannot_be_read_is_retired(path: Path) -> None:
    """R5: a deleted key may stand in it."""
    path.unlink()
    path.mkdir()
    assert places(path).retired == (Retired(current_user(), str(path), NOW),)


@needs_root
def test_what_another_target_serves_is_not_retired(tmp_path: Path) -> None:
    """R5: deleted keys leave a file that sshd reads for all users in root's turn."""
    path = tmp_path / "keys"
    path.write_bytes(KNOWN.line() + b"\n")

    def work() -> None:
        MachinesSshd(tmp_path).reads(path)
        outcome = TargetOutcome("nobody", str(path), "in_sync", EARLIER, "auto")
        found = find_served_files(Config(), Ledger(keys=KEYS, targets=(outcome,)), Sshd(), NOW)
        assert found.retired == ()
        assert at(path, found) == [("root", Origin.AUTO, None)]

    in_own_mounts(work)


# ---- what was taken out of the configuration ----


@pytest.mark.parametrize("origin", [Origin.AUTO, Origin.CONFIGURED])
def test_a_target_of_a_list_that_left_it_is_retired(path: Path, origin: Origin) -> None:
    """R5, incident 9: whatever it holds, and also where `auto` had found it."""
    found = places(path, Target(current_user(), "/elsewhere"), origin=origin)
    assert found.retired == (Retired(current_user(), str(path), NOW),)


def test_a_listed_target_that_auto_does_not_find_is_retired(path: Path) -> None:
    """R5, incident 9: `auto` in place of a list takes a target out as well."""
    found = places(path, origin=Origin.CONFIGURED)
    assert found.retired == (Retired(current_user(), str(path), NOW),)


def test_what_is_served_again_is_retired_no_more(path: Path) -> None:
    """Configuration: a target may come back."""
    retired = (Retired(current_user(), str(path), EARLIER),)
    found = places(path, Target(current_user(), str(path)), retired=retired)
    assert found.retired == ()
    assert at(path, found) == [(current_user(), Origin.CONFIGURED, None)]


def test_what_is_retired_stays_so(path: Path) -> None:
    """R5: until `keysync forget`; it is new only once."""
    retired = (Retired(current_user(), str(path), EARLIER),)
    assert places(path, origin=Origin.RETIRED, retired=retired).retired == retired


def test_a_user_who_cannot_be_found_just_now_is_not_retired(path: Path) -> None:
    """R11: the user's target failed in this cycle, which says nothing of the user's files."""
    found = places(path, Target(NOBODY), origin=Origin.CONFIGURED, user=NOBODY)
    assert found.retired == ()
    [target] = found.found
    assert target.error is not None
    assert (target.location.user, target.error.kind) == (NOBODY, "unknown_user")


# ---- the file of a retired target ----


def test_a_retired_file_is_where_it_was(path: Path) -> None:
    """R5, incident 9: sshd need not be asked, and need not read it any more."""
    [found] = retired_file(current_user(), str(path))
    assert (found.location.path, found.location.owner.uid) == (str(path), os.geteuid())


@needs_root
def test_the_file_of_a_user_who_is_gone(path: Path) -> None:
    """R5: its deleted keys are reported, with what ends that, while the file is there."""
    os.chown(path, 12345, 12345)
    [found] = retired_file(NOBODY, str(path))
    assert found.error is not None
    assert found.error.kind == "unknown_user"
    assert found.error.hint.endswith(f"keysync forget {path}")
    path.unlink()
    assert retired_file(NOBODY, str(path)) == []


@needs_root
def test_a_file_of_roots_whose_user_is_gone_is_served(path: Path) -> None:
    """R5: sshd may read it for others too."""
    path.chmod(0o644)
    [found] = retired_file(NOBODY, str(path))
    assert found.error is None
    assert (found.location.user, found.location.path) == (NOBODY, str(path))
