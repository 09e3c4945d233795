"""Vast.ai: all that keysync knows of the platform, from its public documentation.

`list_url` is where the account's SSH keys are, `read_listing` what an answer from there means.
Another platform is another module with the same public names. Every answer that is not certainly a
complete list is an error with its own kind, never an empty list (G1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from agent.core.answer import Answer
from agent.core.listing import MAX_ENTRIES, Listing, judge_entry
from agent.core.public_key import Accepts, without_sshd
from agent.core.text import printable
from agent.errors import (
    KEYS_STAY,
    AnswerUnusable,
    CredentialRejected,
    KeysyncError,
    TemporaryFailure,
)

API_URL = "https://console.vast.ai"
API_URL_VARIABLE = "VAST_URL"
API_KEY_VARIABLE = "VAST_API_KEY"
API_KEY_FILES = ("~/.config/vastai/vast_api_key", "~/.vast_api_key")  # of its own client
API_KEY_PERMISSION = "user_read"
SECRET_VARIABLES = (API_KEY_VARIABLE, "CONTAINER_API_KEY")  # no other program gets these
INSTANCE_ID_VARIABLE = "CONTAINER_ID"
BOOT_HOOKS = "/etc/vast_boot.d"  # the base image runs what is in it at each boot

MAX_VALUES = 1_000_000  # 16 MiB of JSON could hold five million, at 24 times the memory
_PATH = "/api/v0/ssh/"
_KEY_FIELDS = ("key", "public_key", "ssh_key")
_ID_LIMIT = 10**18
_REPORT = KEYS_STAY + " If it persists, report it to the provider."


def list_url(api_url: str) -> str:
    """The address of the account's key list; `api_url` is the configured `api.url`."""
    return api_url.rstrip("/") + _PATH


def read_listing(answer: Answer, min_rsa_bits: int, accepts: Accepts = without_sshd) -> Listing:
    """The account's keys in an answer to `GET /ssh/`.

    `accepts` tells whether this machine's sshd accepts a key type, None when sshd could not be
    asked; it is called only for entries that are otherwise good.

    Raises AnswerUnusable unless the answer is the complete list of one account, CredentialRejected
    when it refuses the API key, and TemporaryFailure when it asks to come back later.
    """
    if answer.status != 200:
        raise _refusal(answer.status, _json_or_none(answer.body), answer.retry_after)
    if answer.has_next_link:
        raise _partial_list("its Link header names a next page")
    entries = _entries(_decode_json(answer.body))
    judged = (
        judge_entry(_key_text(entry), _entry_id(entry.get("id")), min_rsa_bits, accepts)
        for entry in entries
        if not entry.get("deleted_at")
    )
    return Listing.of(judged, _account(entries))


# ---- entries ----


def _entries(answer: object) -> list[Mapping[str, object]]:
    """The list itself: bare as documented, or under `ssh_keys` as real clients expect it too."""
    entries = answer
    if isinstance(answer, dict):
        if answer.get("success") is False or answer.get("error"):
            raise _refusal(200, answer)
        entries = answer.get("ssh_keys")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AnswerUnusable(
            "unknown_shape",
            "The API answered 200 with JSON that is not a list of SSH keys.",
            KEYS_STAY + " Check api.url; if it is right, keysync may be too old for this API.",
        )
    if isinstance(answer, dict):
        _require_complete(answer, len(entries))
    if len(entries) > MAX_ENTRIES:
        raise _too_large(f"more than {MAX_ENTRIES} keys")
    return entries


def _key_text(entry: Mapping[str, object]) -> str | None:
    return next((text for text in map(entry.get, _KEY_FIELDS) if isinstance(text, str)), None)


def _entry_id(value: object) -> int | None:
    """The ledger stores the id, so one with thousands of digits counts as none (G12)."""
    number = _integer(value)
    return number if number is not None and abs(number) < _ID_LIMIT else None


def _account(entries: list[Mapping[str, object]]) -> int | None:
    """The `user_id` of all entries, deleted ones included; None when no entry names one (G4)."""
    named = [entry["user_id"] for entry in entries if entry.get("user_id") is not None]
    owners = set(map(_integer, named))
    if len(owners) > 1:  # an unreadable one is a different one
        raise AnswerUnusable(
            "several_accounts",
            f"The list of SSH keys names {len(owners)} different accounts.",
            _REPORT,
        )
    if not all(owner is not None and 0 < owner < _ID_LIMIT for owner in owners):
        raise AnswerUnusable(
            "malformed_account",
            "The list of SSH keys has a user_id that is not a positive number.",
            KEYS_STAY + " Check api.url; if it persists, report it to the provider.",
        )
    return owners.pop() if owners else None


