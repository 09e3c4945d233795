"""A listing is whole, of one account, and says one thing: what hints at another is refused (G1)."""

from __future__ import annotations

import json

import pytest

from agent.core.listing import MAX_ENTRIES, MAX_VALUES, Listing
from agent.errors import AnswerUnusable

ENTRY = {"id": 1, "user_id": 7, "key": "no key"}


def parse(answer: object) -> Listing:
    return Listing.parse(json.dumps(answer).encode(), 2048)


def kind_of(body: bytes) -> str:
    with pytest.raises(AnswerUnusable) as caught:
        Listing.parse(body, 2048)
    return caught.value.kind


# Written out, so that a name which is lost in the code fails here.
MORE = (
    *("next", "next_page", "next_url", "next_page_url", "next_link"),
    *("next_token", "next_page_token", "continuation_token", "next_cursor"),
    *("has_more", "has_next", "has_next_page", "truncated", "is_truncated"),
)
ABOUT_PAGES = (
    *("meta", "metadata", "response_metadata", "links", "_links"),
    *("page", "pages", "page_info", "pagination", "paging"),
)
PAGE_COUNTS = ("pages", "total_pages", "num_pages", "page_count", "last_page")
TOTALS = ("count", "total", "total_count", "total_items", "total_elements", "total_results")

NO: list[object] = [None, False, 0, "", "0", "false", "False", {"href": None}, {}, []]


def spellings(name: str) -> list[str]:
    camel = "".join(part.capitalize() for part in name.split("_"))
    return [name, name.upper(), name.replace("_", "-"), camel, camel[:1].lower() + camel[1:]]


def kind_with(more: dict[str, object]) -> str:
    return kind_of(json.dumps({"ssh_keys": [ENTRY], **more}).encode())


@pytest.mark.parametrize("name", MORE)
def test_a_page_names_the_next_one(name: str) -> None:
    """G1: the keys of the other pages are not deleted ones, however the API spells it."""
    for spelled in spellings(name):
        for value in (True, 1, "x", "true", {"href": "/x"}, {"cursor": "x"}, ["x"]):
            assert kind_with({spelled: value}) == "partial_list"
        for no in NO:
            assert len(parse({"ssh_keys": [ENTRY], spelled: no}).rejected) == 1


@pytest.mark.parametrize("name", ABOUT_PAGES)
def test_a_page_says_so_in_an_object_of_its_own(name: str) -> None:
    """G1: also one deeper, and in a list of links."""
    for spelled in spellings(name):
        for more in (
            {"next": "/x"},
            {"hasNextPage": True},
            {"page": 1, "pages": 4},
            {"total": 9},
            {"pagination": {"next": "/x"}},
            [{"rel": "self", "href": "/"}, {"rel": "next", "href": "/x"}],
        ):
            assert kind_with({spelled: more}) == "partial_list"
        for whole in (
            {"next": None, "pages": 1},
            [{"rel": "self", "href": "/"}, "next"],
            "next",
            1,
        ):
            assert len(parse({"ssh_keys": [ENTRY], spelled: whole}).rejected) == 1


@pytest.mark.parametrize("name", PAGE_COUNTS)
def test_several_pages(name: str) -> None:
    """G1: one of several pages is no listing; the only one is."""
    for spelled in spellings(name):
        assert kind_with({spelled: 2}) == kind_with({spelled: "2"}) == "partial_list"
        for whole in (0, 1, "1", None, "/x"):
            assert len(parse({"ssh_keys": [ENTRY], spelled: whole}).rejected) == 1


@pytest.mark.parametrize("name", TOTALS)
def test_a_greater_total(name: str) -> None:
    """G1: more keys than came; why that stops revocation, and what to do, is said."""
    for spelled in spellings(name):
        assert kind_with({spelled: 2}) == kind_with({spelled: "2"}) == "partial_list"
        for whole in (0, 1, "1", None, "all", True):
            assert len(parse({"ssh_keys": [ENTRY], spelled: whole}).rejected) == 1
    with pytest.raises(AnswerUnusable) as caught:
        parse({"ssh_keys": [ENTRY], name: 2})
    assert f"({name} is 2, 1 came)" in caught.value.message
    assert "counts deleted keys too" in caught.value.hint


def test_a_total_counts_deleted_entries_that_came() -> None:
    """R2, G1: an entry that is sent as deleted is no missing one; its key is revoked."""
    deleted = ENTRY | {"deleted_at": "2024-01-01"}
    assert parse({"ssh_keys": [deleted], "total": 1}).rejected == ()


def test_deep_pages() -> None:
    """G1: an answer as deep as its reader allows is judged, and is no defect."""
    body = b'{"ssh_keys": [], "meta": ' + b'{"meta": ' * 900 + b'{"next": 1}' + b"}" * 901
    assert kind_of(body) == "partial_list"


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
    """G1: what says that nothing follows is whole."""
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
