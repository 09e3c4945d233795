"""One account of the console: who may log in to it, and its SSH keys."""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import Engine, RowMapping, insert, select, update

from sandbox.database import accounts, now, ssh_keys

# Passwords are made by the sandbox with 96 random bits: nothing that a slow hash would protect.
_SCRYPT_COST = 2**12


class UnknownKey(KeyError):
    """No key of the account has this id; deleted keys count as absent."""


class UnknownAccount(KeyError):
    """The database has no account with this id."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One entry of the Keys page, its text kept as it was sent."""

    id: int
    user_id: int
    text: str
    created_at: str
    deleted_at: str | None = None


class Account:
    """The keys of one user, never forgotten: a deleted entry only gets its `deleted_at`.

    Source: the published description of `GET /ssh/`, whose entries carry `deleted_at`.
    """

    def __init__(self, engine: Engine, user_id: int) -> None:
        wanted = select(accounts).where(accounts.c.id == user_id)
        with engine.connect() as connection:
            row = connection.execute(wanted).mappings().one_or_none()
        if row is None:
            raise UnknownAccount(user_id)
        self._engine = engine
        self.user_id = user_id
        self.login: str = row["login"]
        self.is_team = bool(row["is_team"])

    @classmethod
    def create(
        cls,
        engine: Engine,
        user_id: int,
        login: str,
        password: str | None = None,
        *,
        is_team: bool = False,
    ) -> "Account":
        """Make an account without keys; without a password nobody can log in to it."""
        values = {
            "id": user_id,
            "login": login,
            "password_hash": _hashed(password, secrets.token_bytes(16)) if password else "",
            "is_team": int(is_team),
        }
        with engine.begin() as connection:
            connection.execute(insert(accounts).values(values))
        return cls(engine, user_id)

    def set_password(self, password: str) -> None:
        """Let this password log in, and the old one no more."""
        stored = _hashed(password, secrets.token_bytes(16))
        change = update(accounts).where(accounts.c.id == self.user_id)
        with self._engine.begin() as connection:
            connection.execute(change.values(password_hash=stored))

    def check_password(self, password: str) -> bool:
        """Whether this is the account's password."""
        wanted = select(accounts.c.password_hash).where(accounts.c.id == self.user_id)
        with self._engine.connect() as connection:
            stored = connection.execute(wanted).scalar_one()
        salt = bytes.fromhex(stored.split("$")[0])
        return secrets.compare_digest(stored, _hashed(password, salt))

    def stored(self, *, deleted: bool = False) -> list[StoredKey]:
        """The keys in the order of creation, without the deleted ones unless asked for."""
        wanted = select(ssh_keys).where(ssh_keys.c.user_id == self.user_id).order_by(ssh_keys.c.id)
        if not deleted:
            wanted = wanted.where(ssh_keys.c.deleted_at.is_(None))
        with self._engine.connect() as connection:
            return [_key(row) for row in connection.execute(wanted).mappings()]

    def add_key(self, text: str) -> StoredKey:
        """Store a text unchecked; only NUL characters go (description of `POST /ssh/`)."""
        values = {"user_id": self.user_id, "text": _without_nul(text), "created_at": now()}
        with self._engine.begin() as connection:
            made = connection.execute(insert(ssh_keys).values(values).returning(ssh_keys))
            return _key(made.mappings().one())

    def edit_key(self, key_id: int, text: str) -> StoredKey:
        """Replace the text of a key, raising `UnknownKey` for an unknown or deleted one."""
        return self._changed(key_id, text=_without_nul(text))

    def delete_key(self, key_id: int) -> StoredKey:
        """Mark a key as deleted, raising `UnknownKey` for an unknown or deleted one."""
        return self._changed(key_id, deleted_at=now())

    def _changed(self, key_id: int, **values: str) -> StoredKey:
        change = update(ssh_keys).where(
            ssh_keys.c.id == key_id,
            ssh_keys.c.user_id == self.user_id,
            ssh_keys.c.deleted_at.is_(None),
        )
        with self._engine.begin() as connection:
            done = connection.execute(change.values(values).returning(ssh_keys))
            row = done.mappings().one_or_none()
        if row is None:
            raise UnknownKey(key_id)
        return _key(row)


def _key(row: RowMapping) -> StoredKey:
    return StoredKey(**row)


def _without_nul(text: str) -> str:
    return text.replace("\0", "")


def _hashed(password: str, salt: bytes) -> str:
    """The salt and the scrypt hash (RFC 7914), as they are stored."""
    text = password.encode("utf-8", "surrogatepass")
    return f"{salt.hex()}${hashlib.scrypt(text, salt=salt, n=_SCRYPT_COST, r=8, p=1).hex()}"
