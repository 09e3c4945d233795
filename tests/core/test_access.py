"""What `status` says of a line: whether sshd lets its key in now, and why not."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.adapters.sshd_config import Sshd
from agent.config import Config, Target
from agent.core.access import Access, Login, judge
from agent.core.authorized_keys import parse_line
from agent.service.locate import accepted_types
from tests.core.support import joined, text_of
from tests.support.machine import key_line

KEY = key_line("me").encode()
DSA = text_of(joined([b"ssh-dss", b"\1" * 128, b"\2", b"\3", b"\4"])).encode()
NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
FOR_CERTIFICATES = "for certificates that this key signed, not for the key itself"


@pytest.mark.parametrize(
    ("raw", "login", "note"),
    [
        (KEY, Login.YES, ""),
        (KEY + b" keysync:managed", Login.YES, ""),
        (b'restrict,command="x" ' + KEY, Login.YES, ""),
        (b'from="10.0.0.1" ' + KEY, Login.DEPENDS, ""),
        (b'permitopen="h:http" ' + KEY, Login.DEPENDS, ""),
        (b"foo " + KEY, Login.NO, "sshd ignores this line: unknown key option"),
        (b'from="" ' + KEY, Login.NO, "sshd ignores this line: invalid from criteria"),
        (DSA, Login.NO, "sshd accepts no DSA keys"),
        (b"restrict " + DSA, Login.NO, "sshd accepts no DSA keys"),
        (b"cert-authority " + KEY, Login.CERTIFICATES, FOR_CERTIFICATES),
        (b'cert-authority,principals="a" ' + DSA, Login.CERTIFICATES, FOR_CERTIFICATES),
        (b'expiry-time="20260101115959Z" ' + KEY, Login.NO, "expired at 2026-01-01T11:59:59Z"),
        (
            b'cert-authority,expiry-time="202512312300Z" ' + KEY,
            Login.NO,
            "expired at 2025-12-31T23:00:00Z",
        ),
        (b'expiry-time="20260101120000Z" ' + KEY, Login.YES, "expires at 2026-01-01T12:00:00Z"),
        (
            b'from="*",expiry-time="20270101Z" ' + KEY,
            Login.DEPENDS,
            "expires at 2027-01-01T00:00:00Z",
        ),
        (
            b'expiry-time="20280101Z",expiry-time="20270101Z" ' + KEY,
            Login.YES,
            "expires at 2027-01-01T00:00:00Z",
        ),
    ],
)
def test_what_is_said_of_a_line(raw: bytes, login: Login, note: str) -> None:
    """Commands: who can log in and why; sshd(8), AUTHORIZED_KEYS FILE FORMAT."""
    assert judge(parse_line(raw), NOW) == (login, note)


@pytest.mark.parametrize(
    ("answer", "login", "note"),
    [
        (True, Login.YES, ""),
        (False, Login.NO, "this machine's sshd does not accept keys of the type ssh-new"),
        (None, Login.NO, "sshd could not be asked whether it accepts keys of the type ssh-new"),
    ],
)
def test_sshd_decides_about_an_unknown_type(answer: bool | None, login: Login, note: str) -> None:
    """Incident 30: `status` must not call a key of a newer type a way in, or none, by guessing."""
    line = parse_line(text_of(joined([b"ssh-new", b"x"])).encode())
    assert judge(line, NOW, lambda _: answer) == (login, note)


def test_a_known_type_that_sshd_refuses() -> None:
    """G3, Incident 4: `status` and the lockout guard judge a key type alike."""
    note = "this machine's sshd does not accept keys of the type ssh-ed25519"
    line = parse_line(KEY)
    assert judge(line, NOW, lambda _: False) == (Login.NO, note)
    assert not line.opens_session_for(lambda _: False)


def test_a_target_with_a_path_needs_no_sshd(tmp_path: Path) -> None:
    """Incident 30, G2: sshd is asked about a type that keysync does not know, and only then."""
    program = tmp_path / "sshd"
    program.write_text("#!/bin/sh\necho pubkeyacceptedalgorithms ssh-new\n")
    program.chmod(0o755)
    sshd = Sshd(str(tmp_path))
    asked = accepted_types(Config(targets=(Target("root"),)), sshd)
    listed_but_malformed = accepted_types(Config(targets=(Target("root", "/keys"),)), sshd)
    types = ("ssh-ed25519", "ssh-new")
    assert [asked(name) for name in types] == [False, True]
    assert [listed_but_malformed(name) for name in types] == [None, True]


def test_a_time_without_a_zone_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd(8), expiry-time: times are in the system's zone unless they end in Z."""
    line = parse_line(b'expiry-time="20260101" ' + KEY)
    before = datetime(2026, 1, 1, 4, 59, 59, tzinfo=timezone.utc)
    after = datetime(2026, 1, 1, 5, 0, 1, tzinfo=timezone.utc)
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "EST5")
            time.tzset()
            assert judge(line, before) == (Login.YES, "expires at 2026-01-01T05:00:00Z")
            assert judge(line, after) == (Login.NO, "expired at 2026-01-01T05:00:00Z")
    finally:
        time.tzset()


@pytest.mark.parametrize(
    ("raw", "pinned", "access"),
    [
        (KEY, False, Access.FOREIGN),
        (KEY, True, Access.PINNED),
        (KEY + b" keysync:managed", False, Access.MANAGED),
        (KEY + b" keysync:managed", True, Access.PINNED),
        (b"restrict " + KEY, False, Access.RESTRICTED),
        (b"restrict " + KEY, True, Access.RESTRICTED),
    ],
)
def test_why_a_line_is_in_the_file(raw: bytes, pinned: bool, access: Access) -> None:
    """R4: a restricted line is its owner's, also when its key is pinned."""
    assert Access.of(parse_line(raw), pinned=pinned) is access
