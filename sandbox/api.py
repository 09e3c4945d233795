"""The console's API as a function from request to answer; no sockets here.

Source: the provider's published descriptions of `/ssh/` and `/users/current/`, and for what they
leave out (which error a bad key gets, the plain-text 429) the behaviour its open clients expect.
"""

import base64
import hashlib
import json
import re
import secrets
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sandbox.account import Account, StoredKey, UnknownKey

ListShape: TypeAlias = Literal["list", "wrapped"]
KeyField: TypeAlias = Literal["key", "public_key", "ssh_key"]

FAULTS = (
    "outage",
    "error_500",
    "rate_limited",
    "empty_list",
    "html",
    "truncated",
    "another_account",
)

_NO_SSH_KEY = {"success": False, "error": "no_ssh_key", "msg": "No ssh key provided"}
_AUTH_ERROR = {"success": False, "error": "auth_error", "msg": "Invalid user key"}
_SERVER_ERROR = {"success": False, "error": "server_error", "msg": "Internal server error"}
_BAD_REQUEST = {"success": False, "error": "invalid_request", "msg": "Invalid request parameters"}
_HTML = b"<!doctype html><title>Console</title><p>We will be back in a few minutes.</p>\n"


@dataclass(frozen=True, slots=True)
class Request:
    """What the API looks at in an HTTP request; `path` has no query string."""

    method: str
    path: str
    address: str
    token: str | None = None
    if_none_match: str | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, body and what the headers must say about it."""

    status: int
    body: bytes
    content_type: str = "application/json"
    etag: str | None = None


@dataclass(slots=True)
class Switches:
    """How the API answers; every field may be changed while it serves.

    shape           a bare list as documented, or `{"ssh_keys": [...]}` as some clients expect
    key_field       where an entry of the list keeps the key's text
    include_deleted whether the list also shows entries whose `deleted_at` is set
    min_interval    seconds between two requests of one identity per endpoint and method; 0 is off
    etag            whether the list carries an ETag and honours If-None-Match (RFC 9110 §13.1.2)
    fault           one of `FAULTS`, or None
    """

    shape: ListShape = "list"
    key_field: KeyField = "key"
    include_deleted: bool = False
    min_interval: float = 0.0
    etag: bool = False
    fault: str | None = None


@dataclass(slots=True)
class RateLimit:
    """The least time between two requests of one identity to one endpoint with one method."""

    _last: dict[tuple[str | None, str, str, str], float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuses(self, request: Request, endpoint: str, min_interval: float) -> bool:
        """Whether the request comes too early; identity is the token and the client's address."""
        if min_interval <= 0:
            return False
        identity = (request.token, request.address, request.method, endpoint)
        with self._lock:
            now = time.monotonic()
            last = self._last.get(identity)
            if last is not None and now - last < min_interval:
                return True
            self._last[identity] = now
            return False


