"""The local console answers over real HTTP as the provider's documents and clients say."""

import base64
import gc
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sandbox.account import UnknownKey
from sandbox.console import Console
from sandbox.faults import FAULTS, KeyField
from tests.sandbox.support import KEYS, LINE, USER, client_of, make_key
from tests.support.bad_server import eventually

# The list and its changes


def test_an_empty_account_is_an_empty_list(client: httpx.Client) -> None:
    """`GET /ssh/` of an account without keys is 200 and a bare empty list."""
    answer = client.get(KEYS)
    assert (answer.status_code, answer.json()) == (200, [])
    assert answer.headers["Content-Type"] == "application/json"


def test_an_entry_has_the_documented_fields(console: Console, client: httpx.Client) -> None:
    """An entry is `{id, user_id, key, created_at, deleted_at}`, not deleted at first."""
    key_id = console.add_key(LINE)
    [entry] = client.get(KEYS).json()
    created_at = entry.pop("created_at")
    assert entry == {"id": key_id, "user_id": console.user_id, "key": LINE, "deleted_at": None}
    assert time.strptime(created_at, "%Y-%m-%dT%H:%M:%SZ")


def test_create(console: Console, client: httpx.Client) -> None:
    """`POST /ssh/` answers with success and the new key under `public_key`, and lists it."""
    answer = client.post(KEYS, json={"ssh_key": LINE}).json()
    assert answer["success"] is True
    assert (answer["key"]["public_key"], answer["key"]["user_id"]) == (LINE, console.user_id)
    assert [entry["id"] for entry in client.get(KEYS).json()] == [answer["key"]["id"]]


def test_edit(console: Console, client: httpx.Client) -> None:
    """`PUT /ssh/{id}/` replaces the text and keeps the id."""
    key_id = console.add_key(LINE)
    answer = client.put(f"{KEYS}{key_id}/", json={"id": key_id, "ssh_key": "another text"})
    assert answer.json()["key"]["public_key"] == "another text"
    assert [(e["id"], e["key"]) for e in client.get(KEYS).json()] == [(key_id, "another text")]


def test_delete(console: Console, client: httpx.Client) -> None:
    """`DELETE /ssh/{id}/` answers success and the list no longer shows the key."""
    key_id, kept = console.add_key(LINE), console.add_key("kept")
    assert client.delete(f"{KEYS}{key_id}/").json() == {"success": True}
    assert [entry["id"] for entry in client.get(KEYS).json()] == [kept]


def test_a_deleted_key_is_only_marked(client: httpx.Client, console: Console) -> None:
    """With the switch the list holds deleted entries too, and their `deleted_at` is set."""
    console.delete_key(console.add_key(LINE))
    console.add_key("kept")
    console.switches.include_deleted = True
    deleted, kept = client.get(KEYS).json()
    assert deleted["deleted_at"] is not None
    assert kept["deleted_at"] is None


def test_ids_are_never_given_twice(console: Console) -> None:
    """A key added after a deletion has a new id."""
    first = console.add_key(LINE)
    console.delete_key(first)
    assert console.add_key(LINE) != first


@pytest.mark.parametrize("body", [{}, {"ssh_key": ""}, {"ssh_key": None}, {"ssh_key": "\0"}, []])
def test_no_key_in_the_request(client: httpx.Client, body: object) -> None:
    """A `POST` without a key text is 400 `no_ssh_key`, and nothing is stored."""
    answer = client.post(KEYS, json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "no_ssh_key")
    assert client.get(KEYS).json() == []


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_an_unknown_or_deleted_id(console: Console, client: httpx.Client, method: str) -> None:
    """Editing or deleting a key that is not there is 400 `no_ssh_key`, twice deleted too."""
    deleted = console.add_key(LINE)
    console.delete_key(deleted)
    for key_id in (deleted, deleted + 1):
        answer = client.request(method, f"{KEYS}{key_id}/", json={"ssh_key": "text"})
        assert (answer.status_code, answer.json()["error"]) == (400, "no_ssh_key")


def test_the_verbs_refuse_an_unknown_id(console: Console) -> None:
    """A test that edits or deletes a key that is not there is told so."""
    with pytest.raises(UnknownKey):
        console.edit_key(1, LINE)
    with pytest.raises(UnknownKey):
        console.delete_key(1)


def test_text_that_is_not_json(client: httpx.Client) -> None:
    """A body that is not JSON is a 400 and leaves the connection usable."""
    assert client.post(KEYS, content=b"ssh_key=x").status_code == 400
    assert client.get(KEYS).status_code == 200


