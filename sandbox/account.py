"""One account of the console: its SSH keys and its API key, safe to use from several threads."""

import secrets
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timezone


class UnknownKey(KeyError):
    """No key of the account has this id; deleted keys count as absent."""


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

    def __init__(self, user_id: int) -> None:
        self.user_id = user_id
        self._lock = threading.RLock()
        self._keys: dict[int, StoredKey] = {}
        self._api_key = secrets.token_hex(32)
        self._last_id = user_id * 100

    @property
    def api_key(self) -> str:
        """The one API key that works now."""
        return self._api_key

    def reset_api_key(self) -> str:
        """Give a new API key; the old one is dead at once (the Keys page's Reset)."""
        with self._lock:
            self._api_key = secrets.token_hex(32)
            return self._api_key

    def stored(self, *, deleted: bool = False) -> list[StoredKey]:
        """The keys in the order of creation, without the deleted ones unless asked for."""
        with self._lock:
            return [key for key in self._keys.values() if deleted or key.deleted_at is None]

    def add_key(self, text: str) -> StoredKey:
        """Store a text unchecked; only NUL characters go (description of `POST /ssh/`)."""
        with self._lock:
            self._last_id += 1
            return self._store(StoredKey(self._last_id, self.user_id, _without_nul(text), _now()))

    def edit_key(self, key_id: int, text: str) -> StoredKey:
        """Replace the text of a key, raising `UnknownKey` for an unknown or deleted one."""
        with self._lock:
            return self._store(replace(self._existing(key_id), text=_without_nul(text)))

    def delete_key(self, key_id: int) -> StoredKey:
        """Mark a key as deleted, raising `UnknownKey` for an unknown or deleted one."""
        with self._lock:
            return self._store(replace(self._existing(key_id), deleted_at=_now()))

    def _existing(self, key_id: int) -> StoredKey:
        key = self._keys.get(key_id)
        if key is None or key.deleted_at is not None:
            raise UnknownKey(key_id)
        return key

    def _store(self, key: StoredKey) -> StoredKey:
        self._keys[key.id] = key
        return key


def _without_nul(text: str) -> str:
    return text.replace("\0", "")


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
