"""Session keys: made by a login, found by their token alone, gone when they end or expire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from sandbox.account import Account
from sandbox.database import open_database, sessions
from sandbox.sessions import Session, Sessions

OWNER, OTHER = 4711, 4712


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(tmp_path / "console.sqlite3")
    Account.create(opened, OWNER, "owner", "secret")
    Account.create(opened, OTHER, "other", "secret")
    yield opened
    opened.dispose()


def _set(engine: Engine, session: Session, **values: str) -> None:
    with engine.begin() as connection:
        connection.execute(update(sessions).where(sessions.c.id == session.id).values(values))


def test_a_session_is_found_by_its_token(engine: Engine) -> None:
    """A token opens its own session, with what was said at the login; any other text does not."""
    begun, token = Sessions(engine).begin(OWNER, "Firefox 128 on Linux", "127.0.0.1")
    found = Sessions(engine).find(token)
    assert found is not None
    assert (found.id, found.user_id, found.device) == (begun.id, OWNER, "Firefox 128 on Linux")
    assert Sessions(engine).find(token[:-1]) is None
    assert Sessions(engine).find("") is None


def test_a_session_lasts_a_week(engine: Engine) -> None:
    """The expiry is one week after the login."""
    begun, _token = Sessions(engine).begin(OWNER, "a device", "127.0.0.1")
    made, ends = (datetime.fromisoformat(t[:-1]) for t in (begun.created_at, begun.expires_at))
    assert abs(ends - made - timedelta(days=7)) <= timedelta(seconds=1)


def test_an_expired_session_is_no_session(engine: Engine) -> None:
    """Expired: its token opens nothing, it is not listed, and the next login forgets it."""
    begun, token = Sessions(engine).begin(OWNER, "a device", "127.0.0.1")
    _set(engine, begun, expires_at="2024-01-01T00:00:00Z")
    assert Sessions(engine).find(token) is None
    assert Sessions(engine).stored(OWNER) == []
    Sessions(engine).begin(OWNER, "another", "127.0.0.1")
    with engine.connect() as connection:
        assert connection.execute(select(sessions.c.device)).scalars().all() == ["another"]


def test_ending_one_leaves_the_others(engine: Engine) -> None:
    """Deleting a session ends that one, once, and nobody else's."""
    store = Sessions(engine)
    first, first_token = store.begin(OWNER, "first", "127.0.0.1")
    _second, second_token = store.begin(OWNER, "second", "127.0.0.1")
    assert not store.end(OTHER, first.id)
    assert store.find(first_token) is not None
    assert store.end(OWNER, first.id)
    assert store.find(first_token) is None
    assert store.find(second_token) is not None
    assert not store.end(OWNER, first.id)


def test_only_the_own_sessions_are_listed(engine: Engine) -> None:
    """The list is of one account, newest first."""
    store = Sessions(engine)
    store.begin(OWNER, "first", "127.0.0.1")
    store.begin(OTHER, "not mine", "127.0.0.1")
    store.begin(OWNER, "second", "127.0.0.1")
    assert [one.device for one in store.stored(OWNER)] == ["second", "first"]


def test_use_is_noted_unless_it_is_a_mere_look(engine: Engine) -> None:
    """A request moves the last use; the page's own watching does not."""
    store = Sessions(engine)
    begun, token = store.begin(OWNER, "a device", "127.0.0.1")
    long_ago = "2024-01-01T00:00:00Z"
    _set(engine, begun, last_used_at=long_ago)
    looked_at = store.find(token, touch=False)
    assert looked_at is not None
    assert looked_at.last_used_at == long_ago
    used = store.find(token)
    assert used is not None
    assert used.last_used_at >= begun.created_at
    assert store.stored(OWNER)[0].last_used_at == used.last_used_at


def test_no_token_is_in_the_database(engine: Engine, tmp_path: Path) -> None:
    """Who reads the file cannot log in with it, and a session holds no token to show by mistake."""
    _begun, token = Sessions(engine).begin(OWNER, "a device", "127.0.0.1")
    content = b"".join(path.read_bytes() for path in tmp_path.glob("console.sqlite3*"))
    assert b"a device" in content
    assert token.encode() not in content
    assert "token" not in {field.name for field in fields(Session)}