class Api:
    """Answers requests for one account, or with a fault switched on for a stranger's."""

    def __init__(self, account: Account, stranger: Account, switches: Switches) -> None:
        self._account = account
        self._stranger = stranger
        self._switches = switches
        self._rate = RateLimit()

    def answer(self, request: Request) -> Answer | None:
        """The answer to a request; None means that the connection is closed without one."""
        fault = self._switches.fault
        if fault == "outage":
            return None
        if fault in _CANNED:
            return _CANNED[fault]
        answer = self._honest(request, fault)
        if fault == "truncated":
            return Answer(answer.status, answer.body[: len(answer.body) // 2], answer.content_type)
        return answer

    def _honest(self, request: Request, fault: str | None) -> Answer:
        endpoint, key_id = _endpoint(request.path)
        min_interval = self._switches.min_interval
        if self._rate.refuses(request, endpoint, min_interval):
            return _too_frequent(min_interval)
        if not _same(request.token, self._account.api_key):
            return _json(404, _AUTH_ERROR)
        return self._routed(request, endpoint, key_id, fault)

    def _routed(self, request: Request, endpoint: str, key_id: int, fault: str | None) -> Answer:
        account = self._stranger if fault == "another_account" else self._account
        match request.method, endpoint:
            case "GET", "ssh":
                return self._list(request, [] if fault == "empty_list" else self._keys(account))
            case "POST", "ssh":
                return _with_text(request, account.add_key)
            case "PUT", "ssh/id":
                return _with_text(request, lambda text: account.edit_key(key_id, text))
            case "DELETE", "ssh/id":
                return _delete(account, key_id)
            case "GET", "users/current":
                return _json(200, _user(account))
            case _:
                return _unknown(endpoint)

    def _keys(self, account: Account) -> list[StoredKey]:
        return account.stored(deleted=self._switches.include_deleted)

    def _list(self, request: Request, keys: list[StoredKey]) -> Answer:
        entries = [_entry(key, self._switches.key_field) for key in keys]
        answer = _json(200, entries if self._switches.shape == "list" else {"ssh_keys": entries})
        if not self._switches.etag:
            return answer
        etag = f'"{hashlib.sha256(answer.body).hexdigest()}"'
        if etag in (request.if_none_match or ""):
            return Answer(304, b"", etag=etag)
        return Answer(200, answer.body, etag=etag)


def strangers_key() -> str:
    """A well-formed Ed25519 line (RFC 8709 §4) whose private half nobody has."""
    fields = (b"ssh-ed25519", secrets.token_bytes(32))
    blob = b"".join(struct.pack(">I", len(part)) + part for part in fields)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} stranger"


def _endpoint(path: str) -> tuple[str, int]:
    found = re.fullmatch(r"/api/v0/(ssh/(\d{1,18})|ssh|users/current)/?", path, re.ASCII)
    if found is None:
        return "", 0
    return ("ssh/id", int(found[2])) if found[2] else (found[1], 0)


def _same(token: str | None, api_key: str) -> bool:
    return secrets.compare_digest((token or "").encode(), api_key.encode())


def _with_text(request: Request, store: Callable[[str], StoredKey]) -> Answer:
    try:
        sent = json.loads(request.body)
    except ValueError:
        return _json(400, _BAD_REQUEST)
    text = sent.get("ssh_key") if isinstance(sent, dict) else None
    if not isinstance(text, str) or not text.strip("\0"):
        return _json(400, _NO_SSH_KEY)
    try:
        key = store(text)
    except UnknownKey:
        return _json(400, _NO_SSH_KEY)
    return _json(200, {"success": True, "key": _entry(key, "public_key")})


def _delete(account: Account, key_id: int) -> Answer:
    try:
        account.delete_key(key_id)
    except UnknownKey:
        return _json(400, _NO_SSH_KEY)
    return _json(200, {"success": True})


def _entry(key: StoredKey, key_field: KeyField) -> dict[str, object]:
    return {
        "id": key.id,
        "user_id": key.user_id,
        key_field: key.text,
        "created_at": key.created_at,
        "deleted_at": key.deleted_at,
    }


def _user(account: Account) -> dict[str, object]:
    name = f"renter-{account.user_id}"
    return {"id": account.user_id, "username": name, "email": f"{name}@example.com"}


def _unknown(endpoint: str) -> Answer:
    if endpoint:
        return _json(405, {"success": False, "error": "method_not_allowed", "msg": "Not allowed"})
    return _json(404, {"success": False, "error": "not_found", "msg": "No such endpoint"})


def _too_frequent(threshold: float) -> Answer:
    text = f"API requests too frequent: endpoint threshold={threshold}"
    return Answer(429, text.encode(), "text/plain; charset=utf-8")


def _json(status: int, value: object) -> Answer:
    return Answer(status, json.dumps(value).encode())


_CANNED = {
    "error_500": _json(500, _SERVER_ERROR),
    "rate_limited": _too_frequent(1.0),
    "html": Answer(200, _HTML, "text/html; charset=utf-8"),
}
