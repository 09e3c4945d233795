"""Vast.ai's answers: what is a complete listing, and what every other answer is called."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.answer import Answer
from agent.core.listing import ListedKey, Listing
from agent.errors import AnswerUnusable, CredentialRejected, KeysyncError, TemporaryFailure
from agent.providers.vast import list_url, read_listing
from tests.core.support import ed25519, ed25519_blob, examples, rsa_blob, text_of

FLOOR = 2048
KEYS = tuple(map(ed25519, range(4)))
TEXTS = tuple(text_of(ed25519_blob(at), f"key {at}") for at in range(4))
Entry = dict[str, Any]


def entry(at: int, **more: Any) -> Entry:
    """One of the account's keys, as `GET /ssh/` is documented to give it."""
    return {
        "id": 10 + at,
        "user_id": 7,
        "key": TEXTS[at],
        "created_at": "2026-01-01",
        "deleted_at": None,
        **more,
    }


def read_body(body: bytes) -> Listing:
    return read_listing(Answer(200, body), FLOOR)


def refusal(status: int, body: bytes, retry_after: float | None = None) -> KeysyncError:
    """What an answer with another status than 200 is refused for."""
    with pytest.raises(KeysyncError) as raised:
        read_listing(Answer(status, body, retry_after=retry_after), FLOOR)
    return raised.value


def parse(answer: object) -> Listing:
    return read_body(json.dumps(answer).encode())


def failure_of(answer: object) -> KeysyncError:
    with pytest.raises(KeysyncError) as raised:
        parse(answer)
    return raised.value


LISTED = tuple(ListedKey(KEYS[at], f"key {at}", 10 + at) for at in range(4))


@pytest.mark.parametrize("url", ["https://console.vast.ai", "https://console.vast.ai/"])
def test_the_address_of_the_list(url: str) -> None:
    """The API as documented: `GET /api/v0/ssh/`."""
    assert list_url(url) == "https://console.vast.ai/api/v0/ssh/"


def test_the_permission_is_named() -> None:
    """API key: the message tells which permission the key needs."""
    assert "user_read" in refusal(401, b"").hint


# ---- complete listings, in every shape (the API as documented) ----


@pytest.mark.parametrize(
    "answer",
    [
        [entry(0), entry(1)],
        {"ssh_keys": [entry(0), entry(1)]},
        {"success": True, "ssh_keys": [entry(0), entry(1)]},
        {"success": True, "error": None, "ssh_keys": [entry(0), entry(1)], "more": {}},
        [
            {"id": 10, "user_id": 7, "public_key": TEXTS[0]},
            {"id": 11, "user_id": 7, "ssh_key": TEXTS[1]},
        ],
        [entry(0, key=None, public_key=TEXTS[0]), entry(1, key=5, ssh_key=TEXTS[1])],
        [entry(0, deleted_at=""), entry(1, deleted_at=False)],
        [entry(0), entry(2, deleted_at="2026-02-01T00:00:00Z"), entry(1)],
        [entry(0), entry(1, user_id=None)],
        [entry(0), entry(1), entry(0, id=99)],
    ],
)
def test_every_known_shape_is_understood(answer: object) -> None:
    """The API: bare or wrapped, the text under three names, deleted entries marked."""
    assert parse(answer) == Listing(LISTED[:2], (), 7)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_encodings_of_json_are_understood(encoding: str) -> None:
    """RFC 4627 section 3: JSON is Unicode; and the comment is kept as it is."""
    text = json.dumps([entry(0, key=f"{TEXTS[0]} Zoë 🔑")], ensure_ascii=False)
    (key,) = read_body(text.encode(encoding)).keys
    assert key.comment == "key 0 Zoë 🔑"


@pytest.mark.parametrize("answer", [[], {"ssh_keys": []}, {"success": True, "ssh_keys": []}])
def test_an_empty_list_is_an_empty_listing_of_nobody(answer: object) -> None:
    """G3: a really empty list is a listing, which the lockout guard then holds."""
    assert parse(answer) == Listing((), (), None)


def test_a_list_of_deleted_entries_is_empty_and_says_whose_it_is() -> None:
    """The API: an entry whose `deleted_at` is set is deleted. G4: it still names its account."""
    assert parse([entry(0, deleted_at="2026-02-01"), entry(1, deleted_at=1767225600)]) == Listing(
        (), (), 7
    )


def test_two_ids_for_one_key_are_one_key() -> None:
    """Identity is the blob; the first entry of the console's order counts."""
    listing = parse([entry(1), entry(0), entry(1, id=99, key=f"{TEXTS[1]} again")])
    assert listing.keys == (LISTED[1], LISTED[0])