@pytest.mark.parametrize(
    "text",
    ["/home/me/.ssh/id_ed25519.pub", f"{LINE}\n", "a\r\nb\tc", "\u2028\u202e \U0001f511", "\ud800"],
)
def test_garbage_is_stored_as_it_was_sent(client: httpx.Client, text: str) -> None:
    """Nothing is checked or trimmed: a path, a trailing newline, half a surrogate pair stay."""
    escaped = '{"ssh_key": "' + "".join(f"\\u{unit:04x}" for unit in utf16(text)) + '"}'
    assert client.post(KEYS, content=escaped.encode()).status_code == 200
    assert client.get(KEYS).json()[0]["key"] == text


def utf16(text: str) -> memoryview:
    return memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")


def test_nul_characters_are_removed(console: Console, client: httpx.Client) -> None:
    """Of all characters only NUL is taken out, on creation and on edit."""
    key_id = client.post(KEYS, json={"ssh_key": "a\0b\0"}).json()["key"]["id"]
    assert client.get(KEYS).json()[0]["key"] == "ab"
    console.edit_key(key_id, "\0c")
    assert client.get(KEYS).json()[0]["key"] == "c"


def test_a_large_key_goes_through(client: httpx.Client) -> None:
    """A text of 100 kB comes back whole."""
    text = base64.b64encode(bytes(75_000)).decode()
    client.post(KEYS, json={"ssh_key": text})
    assert client.get(KEYS).json()[0]["key"] == text


# Shapes of the answer


@pytest.mark.parametrize("key_field", ["key", "public_key", "ssh_key"])
def test_where_the_text_is(key_field: KeyField) -> None:
    """The list keeps a key's text under any of the three names that clients handle."""
    with Console(key_field=key_field) as console, client_of(console) as client:
        console.add_key(LINE)
        [entry] = client.get(KEYS).json()
        assert entry[key_field] == LINE
        assert {"key", "public_key", "ssh_key"} & set(entry) == {key_field}


def test_the_wrapped_shape() -> None:
    """The list may come as `{"ssh_keys": [...]}`."""
    with Console(shape="wrapped") as console, client_of(console) as client:
        key_id = console.add_key(LINE)
        answer = client.get(KEYS).json()
        assert list(answer) == ["ssh_keys"]
        assert [entry["id"] for entry in answer["ssh_keys"]] == [key_id]


@pytest.mark.parametrize("path", [USER, USER.rstrip("/")])
def test_the_current_user(console: Console, client: httpx.Client, path: str) -> None:
    """`GET /users/current` says whose key it is, with or without the final slash."""
    assert client.get(path).json()["id"] == console.user_id


# Keys of the API


@pytest.mark.parametrize("path", [KEYS, USER])
@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer", "Basic {}", "{}", "Bearer {}x"]
)
def test_a_bad_api_key(console: Console, path: str, authorization: str | None) -> None:
    """A bad or missing key is 404 `auth_error`, the status that is also documented as no keys."""
    headers = {"Authorization": authorization.format(console.api_key)} if authorization else {}
    answer = httpx.get(console.url + path, headers=headers, trust_env=False)
    assert answer.status_code == 404
    assert answer.json() == {"success": False, "error": "auth_error", "msg": "Invalid user key"}


@pytest.mark.parametrize("path", [KEYS, USER])
def test_a_bad_api_key_as_it_is_documented(console: Console, path: str) -> None:
    """With the switch it is 401, with the same words."""
    console.switches.bad_key_status = 401
    with client_of(console, "wrong") as stranger:
        answer = stranger.get(path)
    assert (answer.status_code, answer.json()["error"]) == (401, "auth_error")


@pytest.mark.parametrize(("method", "path"), [("POST", KEYS), ("PUT", "{}"), ("DELETE", "{}")])
def test_a_bad_api_key_changes_nothing(console: Console, method: str, path: str) -> None:
    """Without the right key nothing is stored, edited or deleted."""
    key_id = console.add_key(LINE)
    with client_of(console, "wrong") as stranger:
        url = path.format(f"{KEYS}{key_id}/")
        assert stranger.request(method, url, json={"ssh_key": "x"}).status_code == 404
    assert [key.text for key in console.account.stored()] == [LINE]


def test_reset(console: Console, client: httpx.Client) -> None:
    """After a reset the old API key is dead at once and the new one works."""
    assert client.get(KEYS).status_code == 200
    new = console.reset_api_key()
    assert client.get(KEYS).status_code == 404
    with client_of(console, new) as renewed:
        assert renewed.get(KEYS).status_code == 200
    assert console.api_key == new


