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


@pytest.mark.parametrize(
    "more",
    [
        {"next": "?page=2"},
        {"next_token": "x"},
        {"has_more": True},
        {"truncated": 1},
        {"total": 2},
        {"count": "2"},
        {"meta": {"next_page": 2}},
        {"pagination": {"total_count": 9}},
        {"links": {"next": "/x"}},
    ],
)
def test_a_page_is_no_listing(more: dict[str, object]) -> None:
    """G1: the keys of the other pages are not deleted ones."""
    assert kind_of(json.dumps({"ssh_keys": [ENTRY], **more}).encode()) == "partial_list"


@pytest.mark.parametrize(
    "more",
    [
        {"next": None, "has_more": False, "truncated": False},
        {"total": 1, "count": "1", "total_count": None},
        {"total": "all", "meta": {"next": ""}, "links": [], "pagination": "none"},
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