def test_one_bad_entry_never_stops_the_good_ones() -> None:
    """G2: it is rejected by name and reason."""
    bad = {
        "newline": entry(0, id=1, key=f"{TEXTS[0]}\n{TEXTS[3]}"),
        "options": entry(0, id=2, key=f'command="x" {TEXTS[2]}'),
        "rsa_too_small": entry(0, id=3, key=text_of(rsa_blob(1024))),
        "private_key": entry(0, id=4, key="-----BEGIN OPENSSH PRIVATE KEY-----"),
        "empty": entry(0, id=5, key=""),
        "no_key_text": entry(0, id=6, key=None),
        "not_a_key": entry(0, id="x", key="hello"),
        "control_character": entry(0, id=True, key=f"{TEXTS[0]}\0"),
    }
    listing = parse([entry(0), *bad.values(), entry(1)])
    assert listing.keys == LISTED[:2]
    assert [(one.key_id, one.reason) for one in listing.rejected] == [
        (1, "newline"),
        (2, "options"),
        (3, "rsa_too_small"),
        (4, "private_key"),
        (5, "empty"),
        (6, "no_key_text"),
        (None, "not_a_key"),
        (None, "control_character"),
    ]
    assert all(one.detail for one in listing.rejected)
    assert {one.reason: len(one.fingerprints) for one in listing.rejected if one.fingerprints} == {
        "newline": 2,
        "options": 1,
        "rsa_too_small": 1,
        "control_character": 1,
    }


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (12, 12),
        ("12", 12),
        ("007", 7),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, None),
        ("٣", None),
        ("-1", None),
        ("1.0", None),
        (10**18 - 1, 10**18 - 1),
        (10**18, None),
        ("", None),
        (1.0, None),
        (True, None),
        ([7], None),
        (None, None),
    ],
)
def test_a_number_may_be_written_as_text(value: object, number: int | None) -> None:
    """G2: the id of an entry that cannot be read is none, and keeps no key out."""
    (key,) = parse([entry(0, id=value)]).keys
    assert key.key_id == number


@pytest.mark.parametrize("value", [7, "7", "007", 1, "1", 10**18 - 1, "9" * 18])
def test_an_account_may_be_written_as_text(value: object) -> None:
    """G4: an account that is not recognised as one would not be pinned."""
    assert parse([entry(0, user_id=value)]).account_id == int(str(value))


@pytest.mark.parametrize(
    "value",
    [
        *(7.0, 7.5, "abc", "", "7.0", "-7", "٣", " 7", True, False, [7], [], {"id": 7}),
        *(0, "0", -1, 10**18, "9" * 19, 10**40),
    ],
)
def test_an_account_that_cannot_be_read_is_a_malformed_answer(value: object) -> None:
    """G4 and incident 10: not "no account", which would be accepted and would pin none."""
    for answer in (
        [entry(0, user_id=value)],
        [entry(0), entry(1, user_id=value)],
        [entry(0, user_id=value), entry(1, user_id=None)],
        [entry(0, user_id=value, deleted_at="2026-02-01")],
        {"ssh_keys": [entry(0, user_id=value), entry(1, user_id=value)]},
    ):
        error = failure_of(answer)
        assert isinstance(error, AnswerUnusable)
        assert error.kind in ("malformed_account", "several_accounts")
        assert error.hint
    assert failure_of([entry(0, user_id=value)]).kind == "malformed_account"


def test_a_deleted_entry_protects_nothing() -> None:
    """R5: whatever stands in it."""
    assert parse([entry(0, key="hello", deleted_at="2026-02-01")]).malformed_ids == frozenset()


def test_an_entry_without_an_id_is_a_key_all_the_same() -> None:
    """G2: the id only helps people to find the entry."""
    assert parse([{"key": TEXTS[0]}]) == Listing((ListedKey(KEYS[0], "key 0", None),), (), None)