def _integer(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# ---- signs of a partial list ----

# Names as _plain gives them. No page is documented for this list; these are the usual names.
_PAGE_OBJECTS = ("meta", "links", "pagination")
_TOTALS = ("total", "totalcount", "count")
_TOTAL_HINT = (
    "keysync cannot tell a total that includes deleted keys from a missing page. Report it to the "
    "provider: until it is corrected, deleted keys are not removed from this machine."
)


def _require_complete(answer: Mapping[str, object], entries: int) -> None:
    """Keys on another page must not be taken for deleted ones (G1). Other fields are ignored."""
    for name, value in _page_fields(answer):
        plain, number = _plain(name), _integer(value)
        if (plain.startswith("next") or plain == "hasmore") and _has_more(value):
            raise _partial_list(f"{printable(name)} is set")
        if plain in _TOTALS and number is not None and number > entries:
            raise _partial_list(f"{name} is {number}, {entries} came", _TOTAL_HINT)


def _page_fields(part: Mapping[str, object], depth: int = 2) -> Iterator[tuple[str, object]]:
    """The fields of the answer, and of objects that usually describe pages: meta.pagination.next.

    `depth` is how many such objects may stand in one another.
    """
    for name, value in part.items():
        yield name, value
        if depth and _plain(name) in _PAGE_OBJECTS and isinstance(value, dict):
            yield from _page_fields(value, depth - 1)


def _has_more(value: object) -> bool:
    """Whether there is a next page; a link may be an object around its address."""
    if isinstance(value, dict):
        value = value.get("href", value)
    return value.lower() not in ("", "0", "false") if isinstance(value, str) else bool(value)


def _plain(name: str) -> str:
    """One name for has_more, hasMore and has-more."""
    return name.lower().replace("_", "").replace("-", "")


def _partial_list(sign: str, hint: str = "keysync may be too old for this API.") -> AnswerUnusable:
    return AnswerUnusable(
        "partial_list",
        f"The API answered with only a part of the list of SSH keys ({sign}).",
        f"{KEYS_STAY} {hint}",
    )


# ---- JSON ----


def _decode_json(body: bytes) -> object:
    if not body.strip():
        raise AnswerUnusable("empty_body", "The API answered 200 with an empty body.", KEYS_STAY)
    if body.lstrip()[:1] == b"<":
        raise AnswerUnusable(
            "html_page",
            "The API answered 200 with a web page instead of the list of SSH keys.",
            KEYS_STAY + " Check api.url, and whether a proxy or a login page intercepts requests.",
        )
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_VALUES:
        raise _too_large(f"more than {MAX_VALUES} names and values")
    try:
        return json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise AnswerUnusable(
            "not_json",
            f"The API answered 200 with {len(body)} bytes that are not complete JSON.",
            KEYS_STAY + " Check api.url.",
        ) from None


def _refuse_constant(text: str) -> object:
    """Python's reader takes NaN and Infinity, which are not JSON (RFC 8259 section 6)."""
    raise ValueError(text)


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A name with two values may mean either, so it is refused (RFC 8259 section 4)."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise AnswerUnusable(
            "unknown_shape",
            "The API answered 200 with JSON that gives one name two values.",
            _REPORT,
        )
    return members


def _too_large(what: str) -> AnswerUnusable:
    return AnswerUnusable(
        "too_large", f"The API's answer holds {what}.", KEYS_STAY + " Check api.url."
    )


# ---- refusals ----


def _json_or_none(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refusal(status: int, answer: object, retry_after: float | None = None) -> KeysyncError:
    """The error that an answer without a list stands for; `retry_after` is in seconds."""
    reply = f"status {status}{_api_message(answer)}"
    if status in (401, 403) or (isinstance(answer, dict) and answer.get("error") == "auth_error"):
        return CredentialRejected(
            "credential_rejected",
            f"The API refused the API key ({reply}).",
            f"The key needs the permission {API_KEY_PERMISSION}. A deleted or reset key, or a "
            "session key after its week, gets the same answer: create a new key on the "
            "console's Keys page and replace this one.",
        )
    if status == 429:
        return TemporaryFailure(
            "rate_limited",
            f"The API received too many requests ({reply}).",
            "Machines of one account behind one address share the limit; the next poll waits.",
            retry_after,
        )
    if status >= 500:
        message = f"The API failed ({reply})."
        return TemporaryFailure("server_error", message, KEYS_STAY, retry_after)
    return _unusable(status, reply)


def _unusable(status: int, reply: str) -> AnswerUnusable:
    if status == 404:  # documented as "no SSH keys", and also the answer to a bad API key
        return AnswerUnusable(
            "not_found",
            f"The account has no SSH keys, or the API key is wrong ({reply}).",
            "A 404 is never taken for an empty list. Check the API key on the console's Keys "
            "page, and api.url.",
        )
    if 300 <= status < 400:
        return AnswerUnusable(
            "redirected",
            f"The API answered with a redirect ({reply}), which keysync does not follow.",
            "Check api.url: it must be the console's own address, with https.",
        )
    if status == 200:
        return AnswerUnusable("error_answer", f"The API reported an error ({reply}).", KEYS_STAY)
    return AnswerUnusable(
        "unexpected_status", f"The API gave an unexpected answer ({reply}).", KEYS_STAY
    )


def _api_message(answer: object) -> str:
    """The API's own words, to follow its status; "" without any."""
    if not isinstance(answer, dict):
        return ""
    words = [answer.get(name) for name in ("error", "msg", "message", "detail")]
    texts = [printable(word) for word in words if isinstance(word, str) and word]
    return ": " + "; ".join(texts) if texts else ""
