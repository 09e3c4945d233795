"""What may be shown of the API key, and what is taken out of text that others wrote (G10)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.secret import Credential

VALUE = "0123456789abcdef" * 4
LONG = Credential(VALUE, "/a/file")
SHORT = Credential("abcdefghijklmno", "/a/file")  # no key of the console's


def test_masked() -> None:
    """G10: at most the last four characters are shown, and of a short key nothing."""
    assert (LONG.masked, SHORT.masked) == ("…cdef", "…")
    assert repr(LONG) == "Credential(…cdef, from /a/file)"
    assert str(SHORT) == "Credential(…, from /a/file)"


@given(before=st.text("xyz ü<", max_size=20), start=st.integers(0, 56), more=st.integers(8, 64))
def test_no_piece_of_the_key_stays_in_a_text(before: str, start: int, more: int) -> None:
    """G10: pieces of more than seven characters are hidden, and what stands around them is kept."""
    text = LONG.hidden_in(f"{before}<{VALUE[start : start + more]}>")
    assert text == f"{before}<[the API key]>"


def test_a_short_value_is_not_taken_out() -> None:
    """It could be an ordinary word."""
    assert SHORT.hidden_in(f"a {SHORT.value} b") == f"a {SHORT.value} b"
    assert SHORT.hidden_in_body(SHORT.value.encode()) == SHORT.value.encode()


@pytest.mark.parametrize(
    "written", [VALUE, f"\\u0030{VALUE[1:]}", f"{VALUE[:10]}\\u0061{VALUE[11:]}"]
)
def test_an_answers_body_loses_the_key(written: str) -> None:
    """G10: however JSON writes its characters (RFC 8259 section 7)."""
    body = f'{{"msg": "hello {written}"}}'.encode()
    assert json.loads(body) == {"msg": f"hello {VALUE}"}
    assert json.loads(LONG.hidden_in_body(body)) == {"msg": "hello [the API key]"}
