"""API keys: made with permissions, shown once, reset and deleted at once, stored only as hashes."""

from pathlib import Path

import httpx
import pytest

from sandbox import permissions
from sandbox.api_keys import ApiKeys
from sandbox.console import Console
from sandbox.world import World
from tests.sandbox.support import API_KEYS, KEYS, LINE, USER, client_of, make_key

RESET = "/api/v0/commands/reset_apikey/"
READ = permissions.of("user_read")


def status(console: Console, api_key: str) -> int:
    with client_of(console, api_key) as client:
        return client.get(KEYS).status_code


def test_create(console: Console, client: httpx.Client) -> None:
    """A new key has an id, a value that works at once, and the permissions that were asked for."""
    made = client.post(API_KEYS, json={"name": "reader", "permissions": READ}).json()
    assert set(made) == {"id", "key", "permissions"}
    assert made["permissions"] == READ
    assert status(console, made["key"]) == 200


def test_the_list_has_no_values(console: Console, client: httpx.Client) -> None:
    """`GET /auth/apikeys/` names the keys and what they may do, and no value but its last four."""
    made = client.post(API_KEYS, json={"name": "reader", "permissions": READ}).json()
    answer = client.get(API_KEYS)
    [own, reader] = answer.json()["apikeys"]
    assert (own["user_id"], own["permissions"]) == (console.user_id, permissions.everything())
    assert (reader["id"], reader["name"], reader["rights"]) == (made["id"], "reader", "user_read")
    assert reader["last_four"] == made["key"][-4:]
    assert made["key"] not in answer.text
    assert client.get(f"{API_KEYS}{made['id']}/").json() == reader


def test_no_value_is_stored(tmp_path: Path) -> None:
    """No file of the database holds an API key, a session key or the password."""
    world = World.open(tmp_path)
    secrets = [
        world.credentials.api_key,
        world.credentials.password,
        world.reset_api_key(),
        world.api_keys.create("another", READ)[1],
        world.sessions.begin(world.account.user_id, "a browser", "127.0.0.1")[1],
    ]
    world.account.add_key(LINE)
    world.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("console.sqlite3*"))
    assert LINE.encode() in stored  # what is not secret is found this way
    assert [secret for secret in secrets if secret.encode() in stored] == []


def test_the_credentials_are_closed_to_others(tmp_path: Path) -> None:
    """The one file that holds secrets is its owner's alone, whatever the umask."""
    World.open(tmp_path).close()
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_permissions_default_to_the_callers(console: Console, client: httpx.Client) -> None:
    """Without permissions a key gets those of the key that asks, and its `key_params`."""
    made = client.post(API_KEYS, json={"name": "all"}).json()
    assert made["permissions"] == permissions.everything()
    with client_of(console, make_key(console, "user_write")) as writer:
        made = writer.post(API_KEYS, json={"name": "same"}).json()
        assert made["permissions"] == permissions.of("user_write")


