"""Values as JSON and back: what is written is read, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adapters.typed_json import from_json, json_bytes, json_object
from agent.core.times import Moment


class Inner(NamedTuple):
    name: str
    number: float
    moment: Moment | None


@dataclass(frozen=True)
class Outer:
    count: int
    on: bool
    names: frozenset[str]
    inner: tuple[Inner, ...]
    by_name: Mapping[str, Inner]


GOOD = {
    "count": 1,
    "on": True,
    "names": ["a", "b"],
    "inner": [{"name": "x", "number": 1, "moment": None}],
    "by_name": {"y": {"name": "y", "number": 1.5, "moment": None}},
}
texts = st.text()
moments = st.builds(Moment, st.just("2024-05-01T10:00:00Z"), texts, st.floats(-1e9, 1e9))
inners = st.builds(Inner, texts, st.floats(-1e11, 1e11), st.none() | moments)
outers = st.builds(
    Outer,
    st.integers(1 - 10**18, 10**18 - 1),
    st.booleans(),
    st.frozensets(texts),
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(texts, inners, max_size=3),
)


@given(outers)
def test_what_is_written_is_read(value: Outer) -> None:
    """State: every value comes back as it was."""
    assert from_json(Outer, json_object(json_bytes(value))) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": True}, "count: it is bool, not int"),
        ({"count": 1.0}, "count: it is float, not int"),
        ({"count": 10**18}, "count: the integer has more than 18 digits"),
        ({"count": None}, "count: it is NoneType, not int"),
        ({"on": 1}, "on: it is int, not bool"),
        ({"names": "ab"}, "names: it is str, not list"),
        ({"names": [1]}, "names: it is int, not str"),
        ({"inner": [{"name": "x", "moment": None}]}, "inner: number is missing"),
        ({"inner": [{"name": "x", "number": "1", "moment": None}]}, "inner: number: it is not a"),
        ({"inner": [{"name": "x", "number": float("inf"), "moment": None}]}, "number: it is not a"),
        ({"inner": [{"name": "x", "number": True, "moment": None}]}, "number: it is not a"),
        ({"inner": [{"name": "x", "number": 1, "moment": {}}]}, "inner: moment: at is missing"),
        ({"by_name": []}, "by_name: it is list, not dict"),
        ({"by_name": {"y": None}}, "by_name: it is NoneType, not dict"),
    ],
)
def test_a_wrong_value_is_refused_and_named(change: dict[str, object], message: str) -> None:
    """State: the message says which field it is, and not what stands in it."""
    from_json(Outer, GOOD)
    with pytest.raises(ValueError, match=message):
        from_json(Outer, {**GOOD, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"at": "soon"},
        {"at": "2024-05-01T10:00:00"},
        {"at": None},
        {"boot": None},
        {"seconds": "1"},
        {"seconds": True},
        {"seconds": 10**400},
    ],
)
def test_a_damaged_moment_is_refused(change: dict[str, object]) -> None:
    """State: nothing is made up of it, also where each field has its type."""
    moment = {"at": "2024-05-01T10:00:00Z", "boot": "b1", "seconds": 1}
    inner = {"name": "x", "number": 1, "moment": moment}
    from_json(Inner, inner)
    with pytest.raises(ValueError, match="moment: "):
        from_json(Inner, {**inner, "moment": {**moment, **change}})


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_field_is_refused(name: str) -> None:
    """State: it is never taken for an empty one."""
    with pytest.raises(ValueError, match=f"{name} is missing"):
        from_json(Outer, {key: value for key, value in GOOD.items() if key != name})


class Named(NamedTuple):
    reason: Literal["a", "b"]


def test_a_literal_of_another_version_is_kept() -> None:
    """State, G4: after a downgrade a new reason in the ledger is no damage."""
    assert from_json(Named, {"reason": "c"}).reason == "c"  # type: ignore[comparison-overlap]  # reason: as read
    with pytest.raises(ValueError, match="reason: it is int, not str"):
        from_json(Named, {"reason": 1})


def test_a_field_that_is_not_known_is_ignored() -> None:
    """State: a newer version may write more."""
    assert from_json(Outer, {**GOOD, "new": 1}) == from_json(Outer, GOOD)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"7", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    """State: one kind of error, whatever stands there."""
    with pytest.raises(ValueError, match=r"it is not JSON|not dict"):
        json_object(data)