# ---- answers of 200 that are no listing (G1) ----


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "empty_body"),
        (b" \r\n\t", "empty_body"),
        (b"<!DOCTYPE html><html>", "html_page"),
        (b"\n  <html><body>Sign in</body></html>", "html_page"),
        (b"no keys", "not_json"),
        (b"\xff\xfe\xfd", "not_json"),
        (b"[", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"1" * 10_000, "not_json"),
        (b"null", "unknown_shape"),
        (b"true", "unknown_shape"),
        (b"0", "unknown_shape"),
        (b'""', "unknown_shape"),
        (b'"[]"', "unknown_shape"),
        (b"{}", "unknown_shape"),
        (b"[null]", "unknown_shape"),
        (b"[[]]", "unknown_shape"),
        (b'["ssh-ed25519 AAAA"]', "unknown_shape"),
        (b'{"ssh_keys": null}', "unknown_shape"),
        (b'{"ssh_keys": {}}', "unknown_shape"),
        (b'{"ssh_keys": [1]}', "unknown_shape"),
        (b'{"keys": []}', "unknown_shape"),
        (b'{"success": true}', "unknown_shape"),
        (b'{"success": true, "ssh_keys": "[]"}', "unknown_shape"),
        (b'{"success": true, "key": {"id": 1, "public_key": "x"}}', "unknown_shape"),
        (b'{"success": false}', "error_answer"),
        (b'{"success": false, "ssh_keys": []}', "error_answer"),
        (b'{"error": "busy", "msg": "try later"}', "error_answer"),
        (b'{"error": "busy", "ssh_keys": []}', "error_answer"),
        (b'{"success": true, "error": "partial", "ssh_keys": []}', "error_answer"),
    ],
)
def test_a_200_that_is_no_listing_is_unusable(body: bytes, kind: str) -> None:
    """G1: an unknown shape, HTML, truncated or non-JSON text is never read as "no keys"."""
    with pytest.raises(AnswerUnusable) as raised:
        read_body(body)
    assert (raised.value.kind, raised.value.exit_code) == (kind, 65)
    assert raised.value.hint


def test_entries_of_two_accounts_are_no_listing() -> None:
    """G1: the listing of the expected account, and of one account only."""
    error = failure_of([entry(0), entry(1, user_id=8, deleted_at="2026-02-01"), entry(2)])
    assert (error.kind, error.exit_code) == ("several_accounts", 65)
    assert "2 different accounts" in error.message


def test_a_refused_key_with_status_200_is_a_rejected_credential() -> None:
    """API key: the API's `auth_error` is that, whatever the status."""
    error = failure_of({"success": False, "error": "auth_error", "msg": "Invalid user key"})
    assert isinstance(error, CredentialRejected)
    assert "(status 200: auth_error; Invalid user key" in error.message


def test_every_truncation_of_a_listing_is_unusable() -> None:
    """G1: truncated text is its own failure, wherever it was cut."""
    for answer in ([entry(0), entry(1)], {"success": True, "ssh_keys": [entry(0)]}, [], {}):
        body = json.dumps(answer).encode()
        for size in range(len(body)):
            with pytest.raises(AnswerUnusable) as raised:
                read_body(body[:size])
            assert raised.value.kind == ("not_json" if size else "empty_body")


# ---- any other status (G1) ----


@pytest.mark.parametrize(
    ("status", "body", "kind", "exit_code"),
    [
        (401, b"", "credential_rejected", 77),
        (403, b'{"error": "forbidden"}', "credential_rejected", 77),
        (404, b'{"success": false, "error": "auth_error", "msg": "x"}', "credential_rejected", 77),
        (429, b'{"error": "auth_error"}', "credential_rejected", 77),
        (429, b"API requests too frequent: endpoint threshold=1.0", "rate_limited", 75),
        (429, b'{"detail": "API requests too frequent"}', "rate_limited", 75),
        (500, b"", "server_error", 75),
        (502, b"<html>bad gateway</html>", "server_error", 75),
        (503, b"[]", "server_error", 75),
        (599, b'{"ssh_keys": []}', "server_error", 75),
        (404, b"", "not_found", 65),
        (404, b'{"success": false, "msg": "No SSH keys found for the user"}', "not_found", 65),
        (404, b"[]", "not_found", 65),
        (300, b"", "redirected", 65),
        (301, b"", "redirected", 65),
        (302, b"[]", "redirected", 65),
        (304, b"", "redirected", 65),
        (399, b"<html>", "redirected", 65),
        (201, b"[]", "unexpected_status", 65),
        (204, b"", "unexpected_status", 65),
        (400, b"", "unexpected_status", 65),
        (400, b'{"error": "no_ssh_key"}', "unexpected_status", 65),
        (402, b"", "unexpected_status", 65),
        (418, b"[" * 100_000, "unexpected_status", 65),
    ],
)
def test_every_status_has_its_own_failure(
    status: int, body: bytes, kind: str, exit_code: int
) -> None:
    """G1: 3xx, 401, 403, 404, 429, 5xx are each a failure, none is ever read as "no keys"."""
    error = refusal(status, body)
    assert (error.kind, error.exit_code) == (kind, exit_code)
    assert str(status) in error.message
    assert error.hint


