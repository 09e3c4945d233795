"""The account's SSH keys as one complete, validated answer of the console's API (G1, G2).

Whatever is not certainly a whole listing is an error with its own kind, never an empty listing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.core.authorized_keys import printable
from agent.core.key_entry import fingerprints_in, parse_entry
from agent.core.public_key import Accepts, PublicKey, not_asked
from agent.core.wire import InvalidKey
from agent.errors import AnswerUnusable, CredentialRejected, KeysyncError, TemporaryFailure

MAX_ENTRIES = 10_000  # the ledger remembers them all, and many deleted keys beside them (G11, G12)
_ID_LIMIT = 10**18
MAX_VALUES = 1_000_000  # 16 MB could hold five million, which take 24 times as much in memory
_KEPT = "The keys on this machine stay as they are; the next sync tries again."


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key of the account, under the console's id for it."""

    key: PublicKey
    comment: str
    key_id: int | None


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An entry that is refused: the reason's name, and a sentence for people."""

    key_id: int | None
    reason: str
    detail: str
    fingerprints: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Listing:
    """The usable keys in the console's order, the refused entries, and whose list it is.

    `protected` are the fingerprints of keys that refused entries held before (G2).
    """

    keys: tuple[ListedKey, ...]
    rejected: tuple[RejectedEntry, ...]
    account_id: int | None
    protected: frozenset[str] = frozenset()

    @property
    def usable(self) -> frozenset[str]:
        """The fingerprints of the keys that are valid entries."""
        return frozenset(listed.key.fingerprint for listed in self.keys)

    @property
    def present(self) -> frozenset[str]:
        """The fingerprints of every key that the console still holds, refused ones included."""
        return self.usable.union(self.protected, *(entry.fingerprints for entry in self.rejected))

    @property
    def listed_but_malformed(self) -> frozenset[str]:
        """The keys that the console still holds in an entry that is refused for its form alone.

        A line break inside an entry must not take its key from the machine; its weakness must.
        """
        entries = (entry for entry in self.rejected if entry.reason not in _WEAK)
        return self.protected.union(*(entry.fingerprints for entry in entries))

    @property
    def malformed_ids(self) -> frozenset[int | None]:
        """The console's ids of the entries that are refused for the form of their text (G2)."""
        return frozenset(
            entry.key_id for entry in self.rejected if entry.reason not in _WELL_FORMED
        )

    def protecting(self, fingerprints: frozenset[str]) -> Listing:
        """The same listing, in which these keys count as still on the console."""
        return replace(self, protected=fingerprints)

    @classmethod
    def parse(cls, body: bytes, min_rsa_bits: int, accepts: Accepts | None = None) -> Listing:
        """The listing in the body of a 200 answer.

        `accepts` answers whether this machine's sshd accepts a key type, None when sshd cannot be
        asked; it is called only for entries that are otherwise good.

        Raises AnswerUnusable when it is anything but a whole list of entries of one account, and
        CredentialRejected when it is the API's refusal of the key.
        """
        entries = _entries(_decode_json(body))
        keys: dict[bytes, ListedKey] = {}
        rejected = []
        for entry in entries:
            if entry.get("deleted_at"):
                continue
            judged = _judge(entry, min_rsa_bits, accepts or not_asked)
            if isinstance(judged, RejectedEntry):
                rejected.append(judged)
            else:
                keys.setdefault(judged.key.blob, judged)
        return cls(tuple(keys.values()), tuple(rejected), _account(entries))


def _judge(
    entry: Mapping[str, object], min_rsa_bits: int, accepts: Accepts
) -> ListedKey | RejectedEntry:
    key_id = _entry_id(entry.get("id"))
    text = next((t for t in map(entry.get, _TEXT_FIELDS) if isinstance(t, str)), None)
    if text is None:
        return RejectedEntry(key_id, "no_key_text", "the entry has no key text")
    try:
        key, comment = parse_entry(text, min_rsa_bits)
    except InvalidKey as error:
        return RejectedEntry(key_id, error.reason, error.detail, fingerprints_in(text))
    if not key.accepted_by(accepts):
        detail = _unsupported(key, accepts)
        return RejectedEntry(key_id, "unsupported_by_sshd", detail, frozenset({key.fingerprint}))
    return ListedKey(key, comment, key_id)