@pytest.mark.parametrize("path", [KEYS, USER])
def test_a_session_key_works_as_an_api_key(console: Console, path: str) -> None:
    """What a login gives opens the API too, until the session is ended."""
    sessions = console.world.sessions
    session, token = sessions.begin(console.user_id, "a browser", "127.0.0.1")
    with client_of(console, token) as client:
        assert client.get(path).status_code == 200
        sessions.end(console.user_id, session.id)
        assert client.get(path).json()["error"] == "auth_error"


def test_a_team_cannot_hold_ssh_keys() -> None:
    """`POST /ssh/` of a team account is 400 and stores nothing; everything else works."""
    with Console(is_team=True) as console, client_of(console) as client:
        answer = client.post(KEYS, json={"ssh_key": LINE})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert "Team accounts" in answer.json()["msg"]
        assert client.get(KEYS).json() == []
        assert client.get(USER).json()["is_team"] is True


def test_the_one_call_without_a_key(console: Console) -> None:
    """`GET /gpu_names/unique/`, which the provider's client sends before it has a key, is 200."""
    answer = httpx.get(f"{console.url}/api/v0/gpu_names/unique/", trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["gpu_names"]


# The rate limit


def test_two_requests_too_close_together() -> None:
    """The second request within the interval is 429: plain text, no Retry-After."""
    with Console(min_interval=60.0) as console, client_of(console) as client:
        assert client.get(KEYS).status_code == 200
        answer = client.get(KEYS)
        assert answer.status_code == 429
        assert answer.text == "API requests too frequent: endpoint threshold=60.0"
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "Retry-After" not in answer.headers


def test_the_interval_passes() -> None:
    """After the interval the same request is answered again; a refused one does not prolong it."""
    with Console(min_interval=0.2) as console, client_of(console) as client:
        start = time.monotonic()
        assert client.get(KEYS).status_code == 200
        while client.get(KEYS).status_code == 429:
            assert time.monotonic() - start < 10
        assert time.monotonic() - start >= 0.2


IDENTITIES: tuple[tuple[dict[str, str], bool], ...] = (
    # what the second request has of its own, and whether it is somebody else's then
    ({}, False),
    ({"path": USER}, True),
    ({"method": "POST"}, True),
    ({"token": "another"}, True),
    ({"address": "127.0.0.2"}, True),
    ({"session": "a cookie"}, True),
    ({"parameter": "api_key"}, True),
    ({"parameter": "owner"}, False),
    ({"agent": "another client"}, False),
)


@pytest.mark.parametrize(("changed", "another"), IDENTITIES)
def test_who_shares_an_interval(changed: dict[str, str], another: bool) -> None:
    """The identity is token, session, `api_key` parameter and address, per endpoint and method."""
    with Console(min_interval=60.0) as console:
        token = make_key(console, "user_read", "user_write") if "token" in changed else None
        assert ask(console).status_code == 200
        limited = ask(console, **{**changed, **({"token": token} if token else {})})
        assert limited.status_code == (200 if another else 429)


def ask(
    console: Console,
    *,
    path: str = KEYS,
    method: str = "GET",
    token: str | None = None,
    address: str = "127.0.0.1",
    session: str = "",
    parameter: str = "",
    agent: str = "client",
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or console.api_key}", "User-Agent": agent}
    if session:
        headers["Cookie"] = f"keys_session_{httpx.URL(console.url).port}={session}"
    transport = httpx.HTTPTransport(local_address=address)  # all of 127/8 is loopback
    with httpx.Client(transport=transport, headers=headers, base_url=console.url) as client:
        parameters = {parameter: "x"} if parameter else {}
        body = {"ssh_key": LINE} if method == "POST" else None
        return client.request(method, path, params=parameters, json=body)


def test_keys_share_an_interval() -> None:
    """The endpoint is the path's form: deleting a second key at once is too early."""
    with Console(min_interval=60.0) as console, client_of(console) as client:
        keys = [console.add_key(LINE), console.add_key(LINE)]
        assert client.delete(f"{KEYS}{keys[0]}/").status_code == 200
        assert client.delete(f"{KEYS}{keys[1]}/").status_code == 429


def test_a_bad_key_is_limited_too() -> None:
    """The limit comes before the key is looked at."""
    with Console(min_interval=60.0) as console, client_of(console, "wrong") as client:
        assert [client.get(KEYS).status_code for _ in range(2)] == [404, 429]


# ETag


def test_no_etag_by_default(client: httpx.Client) -> None:
    """The real console is not known to send an ETag, so none is sent unasked."""
    assert "ETag" not in client.get(KEYS, headers={"If-None-Match": "*"}).headers


def test_etag() -> None:
    """With the switch the same list is 304 without a body, and a changed list 200 again."""
    with Console(etag=True) as console, client_of(console) as client:
        etag = client.get(KEYS).headers["ETag"]
        again = client.get(KEYS, headers={"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
        console.add_key(LINE)
        changed = client.get(KEYS, headers={"If-None-Match": etag})
        assert (changed.status_code, len(changed.json())) == (200, 1)
        assert changed.headers["ETag"] != etag


# Faults


def test_an_outage_closes_the_connection(console: Console, client: httpx.Client) -> None:
    """In an outage the port still accepts, and the connection ends without one byte."""
    assert client.get(KEYS).status_code == 200
    console.fault = "outage"
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        client.get(KEYS)
    assert raw_exchange(console, f"GET {KEYS} HTTP/1.1\r\nHost: console\r\n\r\n") == b""
    console.fault = None
    assert client.get(KEYS).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "text"),
    [
        ("error_500", 500, "application/json", '"error": "server_error"'),
        ("rate_limited", 429, "text/plain", "API requests too frequent: endpoint threshold=1.0"),
        ("html", 200, "text/html", "<!doctype html>"),
        ("empty_list", 200, "application/json", "[]"),
    ],
)
def test_a_canned_fault(
    console: Console, client: httpx.Client, fault: str, status: int, content_type: str, text: str
) -> None:
    """Each fault answers as named, and the honest answer is back when it is switched off."""
    console.add_key(LINE)
    console.fault = fault
    answer = client.get(KEYS)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith(content_type)
    assert text in answer.text
    assert "Retry-After" not in answer.headers
    console.fault = None
    assert len(client.get(KEYS).json()) == 1


def test_a_truncated_list(console: Console, client: httpx.Client) -> None:
    """The text is cut in the middle while HTTP itself notices nothing."""
    console.add_key(LINE)
    whole = client.get(KEYS).content
    console.fault = "truncated"
    answer = client.get(KEYS)
    assert answer.status_code == 200
    assert answer.content == whole[: len(whole) // 2]


def test_another_account(console: Console, client: httpx.Client) -> None:
    """The list and the user are a stranger's, consistently and with a well-formed key."""
    console.add_key(LINE)
    console.fault = "another_account"
    [entry] = client.get(KEYS).json()
    assert entry["user_id"] == client.get(USER).json()["id"] == console.stranger.user_id
    assert entry["user_id"] != console.user_id
    key_type, blob, _ = entry["key"].split(" ")
    assert key_type == "ssh-ed25519"
    assert len(base64.b64decode(blob, validate=True)) == 51


def test_an_unknown_fault(console: Console) -> None:
    """A misspelt fault is an error that names the right ones."""
    with pytest.raises(ValueError, match="outage, slow, error_500"):
        console.fault = "outtage"
    assert console.fault is None


def test_slow(console: Console, client: httpx.Client) -> None:
    """The honest answer comes late, and nobody else waits for it."""
    console.switches.slow_seconds = 1.0
    console.fault = "slow"
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.get(KEYS), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert 1.0 <= time.monotonic() - start < 4 * 1.0  # what they take one after the other


def test_the_page_goes_on(console: Console) -> None:
    """A fault is one of the API: the page still answers."""
    console.fault = "outage"
    answer = httpx.get(f"{console.url}/login", trust_env=False)
    assert (answer.status_code, answer.headers["Content-Type"][:9]) == (200, "text/html")


def test_every_fault_is_seen_by_a_client(console: Console, client: httpx.Client) -> None:
    """No fault of the list but slowness leaves the honest answer in place."""
    console.add_key(LINE)
    honest = client.get(KEYS)
    for fault in set(FAULTS) - {"slow"}:
        console.fault = fault
        try:
            answer = client.get(KEYS)
        except httpx.RemoteProtocolError:
            continue
        assert (answer.status_code, answer.content) != (honest.status_code, honest.content)


# The server


def test_requests_are_noted(console: Console, client: httpx.Client) -> None:
    """Every request is noted with method and path, whether it is answered or not."""
    client.get(KEYS, params={"owner": "me"})
    console.fault = "outage"
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(KEYS, json={})
    assert console.requests == [("GET", KEYS), ("POST", KEYS)]


def test_one_connection_is_kept(console: Console, client: httpx.Client) -> None:
    """Requests share a connection, errors included, and none waits for a delayed ACK (44 ms)."""
    wrong = {"Authorization": "Bearer wrong"}
    client.get(KEYS)
    streams = set()
    for headers in ({}, wrong):
        lasted = []
        for _ in range(11):
            start = time.monotonic()
            streams.add(id(client.get(KEYS, headers=headers).extensions["network_stream"]))
            lasted.append(time.monotonic() - start)
        assert min(lasted) < 0.04  # a delayed ACK holds up each, a busy processor only some
    assert len(streams) == 1


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    """What the console does not have is 404, what an endpoint does not do is 405."""
    for path in ("/api/v0/", "/api/v0/instances/", "/api/v0/ssh/x/", "/api/v0/ssh/1/2/"):
        assert client.get(path).json()["error"] == "not_found"
    digits = "9" * 5000  # more than the interpreter turns into a number
    assert client.delete(f"{KEYS}{digits}/").json()["error"] == "not_found"
    refused = client.put(KEYS, json={"ssh_key": LINE})
    assert (refused.status_code, refused.json()["error"]) == (405, "method_not_allowed")
    assert refused.headers["Allow"] == "GET, POST"


def test_a_body_without_a_bound_is_refused(console: Console, client: httpx.Client) -> None:
    """A chunked body and one over the cap are 400 without being read."""
    assert client.post(KEYS, content=iter([b"{", b"}"])).status_code == 400
    head = f"POST {KEYS} HTTP/1.1\r\nHost: console\r\nContent-Length: {1 << 30}\r\n\r\n"
    assert raw_exchange(console, head).startswith(b"HTTP/1.1 400 ")
    assert console.requests == []


def raw_exchange(console: Console, head: str) -> bytes:
    address = ("127.0.0.1", httpx.URL(console.url).port or 0)
    with socket.create_connection(address, timeout=10) as raw, raw.makefile("rb") as received:
        raw.sendall(head.encode())
        return received.read()


def test_many_clients_at_once(console: Console) -> None:
    """Keys added by many clients at once are all there, each with its own id."""

    def add(number: int) -> int:
        with client_of(console) as client:
            body = {"ssh_key": f"key {number}"}
            return int(client.post(KEYS, json=body).json()["key"]["id"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(add, range(40)))
    assert len(set(ids)) == 40
    assert {key.text for key in console.account.stored()} == {f"key {n}" for n in range(40)}


def test_nothing_is_left() -> None:
    """After the end the port is closed, kept connections too, and no thread remains."""
    before = set(threading.enumerate())
    with Console() as console, client_of(console) as client:
        assert client.get(KEYS).status_code == 200
        url = console.url
        console.__exit__(None, None, None)
        with pytest.raises(httpx.TransportError):
            client.get(f"{url}{KEYS}")
    assert eventually(lambda: set(threading.enumerate()) == before), threading.enumerate()
    with pytest.raises(RuntimeError):
        _ = console.url


def test_the_data_outlive_the_serving() -> None:
    """A console that serves a second time has the keys and the API key of the first."""
    console = Console()
    with console:
        console.add_key(LINE)
    with console, client_of(console) as client:
        assert [entry["key"] for entry in client.get(KEYS).json()] == [LINE]


def test_no_file_is_left() -> None:
    """Without a directory of its own a console's data are gone with the object."""
    folder = "/proc/self/fd"
    before = len(os.listdir(folder))
    console = Console()
    with console:
        database = Path(console.world.engine.url.database or "")
        assert database.exists()
    del console
    gc.collect()
    assert not database.parent.exists()
    assert len(os.listdir(folder)) <= before


def test_an_end_does_not_wait_for_answers() -> None:
    """Serving ends at once although an answer is still owed."""
    with Console() as console, client_of(console) as client, ThreadPoolExecutor(1) as pool:
        console.switches.slow_seconds = 60.0
        console.fault = "slow"
        asked = pool.submit(client.get, KEYS)
        while not console.requests:
            time.sleep(0.01)
        start = time.monotonic()
        console.__exit__(None, None, None)
        assert time.monotonic() - start < 5
        with pytest.raises(httpx.TransportError):
            asked.result()


def test_a_fixed_port_can_be_used_again() -> None:
    """A console can come back at the same address with the same account."""
    with Console() as console, client_of(console) as client:
        port = httpx.URL(console.url).port or 0
        client.get(KEYS)
    with Console(port=port) as again, client_of(again) as client:
        assert again.url == f"http://127.0.0.1:{port}"
        assert client.get(KEYS).status_code == 200
