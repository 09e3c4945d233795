"""Texts of the API that UTF-8 does not know, that cannot be seen, or that turn writing around."""

from __future__ import annotations

import json

import pytest

from sandbox.console import Console
from tests.sandbox.page_support import Visitor, words
from tests.sandbox.support import API_KEYS, KEYS, client_of
from tests.support.machine import key_line

_UNSEEN = ("\ud800", "\u202e", "\x1b", "\u2028")


def _first_event(visitor: Visitor) -> str:
    with visitor.http.stream("GET", "/keys/live") as stream:
        data = next(line for line in stream.iter_lines() if line.startswith("data: "))
    return "".join(json.loads(data.removeprefix("data: ")).values())


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _post(console: Console, path: str, body: dict[str, object]) -> None:
    """As a script sends it: JSON can hold half a surrogate, as an escape."""
    with client_of(console) as client:
        headers = {"Content-Type": "application/json"}
        assert client.post(path, content=json.dumps(body), headers=headers).status_code == 200


@pytest.mark.parametrize("character", _UNSEEN)
@pytest.mark.parametrize("text", [f"{key_line('x')}{{}}y", "{}", "garbage {} of any kind"])
def test_a_key_with_it_can_be_seen_and_deleted(
    console: Console, visitor: Visitor, character: str, text: str
) -> None:
    """In a comment and in what is no key: on every page its escape is shown, and nothing breaks."""
    _post(console, KEYS, {"ssh_key": text.format(character)})
    key_id = console.account.stored()[0].id
    path = f"/keys/ssh/{key_id}"
    for page in ("/keys", f"{path}/edit", f"{path}/delete"):
        answer = visitor.get(page)
        assert answer.status_code == 200
        assert character not in answer.text
    live = _first_event(visitor)
    assert character not in live
    assert _escape(character) in live
    assert "The SSH key was deleted." in words(visitor.send(f"{path}/delete", f"{path}/delete"))
    assert console.account.stored() == []


@pytest.mark.parametrize("character", _UNSEEN)
def test_an_api_key_called_so_can_be_seen_and_deleted(
    console: Console, visitor: Visitor, character: str
) -> None:
    """Its name comes from whoever holds an API key."""
    body: dict[str, object] = {"name": f"a{character}b", "permissions": {"api": {"misc": {}}}}
    _post(console, API_KEYS, body)
    key_id = console.world.api_keys.stored()[-1].id
    path = f"/keys/api/{key_id}"
    for page in ("/keys", f"{path}/delete", f"{path}/reset"):
        answer = visitor.get(page)
        assert answer.status_code == 200
        assert character not in answer.text
        assert f"a{_escape(character)}b" in answer.text
    assert f"a{_escape(character)}b" in _first_event(visitor)
    assert f"a{_escape(character)}b" in words(visitor.send(f"{path}/reset", f"{path}/reset"))
    assert "was deleted" in words(visitor.send(f"{path}/delete", f"{path}/delete"))
    assert len(console.world.api_keys.stored()) == 1


def test_line_breaks_of_a_text_are_kept_for_editing(console: Console, visitor: Visitor) -> None:
    """They can be seen, and it is what the person will want to mend."""
    key_id = console.add_key("one\ntwo")
    assert "one\ntwo</textarea>" in visitor.get(f"/keys/ssh/{key_id}/edit").text
