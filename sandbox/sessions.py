"""Session keys: who is logged in to the Keys page, from which device, and until when."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from sqlalchemy import ColumnElement, Engine, RowMapping, delete, insert, select, update

from sandbox.database import now, sessions

LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that is logged in; times as the API writes them."""

    id: int
    user_id: int
    device: str
    address: str
    created_at: str
    last_used_at: str
    expires_at: str


class Sessions:
    """The session keys of all accounts; one ends at its expiry or as soon as it is deleted.

    The tokens are 256 random bits, so a plain SHA-256 of them can be stored: there is nothing to
    guess, and who reads the database cannot log in with it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, user_id: int, device: str, address: str) -> tuple[Session, str]:
        """Log a browser in: the new session, and its token, which is not kept.

        Sessions that have expired are forgotten here.
        """
        token = secrets.token_urlsafe(32)
        made = now()
        values = {
            "user_id": user_id,
            "token_hash": _hash(token),
            "device": device,
            "address": address,
            "created_at": made,
            "last_used_at": made,
            "expires_at": _after(LIFETIME),
        }
        with self._engine.begin() as connection:
            connection.execute(delete(sessions).where(~_alive()))
            row = (
                connection.execute(insert(sessions).values(values).returning(*_COLUMNS))
                .mappings()
                .one()
            )
        return _session(row), token

    def find(self, token: str, *, touch: bool = True) -> Session | None:
        """The session that a token opens, marked as used now; None when ended or expired."""
        wanted = select(*_COLUMNS).where(sessions.c.token_hash == _hash(token), _alive())
        with self._engine.connect() as connection:
            row = connection.execute(wanted).mappings().one_or_none()
        if row is None:
            return None
        if touch and row["last_used_at"] != now():
            return self._touched(_session(row))
        return _session(row)

    def stored(self, user_id: int) -> list[Session]:
        """The sessions of an account that still work, newest first."""
        wanted = select(*_COLUMNS).where(sessions.c.user_id == user_id, _alive())
        with self._engine.connect() as connection:
            rows = connection.execute(wanted.order_by(sessions.c.id.desc())).mappings().all()
        return [_session(row) for row in rows]

    def end(self, user_id: int, session_id: int) -> bool:
        """Sign a browser out at once; whether the account had this session."""
        chosen = (sessions.c.user_id == user_id) & (sessions.c.id == session_id)
        with self._engine.begin() as connection:
            return connection.execute(delete(sessions).where(chosen)).rowcount > 0

    def _touched(self, session: Session) -> Session | None:
        changed = update(sessions).where(sessions.c.id == session.id).values(last_used_at=now())
        with self._engine.begin() as connection:
            row = connection.execute(changed.returning(*_COLUMNS)).mappings().one_or_none()
        return None if row is None else _session(row)


_COLUMNS = (
    sessions.c.id,
    sessions.c.user_id,
    sessions.c.device,
    sessions.c.address,
    sessions.c.created_at,
    sessions.c.last_used_at,
    sessions.c.expires_at,
)


def _alive() -> ColumnElement[bool]:
    return sessions.c.expires_at > now()


def _session(row: RowMapping) -> Session:
    return Session(**row)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _after(duration: timedelta) -> str:
    return (datetime.now(timezone.utc) + duration).strftime("%Y-%m-%dT%H:%M:%SZ")
