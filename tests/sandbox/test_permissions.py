"""No API key makes one that may do more, by any spelling of permissions and `key_params`."""

from __future__ import annotations

import httpx
import pytest

from sandbox import permissions
from sandbox.console import Console
from tests.sandbox.support import API_KEYS, KEYS, LINE, client_of

CREATE = "api.apikeys.create"
UPDATE = "api.ssh.update"


def rules(bounds: object, **others: object) -> dict[str, object]:
    """May make API keys, and change SSH keys whose id is within bounds."""
    return {"api": {"user_write": {CREATE: {}, UPDATE: {"constraints": {"id": bounds}}}, **others}}


def made(console: Console, permissions: dict[str, object], **params: object) -> httpx.Client:
    """A client with a new API key that has these permissions and `key_params`."""
    return client_of(console, console.world.api_keys.create("narrow", permissions, params)[1])


WIDER: tuple[dict[str, object], ...] = (
    {"api": {"user_write": {}}},
    {"api": {"user_write": {CREATE: {}, UPDATE: {}}}},
    {"api": {"user_write": {CREATE: {}, UPDATE: {"constraints": {}}}}},
    {"api": {"user_write": {CREATE: {}, UPDATE: {"constraints": {"id": {}}}}}},
    rules({"lte": 2}),
    rules({"eq": 1, "lte": 1}),
    rules({"eq": True}),
    rules({"eq": 1.0}),
    rules({"eq": "$id"}),
    rules({"eq": 1}, user_read={}),
)


@pytest.mark.parametrize("desired", WIDER, ids=str)
def test_a_constraint_is_not_widened(console: Console, desired: dict[str, object]) -> None:
    """Other permissions than its own are 400 for a key with a constraint, and nothing is made."""
    with made(console, rules({"eq": 1})) as narrow:
        answer = narrow.post(API_KEYS, json={"name": "wide", "permissions": desired})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_permissions")
        assert len(console.world.api_keys.stored()) == 2
        same = {"name": "same", "permissions": rules({"eq": 1})}
        assert narrow.post(API_KEYS, json=same).status_code == 200


@pytest.mark.parametrize("params", [{"inst": 1}, {"inst": 99, "more": 1}, {"inst": 99.0}, {}])
@pytest.mark.parametrize("desired", [{}, {"permissions": rules({"eq": "$inst"})}], ids=len)
def test_a_placeholder_is_not_filled_anew(
    console: Console, desired: dict[str, object], params: dict[str, object]
) -> None:
    """A key with constraints hands on its own `key_params` alone, which fill their placeholders."""
    with made(console, rules({"eq": "$inst"}), inst=99) as narrow:
        body = {"name": "another", **desired, "key_params": params}
        answer = narrow.post(API_KEYS, json=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_permissions")
        assert len(console.world.api_keys.stored()) == 2
        same = {**body, "key_params": {"inst": 99}}
        assert narrow.post(API_KEYS, json=same).status_code == 200
    assert console.world.api_keys.stored()[-1].key_params == {"inst": 99}


def test_who_has_no_constraint_fills_placeholders(console: Console) -> None:
    """A key that may do a category whole gives any `key_params`."""
    with made(console, permissions.of("user_write"), inst=99) as whole:
        body = {"name": "narrow", "permissions": rules({"eq": "$inst"}), "key_params": {"inst": 1}}
        assert whole.post(API_KEYS, json=body).status_code == 200
    assert console.world.api_keys.stored()[-1].key_params == {"inst": 1}


@pytest.mark.parametrize("bounds", [{"eq": 1}, {"lte": 1}, {"gte": 1}], ids=str)
@pytest.mark.parametrize("value", ["true", "[1]", '"1"', "null", "NaN"])
def test_only_a_number_is_a_number(console: Console, bounds: object, value: str) -> None:
    """`true` is not the 1 that a constraint names, though it is to Python; nor is a text."""
    rule: dict[str, object] = {
        "api": {"user_write": {"api.ssh.create": {"constraints": {"kind": bounds}}}}
    }
    with made(console, rule) as narrow:
        for sent, status in ((value, 403), ("1", 200)):
            body = f'{{"ssh_key": "{LINE}", "kind": {sent}}}'
            assert narrow.post(KEYS, content=body.encode()).status_code == status


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "[NaN]"])
@pytest.mark.parametrize("where", ["constraint", "key_params", "key_params as text"])
def test_what_is_no_json_number(console: Console, value: str, where: str) -> None:
    """NaN and Infinity are 400 in a constraint and in `key_params`, and nothing is made."""
    rule = f'{{"api": {{"misc": {{"e": {{"constraints": {{"id": {{"lte": {value}}}}}}}}}}}}}'
    sent = {
        "constraint": f'"permissions": {rule}',
        "key_params": f'"key_params": {{"id": {value}}}',
        "key_params as text": f'"key_params": "{{\\"id\\": {value}}}"',
    }[where]
    with client_of(console) as client:
        answer = client.post(API_KEYS, content=f'{{"name": "x", {sent}}}'.encode())
    assert answer.status_code == 400
    assert "NaN" in answer.json()["msg"]
    assert len(console.world.api_keys.stored()) == 1


@pytest.mark.parametrize(
    ("rule", "lists", "adds"),
    [
        ({"user_read": {permissions.SSH_KEYS: {"GET": {}}}}, True, False),
        ({"user_read": {permissions.SSH_KEYS: {}}}, True, False),
        ({"user_read": {permissions.SSH_KEYS: {"POST": {}}}}, False, False),
        ({"user_read": {"api.apikeys.show": {}}}, False, False),
        ({"user_write": {permissions.SSH_KEYS: {"GET": {}}}}, False, False),
        ({"user_write": {permissions.SSH_KEYS: {"POST": {}}}}, False, True),
        ({"user_write": {permissions.SSH_KEYS: {"DELETE": {}, "POST": {}}}}, False, True),
    ],
    ids=str,
)
def test_a_route_is_granted_by_method(
    console: Console, rule: dict[str, object], *, lists: bool, adds: bool
) -> None:
    """Only the methods that are named; without any, all that the category has of the route."""
    with made(console, {"api": rule}) as narrow:
        assert (narrow.get(KEYS).status_code == 200) is lists
        assert (narrow.post(KEYS, json={"ssh_key": LINE}).status_code == 200) is adds


@pytest.mark.parametrize("rule", [{"GET": {"x": {}}}, {"GET": True}, {"get": {}}, {"PATCH": {}}])
def test_a_method_that_cannot_be_enforced_is_refused(
    console: Console, rule: dict[str, object]
) -> None:
    """400, and no key is made that would do less or more than its permissions say."""
    desired = {"api": {"user_read": {permissions.SSH_KEYS: rule}}}
    with client_of(console) as client:
        answer = client.post(API_KEYS, json={"name": "x", "permissions": desired})
    assert answer.status_code == 400
    assert len(console.world.api_keys.stored()) == 1