@pytest.mark.parametrize(
    "desired",
    [
        {"api": {"user_read": {}}},
        {"api": {"user_write": {}, "misc": {}}},
        permissions.everything(),
    ],
)
def test_no_key_gives_more_than_it_has(console: Console, desired: object) -> None:
    """A key cannot make one that may do what it may not."""
    with client_of(console, make_key(console, "user_write")) as writer:
        answer = writer.post(API_KEYS, json={"name": "more", "permissions": desired})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_permissions")
    assert [key.name for key in console.world.api_keys.stored()] == ["sandbox", "scoped"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": 5},
        {"name": "x", "permissions": {"read": True}},
        {"name": "x", "permissions": {"api": {"everything": {}}}},
        {"name": "x", "permissions": {"api": {"misc": {"e": {"constraint": {}}}}}},
        {"name": "x", "permissions": {"api": {"misc": {"e": {"constraints": {"id": {"ne": 1}}}}}}},
        {"name": "x", "permissions": "all"},
        {"name": "x", "key_params": "no JSON"},
        {"name": "x", "key_params": [1]},
        [],
        "x",
    ],
)
def test_what_cannot_be_made(console: Console, client: httpx.Client, body: object) -> None:
    """A key without a name, or with permissions that cannot be enforced, is 400 and not made."""
    answer = client.post(API_KEYS, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_permissions", "invalid_request")
    assert len(console.world.api_keys.stored()) == 1


def test_delete(console: Console, client: httpx.Client) -> None:
    """A deleted key is dead at once; the answer is a JSON text, and the second time 404."""
    made = client.post(API_KEYS, json={"name": "reader", "permissions": READ}).json()
    answer = client.delete(f"{API_KEYS}{made['id']}/")
    assert (answer.status_code, answer.json()) == (200, "Successfully Deleted API Key")
    assert status(console, made["key"]) == 404
    again = client.delete(f"{API_KEYS}{made['id']}/")
    assert (again.status_code, again.json()) == (404, {"msg": "API Key not found."})
    assert len(client.get(API_KEYS).json()["apikeys"]) == 1


def test_a_strangers_key_cannot_be_deleted(console: Console, client: httpx.Client) -> None:
    """Another account's key is 403, and goes on working for it."""
    strangers = ApiKeys(console.world.engine, console.stranger.user_id)
    theirs, value = strangers.create("theirs", READ)
    answer = client.delete(f"{API_KEYS}{theirs.id}/")
    assert answer.status_code == 403
    assert "do not have permission" in answer.json()["msg"]
    assert strangers.find(value) is not None


def test_reset(console: Console, client: httpx.Client) -> None:
    """The calling key has a new value and the same permissions; the old one is dead at once."""
    old = make_key(console, "user_read", "user_write")
    with client_of(console, old) as holder:
        answer = holder.put(RESET, json={"client_id": "me"}).json()
    assert answer["success"] is True
    assert (status(console, old), status(console, answer["new_api_key"])) == (404, 200)
    assert client.get(KEYS).status_code == 200  # other keys are not touched
    assert console.world.api_keys.stored()[1].last_four == answer["new_api_key"][-4:]


def test_a_session_key_cannot_be_reset(console: Console) -> None:
    """A session's key has no value that could be given anew: 400."""
    _, token = console.world.sessions.begin(console.user_id, "a browser", "127.0.0.1")
    with client_of(console, token) as client:
        assert client.put(RESET, json={"client_id": "me"}).status_code == 400
        assert client.get(KEYS).status_code == 200


def test_the_last_use_is_noted(console: Console, client: httpx.Client) -> None:
    """A key that was never used says so, and one that was says when."""
    value = make_key(console, "user_read")
    before = client.get(API_KEYS).json()["apikeys"][1]["last_used_at"]
    assert status(console, value) == 200
    after = client.get(API_KEYS).json()["apikeys"][1]["last_used_at"]
    assert before is None
    assert after is not None


# Permissions

CALLS = (
    ("GET", KEYS, "user_read", 200),
    ("GET", USER, "user_read", 200),
    ("GET", API_KEYS, "user_read", 200),
    ("GET", f"{API_KEYS}1/", "user_read", 200),
    ("POST", KEYS, "user_write", 200),
    ("PUT", f"{KEYS}2/", "user_write", 200),
    ("DELETE", f"{KEYS}2/", "user_write", 200),
    ("POST", API_KEYS, "user_write", 200),
    ("DELETE", f"{API_KEYS}1/", "user_write", 200),
    ("PUT", RESET, "user_write", 200),
    ("GET", "/api/v0/instances/1/ssh/", "instance_read", 404),
    ("POST", "/api/v0/instances/1/ssh/", "instance_write", 404),
    ("DELETE", "/api/v0/instances/1/ssh/1/", "instance_write", 404),
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1]}")
def test_what_each_call_needs(console: Console, call: tuple[str, str, str, int]) -> None:
    """The category of a call alone is enough for it, and all the others together are not."""
    method, path, category, status = call
    console.add_key(LINE)
    body = {"ssh_key": "text", "name": "name", "client_id": "me"}
    others = [other for other in permissions.CATEGORIES if other != category]
    with client_of(console, make_key(console, *others)) as client:
        refused = client.request(method, path, json=body)
        assert (refused.status_code, refused.json()["success"]) == (403, False)
        assert refused.json()["error"] == "insufficient_permissions"
        assert category in refused.json()["msg"]
    assert [key.text for key in console.account.stored()] == [LINE]
    with client_of(console, make_key(console, category)) as client:
        assert client.request(method, path, json=body).status_code == status


