"""The API keys of one account: named, scoped, resettable, and never stored as they are."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Engine, RowMapping, insert, select, update

from sandbox.database import api_keys, now
from sandbox.permissions import Permissions


class UnknownApiKey(KeyError):
    """No API key of the account has this id; deleted ones count as absent."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the console still knows of an API key after its value was shown once."""

    id: int
    user_id: int
    name: str
    last_four: str
    permissions: Permissions
    key_params: dict[str, object]
    created_at: str
    last_used_at: str | None


class ApiKeys:
    """The API keys of one account.

    A value has 256 random bits, so its plain SHA-256 can be stored: there is nothing to guess,
    and who reads the database cannot use it.
    """

    def __init__(self, engine: Engine, user_id: int) -> None:
        self._engine = engine
        self._user_id = user_id

    def create(
        self,
        name: str,
        permissions: Mapping[str, object],
        key_params: Mapping[str, object] | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key: what is kept of it, and its value, which is not."""
        value = secrets.token_hex(32)
        values = {
            "user_id": self._user_id,
            "name": name,
            "value_hash": _hash(value),
            "last_four": value[-4:],
            "permissions": dict(permissions),
            "key_params": dict(key_params or {}),
            "created_at": now(),
        }
        with self._engine.begin() as connection:
            made = connection.execute(insert(api_keys).values(values).returning(*_COLUMNS))
            return _api_key(made.mappings().one()), value

    def stored(self) -> list[ApiKey]:
        """The keys that work, in the order of creation."""
        wanted = select(*_COLUMNS).where(self._mine()).order_by(api_keys.c.id)
        with self._engine.connect() as connection:
            return [_api_key(row) for row in connection.execute(wanted).mappings()]

    def delete(self, key_id: int) -> None:
        """End a key at once, raising `UnknownApiKey` for an unknown or deleted one."""
        self._change(key_id, deleted_at=now())

    def edit(self, key_id: int, name: str, permissions: Mapping[str, object]) -> None:
        """Change a key at once and keep its value, raising `UnknownApiKey` for an unknown one."""
        self._change(key_id, name=name, permissions=dict(permissions))

    def reset(self, key_id: int) -> str:
        """Give a key a new value at once, raising `UnknownApiKey` for an unknown one."""
        value = secrets.token_hex(32)
        self._change(key_id, value_hash=_hash(value), last_four=value[-4:])
        return value

    def find(self, value: str) -> ApiKey | None:
        """The key with this value, marked as used now; None when there is none any more."""
        wanted = select(*_COLUMNS).where(self._mine(), api_keys.c.value_hash == _hash(value))
        with self._engine.connect() as connection:
            row = connection.execute(wanted).mappings().one_or_none()
        if row is None:
            return None
        if row["last_used_at"] != (used := now()):
            self._change(row["id"], last_used_at=used)
        return _api_key(row)

    def owner(self, key_id: int) -> int | None:
        """Whose key an id is, also another account's; None when nobody has it."""
        wanted = select(api_keys.c.user_id).where(api_keys.c.id == key_id)
        with self._engine.connect() as connection:
            return connection.execute(
                wanted.where(api_keys.c.deleted_at.is_(None))
            ).scalar_one_or_none()

    def _mine(self) -> ColumnElement[bool]:
        return (api_keys.c.user_id == self._user_id) & api_keys.c.deleted_at.is_(None)

    def _change(self, key_id: int, **values: object) -> None:
        change = update(api_keys).where(self._mine(), api_keys.c.id == key_id).values(values)
        with self._engine.begin() as connection:
            if connection.execute(change).rowcount != 1:
                raise UnknownApiKey(key_id)


_COLUMNS = (
    api_keys.c.id,
    api_keys.c.user_id,
    api_keys.c.name,
    api_keys.c.last_four,
    api_keys.c.permissions,
    api_keys.c.key_params,
    api_keys.c.created_at,
    api_keys.c.last_used_at,
)


def _api_key(row: RowMapping) -> ApiKey:
    return ApiKey(**row)


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