def _unsupported(key: PublicKey, accepts: Accepts) -> str:
    """Why the type of a key keeps it out, and what to do."""
    if accepts(key.key_type) is None:
        return (
            f"keysync does not know the key type {key.key_type}, and this machine's sshd could not "
            "be asked whether it accepts it; mend what `sshd -T` complains of, or save a key of "
            "another type such as ssh-ed25519"
        )
    return (
        f"this machine's sshd does not accept keys of the type {key.key_type}; save a key of "
        "another type such as ssh-ed25519, or add the type to PubkeyAcceptedAlgorithms in "
        "sshd_config where sshd knows it"
    )


_WEAK = ("rsa_too_small", "weak_key", "unsupported_type", "certificate")
_WELL_FORMED = (*_WEAK, "unsupported_by_sshd")  # the entry says clearly which key it holds now
_TEXT_FIELDS = ("key", "public_key", "ssh_key")


def _integer(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _entry_id(value: object) -> int | None:
    """The ledger remembers it, so one with thousands of digits counts as none (G12)."""
    found = _integer(value)
    return found if found is not None and abs(found) < _ID_LIMIT else None


def _account(entries: list[Mapping[str, object]]) -> int | None:
    """Deleted entries count: they too say whose list it is. One that cannot be read is no answer
    to that question, and no listing of the expected account (G4).
    """
    named = [entry["user_id"] for entry in entries if entry.get("user_id") is not None]
    owners = set(map(_integer, named))
    if len(owners) > 1:  # one that cannot be read is another one too
        raise AnswerUnusable(
            "several_accounts",
            f"The list of SSH keys names {len(owners)} different accounts.",
            _KEPT + " If it stays, report it to the provider.",
        )
    if not all(owner is not None and 0 < owner < _ID_LIMIT for owner in owners):
        raise AnswerUnusable(
            "malformed_account",
            "The list of SSH keys names its account (user_id) by something that is no id.",
            _KEPT + " Check api.url; if it stays, report it to the provider.",
        )
    return owners.pop() if owners else None


def _decode_json(body: bytes) -> object:
    if not body.strip():
        raise AnswerUnusable("empty_body", "The API answered 200 with an empty body.", _KEPT)
    if body.lstrip()[:1] == b"<":
        raise AnswerUnusable(
            "html_page",
            "The API answered 200 with a web page instead of the list of SSH keys.",
            _KEPT + " Check api.url, and whether a proxy or a login page stands in between.",
        )
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_VALUES:
        raise _too_large(f"more than {MAX_VALUES} names and values")
    try:
        return json.loads(body, parse_constant=_no_number, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise AnswerUnusable(
            "not_json",
            f"The API answered 200 with {len(body)} bytes that are not whole JSON.",
            _KEPT + " Check api.url.",
        ) from None


def _no_number(text: str) -> object:
    """Python's reader takes NaN and Infinity, which are not JSON (RFC 8259 section 6)."""
    raise ValueError(text)


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object that says two things under one name may mean either (RFC 8259 section 4)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise AnswerUnusable(
            "unknown_shape",
            "The API answered 200 with JSON that gives one name two values.",
            _KEPT + " If it stays, report it to the provider.",
        )
    return found


def _too_large(what: str) -> AnswerUnusable:
    return AnswerUnusable("too_large", f"The API's answer holds {what}.", _KEPT + " Check api.url.")


def partial_list(sign: str, hint: str = "keysync may be too old for this API.") -> AnswerUnusable:
    """The answer says of itself that it is a part; the rest must not be taken for deleted."""
    return AnswerUnusable(
        "partial_list",
        f"The API answered with a part of the list of SSH keys only ({sign}).",
        f"{_KEPT} {hint}",
    )


def _check_whole(answer: Mapping[str, object], entries: int) -> None:
    """Looks for the usual signs of pages, since a page is no complete listing (G1)."""
    for part in _about_pages(answer):
        for name, value in part.items():
            plain, number = _plain(name), _integer(value)
            if plain in _MORE and _says_yes(value):
                raise partial_list(name)
            if plain in _PAGE_COUNTS and number is not None and number > 1:
                raise partial_list(f"{name} is {number}")
            if plain in _TOTALS and number is not None and number > entries:
                raise partial_list(f"{name} is {number}, {entries} came", _TOTAL_HINT)


def _about_pages(answer: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The answer and the objects in it that describe it, whatever the depth."""
    parts = [answer]
    for part in parts:  # which grows meanwhile; recursion could be led too deep
        for name, value in part.items():
            if _plain(name) not in _ABOUT_PAGES:
                continue
            if isinstance(value, dict):
                parts.append(value)
            if isinstance(value, list):  # of links, each with its relation
                parts += [{str(one.get("rel")): one} for one in value if isinstance(one, dict)]
    return parts


def _says_yes(value: object) -> bool:
    """Whether there is a next page; a link may be an object around its address."""
    if isinstance(value, dict):
        value = value.get("href", value)
    return value.lower() not in ("", "0", "false") if isinstance(value, str) else bool(value)


def _plain(name: str) -> str:
    """One name for has_more, hasMore and has-more."""
    return name.lower().replace("_", "").replace("-", "")


# As _plain gives them.
_ABOUT_PAGES = (
    *("meta", "metadata", "responsemetadata", "links"),
    *("page", "pages", "pageinfo", "pagination", "paging"),
)
_MORE = (
    *("next", "nextpage", "nexturl", "nextpageurl", "nextlink"),
    *("nexttoken", "nextpagetoken", "continuationtoken", "nextcursor"),
    *("hasmore", "hasnext", "hasnextpage", "truncated", "istruncated"),
)
_PAGE_COUNTS = ("pages", "totalpages", "numpages", "pagecount", "lastpage")
_TOTALS = ("count", "total", "totalcount", "totalitems", "totalelements", "totalresults")
_TOTAL_HINT = (
    "A number that counts deleted keys too, which were not sent, cannot be told from a missing "
    "page: report it to the provider, since no deleted key is taken away until it is right."
)


def _entries(answer: object) -> list[Mapping[str, object]]:
    """The list itself, bare or under `ssh_keys`."""
    entries = answer
    if isinstance(answer, dict):
        if answer.get("success") is False or answer.get("error"):
            raise _refusal(200, answer)
        entries = answer.get("ssh_keys")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AnswerUnusable(
            "unknown_shape",
            "The API answered 200 with JSON that is not a list of SSH keys.",
            _KEPT + " Check api.url; if it is right, keysync may be too old for this API.",
        )
    if isinstance(answer, dict):
        _check_whole(answer, len(entries))
    if len(entries) > MAX_ENTRIES:
        raise _too_large(f"more than {MAX_ENTRIES} keys")
    return entries


# ---- answers other than 200 ----


def refusal(status: int, body: bytes, retry_after: float | None) -> KeysyncError:
    """What an answer with any status but 200 means; `retry_after` is in seconds."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    return _refusal(status, answer, retry_after)


def _refusal(status: int, answer: object, retry_after: float | None = None) -> KeysyncError:
    said = _said(answer)
    if status in (401, 403) or (isinstance(answer, dict) and answer.get("error") == "auth_error"):
        return CredentialRejected(
            "credential_rejected",
            f"The API refused the API key (status {status}{said}).",
            "Its scope must hold user_read. A deleted or reset key, and a session key after its "
            "week, look the same: make a new key on the console's Keys page and replace this one.",
        )
    if status == 429:
        return TemporaryFailure(
            "rate_limited",
            f"The API said that requests come too often (status 429{said}).",
            "Machines of one account behind one address share the limit; the next poll waits.",
            retry_after,
        )
    if status >= 500:
        return TemporaryFailure(
            "server_error", f"The API failed (status {status}{said}).", _KEPT, retry_after
        )
    return _unusable(status, said)


def _unusable(status: int, said: str) -> AnswerUnusable:
    if status == 404:
        return AnswerUnusable(
            "not_found",
            f"The API answered 404{said}: the account has no SSH keys, or the API key is wrong.",
            "A 404 is never taken for an empty list. Check the API key on the console's Keys "
            "page, and api.url.",
        )
    if 300 <= status < 400:
        return AnswerUnusable(
            "redirected",
            f"The API answered with a redirect (status {status}), which is not followed.",
            "Check api.url: it must be the console's own address, with https.",
        )
    if status == 200:
        return AnswerUnusable(
            "error_answer", f"The API answered 200 with an error in it{said}.", _KEPT
        )
    return AnswerUnusable(
        "unexpected_status", f"The API answered with status {status}{said}.", _KEPT
    )


def _said(answer: object) -> str:
    """The API's own words, for the message."""
    if not isinstance(answer, dict):
        return ""
    words = [answer.get(name) for name in ("error", "msg", "message", "detail")]
    texts = [printable(word) for word in words if isinstance(word, str) and word]
    return ", which said: " + "; ".join(texts) if texts else ""