def constrained(console: Console, bounds: object, key_params: dict[str, object]) -> httpx.Client:
    """A client that may only change SSH keys whose id is within bounds."""
    rule = {"api": {"user_write": {"api.ssh.update": {"constraints": {"id": bounds}}}}}
    return client_of(console, console.world.api_keys.create("narrow", rule, key_params)[1])


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        ({"eq": 3}, {3}),
        ({"lte": 3}, {2, 3}),
        ({"gte": 3}, {3, 4}),
        ({"gte": 3, "lte": 3}, {3}),
        ({"eq": "3"}, set()),
        ({"eq": "$mine"}, {4}),
        ({"eq": "$nobody"}, set()),
        ({"lte": "$nobody"}, set()),
    ],
)
def test_constraints(console: Console, bounds: object, allowed: set[int]) -> None:
    """A constraint holds for the number in the path, whatever the body says it is."""
    for text in ("two", "three", "four"):
        console.add_key(text)
    with constrained(console, bounds, {"mine": 4}) as client:
        for key_id in (2, 3, 4):
            answer = client.put(f"{KEYS}{key_id}/", json={"id": 3, "ssh_key": "changed"})
            assert answer.status_code == (200 if key_id in allowed else 403), key_id
        assert client.delete(f"{KEYS}3/").status_code == 403  # of its category, but not named
    changed = {key.id for key in console.account.stored() if key.text == "changed"}
    assert changed == allowed


def test_a_placeholder_that_is_not_filled(console: Console) -> None:
    """A constraint on nothing, by a name that `key_params` does not have, permits nothing."""
    rule = {"api": {"user_write": {"api.ssh.create": {"constraints": {"x": {"eq": "$x"}}}}}}
    with client_of(console, console.world.api_keys.create("unfilled", rule)[1]) as client:
        assert client.post(KEYS, json={"ssh_key": LINE}).status_code == 403


def test_constraints_on_a_body(console: Console) -> None:
    """A constraint can name a member of the body as well."""
    rule = {"api": {"user_write": {"api.ssh.create": {"constraints": {"ssh_key": {"eq": LINE}}}}}}
    with client_of(console, console.world.api_keys.create("one text", rule)[1]) as client:
        assert client.post(KEYS, json={"ssh_key": "another"}).status_code == 403
        assert client.post(KEYS, content=b"no JSON").status_code == 403
        assert client.post(KEYS, json={"ssh_key": LINE}).status_code == 200


def test_key_params_as_the_client_sends_them(client: httpx.Client) -> None:
    """The provider's own client sends `key_params` as JSON text; it is the object in it."""
    body = {"name": "narrow", "permissions": READ, "key_params": '{"mine": 4}'}
    made = client.post(API_KEYS, json=body).json()
    assert client.get(f"{API_KEYS}{made['id']}/").json()["key_params"] == {"mine": 4}


# What a directory keeps


def test_a_restart_finds_everything(tmp_path: Path) -> None:
    """Keys, API keys, sessions and credentials are there again, and the API key still works."""
    with Console(directory=tmp_path) as console:
        kept, gone = console.add_key(LINE), console.add_key("gone")
        console.delete_key(gone)
        reader = make_key(console, "user_read")
        _, token = console.world.sessions.begin(console.user_id, "a browser", "127.0.0.1")
        credentials = console.world.credentials
    console.world.close()
    with Console(directory=tmp_path) as again:
        assert again.world.credentials == credentials
        assert again.account.check_password(credentials.password)
        assert not again.account.check_password(f"{credentials.password}x")
        assert [(key.id, key.text) for key in again.account.stored()] == [(kept, LINE)]
        assert len(again.account.stored(deleted=True)) == 2
        for value in (credentials.api_key, reader, token):
            assert status(again, value) == 200
        assert again.add_key("new") == gone + 1
    again.world.close()


@pytest.mark.parametrize("way", ["reset", "delete"])
def test_credentials_that_went_are_made_anew(tmp_path: Path, way: str) -> None:
    """An API key that was reset or deleted by somebody else is replaced at the next start."""
    with Console(directory=tmp_path) as console, client_of(console) as client:
        old = console.api_key
        if way == "reset":
            client.put(RESET, json={"client_id": "me"})
        else:
            client.delete(f"{API_KEYS}1/")
        assert status(console, old) == 404
    console.world.close()
    with Console(directory=tmp_path) as again:
        assert again.api_key != old
        assert status(again, again.api_key) == 200
    again.world.close()
