"""A listing is complete, unambiguous and of one account; anything else is refused (G1)."""

from __future__ import annotations

import json

import pytest

from agent.core.answer import Answer
from agent.core.listing import MAX_ENTRIES, Listing
from agent.errors import AnswerUnusable
from agent.providers.vast import MAX_VALUES, read_listing

ENTRY = {"id": 1, "user_id": 7, "key": "no key"}


def parse(answer: object) -> Listing:
    return read_listing(Answer(200, json.dumps(answer).encode()), 2048)


def kind_of(body: bytes) -> str:
    with pytest.raises(AnswerUnusable) as caught:
        read_listing(Answer(200, body), 2048)
    return caught.value.kind


# Written out, so that a name which is lost in the code fails here.
MORE = (
    *("next", "next_page", "next_url", "next_page_url", "next_link"),
    *("next_token", "next_page_token", "next_cursor", "has_more"),
)
PAGE_OBJECTS = ("meta", "links", "_links", "pagination")
TOTALS = ("count", "total", "total_count")

NO: list[object] = [None, False, 0, "", "0", "false", "False", {"href": None}, {}, []]


def spellings(name: str) -> list[str]:
    camel = "".join(part.capitalize() for part in name.split("_"))
    return [name, name.upper(), name.replace("_", "-"), camel, camel[:1].lower() + camel[1:]]


def kind_with(more: dict[str, object]) -> str:
    return kind_of(json.dumps({"ssh_keys": [ENTRY], **more}).encode())


@pytest.mark.parametrize("name", MORE)
def test_a_page_names_the_next_one(name: str) -> None:
    """G1: the keys on the other pages are not deleted ones, however the API spells it."""
    for spelled in spellings(name):
        for value in (True, 1, "x", "true", {"href": "/x"}, {"cursor": "x"}, ["x"]):
            assert kind_with({spelled: value}) == "partial_list"
        for no in NO:
            assert len(parse({"ssh_keys": [ENTRY], spelled: no}).rejected) == 1


@pytest.mark.parametrize("name", PAGE_OBJECTS)
def test_a_page_says_so_in_an_object_of_its_own(name: str) -> None:
    """G1: the usual objects that describe pages are looked into."""
    for spelled in spellings(name):
        for more in ({"next": "/x"}, {"hasMore": True}, {"total": 9}, {"next": {"href": "/x"}}):
            assert kind_with({spelled: more}) == "partial_list"
        for complete in ({"next": None, "total": 1}, [{"rel": "self", "href": "/"}], "next", 1):
            assert len(parse({"ssh_keys": [ENTRY], spelled: complete}).rejected) == 1


@pytest.mark.parametrize("name", TOTALS)
def test_a_greater_total(name: str) -> None:
    """G1: more keys than came; the message says why that stops revocation, and what to do."""
    for spelled in spellings(name):
        assert kind_with({spelled: 2}) == kind_with({spelled: "2"}) == "partial_list"
        for complete in (0, 1, "1", None, "all", True):
            assert len(parse({"ssh_keys": [ENTRY], spelled: complete}).rejected) == 1
    with pytest.raises(AnswerUnusable) as caught:
        parse({"ssh_keys": [ENTRY], name: 2})
    assert f"({name} is 2, 1 came)" in caught.value.message
    assert "includes deleted keys" in caught.value.hint


def test_a_total_counts_deleted_entries_that_came() -> None:
    """R2, G1: an entry that is sent as deleted is not a missing one; its key is revoked."""
    deleted = ENTRY | {"deleted_at": "2024-01-01"}
    assert parse({"ssh_keys": [deleted], "total": 1}).rejected == ()


def test_a_link_header_names_the_next_page() -> None:
    """G1: RFC 8288, also beside a bare list."""
    body = json.dumps([ENTRY]).encode()
    with pytest.raises(AnswerUnusable) as caught:
        read_listing(Answer(200, body, has_next_link=True), 2048)
    assert caught.value.kind == "partial_list"


def test_a_strange_name_is_shown_safely() -> None:
    """Logs: a name of the answer is somebody else's text."""
    with pytest.raises(AnswerUnusable) as caught:
        parse({"ssh_keys": [ENTRY], "next\x1b[2J\u202e" + "x" * 500: 1})
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["meta", "_links", "pagination"])
def test_a_page_object_in_a_page_object(name: str) -> None:
    """G1: `meta.pagination.next` and `meta.pagination.total` are common."""
    assert kind_with({"meta": {name: {"next": "/x"}}}) == "partial_list"
    assert kind_with({"meta": {name: {"total": 9}}}) == "partial_list"


@pytest.mark.parametrize(
    "more",
    [
        {"pages": 4, "page_count": 4, "truncated": True, "has_next": True},
        {"user": {"next_invoice": "2027-01-01", "count": 9}, "more": {"next": "/x"}},
        {"meta": {"meta": {"meta": {"next": "/x"}}}, "limits": {"total": 100}, "context": "next"},
    ],
)
def test_other_fields_are_ignored(more: dict[str, object]) -> None:
    """G1: a field that keysync does not know never stops revocation."""
    assert len(parse({"ssh_keys": [ENTRY], **more}).rejected) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"next": None, "has_more": False, "truncated": False},
        {"total": 1, "count": "1", "total_count": None},
        {"total": "all", "meta": {"next": ""}, "links": [], "pagination": "none"},
        {"links": {"self": {"href": "/x"}, "next": {"href": None}}},
    ],
)
def test_a_single_page_is_a_listing(more: dict[str, object]) -> None:
    """G1: an answer which says that nothing follows is complete."""
    assert len(parse({"ssh_keys": [ENTRY], **more}).rejected) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"ssh_keys": [], "ssh_keys": []}',
        b'[{"id": 1, "id": 1}]',
        b'[{"id": 1, "more": {"a": 1, "a": 2}}]',
    ],
)
def test_a_name_has_one_value(body: bytes) -> None:
    """G1: which of two values holds is not for the reader to choose (RFC 8259 section 4)."""
    assert kind_of(body) == "unknown_shape"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_are_those_of_json(number: bytes) -> None:
    """G1: RFC 8259 section 6."""
    assert kind_of(b'[{"id": %s}]' % number) == "not_json"


@pytest.mark.parametrize("stranger", ["me", 7.5, True, [7], {"id": 7}, "7x", 8])
def test_an_account_that_cannot_be_read_is_another_one(stranger: object) -> None:
    """G4: one entry of the account does not make the others the account's."""
    body = json.dumps([ENTRY, ENTRY | {"user_id": stranger}]).encode()
    assert kind_of(body) == "several_accounts"


def test_size() -> None:
    """G1: as many entries and values as there may be, and one more."""
    assert len(parse([{"id": 1}] * MAX_ENTRIES).rejected) == MAX_ENTRIES
    assert kind_of(json.dumps([{}] * (MAX_ENTRIES + 1)).encode()) == "too_large"
    assert kind_of(b"[" + b"0," * (MAX_VALUES - 1) + b"0]") == "unknown_shape"
    assert kind_of(b"[" + b"0," * MAX_VALUES + b"0]") == "too_large"