def test_a_404_names_both_of_its_causes() -> None:
    """G1: a 404 is documented as "no keys", and is also what a bad API key gets."""
    error = refusal(404, b'{"msg": "No SSH keys found for the user"}')
    assert "no SSH keys" in error.message
    assert "API key is wrong" in error.message
    assert "No SSH keys found for the user" in error.message


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(status: int) -> None:
    """Polling: Retry-After is honoured when it is there."""
    for seconds in (None, 30.0):
        error = refusal(status, b"", seconds)
        assert isinstance(error, TemporaryFailure)
        assert error.retry_after == seconds


def test_the_apis_words_are_shown_safely() -> None:
    """G10 and logs: what a server says is somebody else's text."""
    body = json.dumps(
        {"error": "\x1b[2J\u202e", "msg": "x" * 200, "message": 5, "detail": "\ud800"}
    ).encode()
    message = refusal(500, body).message
    assert message.isprintable()
    assert "\\x1b[2J\\u202e; " in message
    assert "x" * 81 not in message
    assert message.endswith("\\ud800).")


# ---- whatever comes ----

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
key_texts = st.sampled_from((*TEXTS, "", "hello", f"x {TEXTS[0]}", f"{TEXTS[0]}\n")) | st.text()
entries = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers() | json_values,
        "user_id": st.sampled_from((7, 7, 7, 8, None, "7", True)),
        "key": key_texts | json_values,
        "public_key": key_texts,
        "ssh_key": key_texts,
        "deleted_at": st.sampled_from((None, None, "2026-01-01", "", 0, 1)),
    },
)
lists = st.lists(entries, max_size=5) | st.lists(json_values, max_size=2)
answers = st.one_of(
    lists,
    st.fixed_dictionaries(
        {"ssh_keys": lists | json_values},
        optional={
            "success": st.booleans(),
            "error": st.sampled_from((None, "", "busy", "auth_error", 5, [])),
        },
    ),
    json_values,
)


def really_empty(answer: object) -> bool:
    """The tests' own reading: a list, bare or under `ssh_keys`, of deleted entries at most."""
    if isinstance(answer, dict) and not answer.get("error") and answer.get("success") is not False:
        answer = answer.get("ssh_keys")
    return isinstance(answer, list) and all(
        isinstance(one, dict) and one.get("deleted_at") for one in answer
    )


def outcome(body: bytes) -> Listing | KeysyncError:
    """The listing, or what it is refused for; any other exception is a fault."""
    try:
        return read_body(body)
    except KeysyncError as error:
        return error


@settings(max_examples=examples(200))
@given(answers)
def test_any_json_is_a_listing_or_a_named_failure(answer: object) -> None:
    """G1 and G2: every answer has a name, and an empty listing is only a really empty list."""
    listing = outcome(json.dumps(answer).encode())
    if not isinstance(listing, Listing):
        assert isinstance(listing, (AnswerUnusable, CredentialRejected))
        assert listing.message.isprintable()
        return
    found = answer.get("ssh_keys") if isinstance(answer, dict) else answer
    assert isinstance(found, list)
    live = [one for one in found if not one.get("deleted_at")]
    assert (not listing.keys and not listing.rejected) == really_empty(answer)
    assert len(listing.keys) + len(listing.rejected) <= len(live)
    assert {key.key for key in listing.keys} >= {
        KEYS[TEXTS.index(one["key"])] for one in live if one.get("key") in TEXTS
    }


@given(st.binary() | answers.map(lambda answer: json.dumps(answer).encode()[:-1]))
def test_any_bytes_are_a_listing_or_a_named_failure(body: bytes) -> None:
    """G1: nothing but a KeysyncError ever comes out, and never "no keys" by accident."""
    listing = outcome(body)
    if not isinstance(listing, Listing):
        assert isinstance(listing, (AnswerUnusable, CredentialRejected))
    elif not listing.keys and not listing.rejected:
        assert really_empty(json.loads(body))


@given(
    st.integers(100, 599).filter(lambda status: status != 200),
    st.binary() | answers.map(lambda answer: json.dumps(answer).encode()),
)
def test_any_other_status_is_a_named_failure(status: int, body: bytes) -> None:
    """G1: only a 200 can be a listing; the message is one printable line."""
    error = refusal(status, body)
    assert isinstance(error, (AnswerUnusable, TemporaryFailure, CredentialRejected))
    assert error.message.isprintable()
    assert str(status) in error.message
