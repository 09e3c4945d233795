"""Who gets at the Keys page: sessions, forms of its own only, and nothing that stays behind."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from sandbox.console import Console
from sandbox.database import sessions
from sandbox.page.security import form_token
from tests.sandbox.page_support import Visitor, words
from tests.support.machine import key_line

Come = Callable[[], Visitor]
_SECTIONS = ("SSH Keys", "API Keys", "Session Keys", "Instances", "Faults")
_POSTS = (
    "/keys/ssh",
    "/keys/ssh/{key}",
    "/keys/ssh/{key}/delete",
    "/keys/api",
    "/keys/api/{api}",
    "/keys/api/{api}/reset",
    "/keys/api/{api}/delete",
    "/keys/sessions/{session}/delete",
    "/keys/instances/1/attach",
    "/keys/instances/1/detach",
    "/keys/instances/1/refresh",
    "/keys/fault",
    "/logout",
)
_PAGES = (
    "/keys",
    "/keys/live",
    "/keys/ssh/new",
    "/keys/ssh/{key}/edit",
    "/keys/ssh/{key}/delete",
    "/keys/api/new",
    "/keys/api/{api}/edit",
    "/keys/api/{api}/reset",
    "/keys/api/{api}/delete",
    "/keys/api/value/x",
    "/keys/sessions/{session}/delete",
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def console(directory: Path) -> Iterator[Console]:
    with Console(directory=directory) as running:
        running.add_key(key_line("first"))
        yield running
    running.world.close()


@pytest.fixture
def come(console: Console) -> Iterator[Come]:
    visitors: list[Visitor] = []

    def arrive() -> Visitor:
        visitors.append(Visitor(console))
        return visitors[-1]

    yield arrive
    for visitor in visitors:
        visitor.close()


@pytest.fixture
def visitor(come: Come) -> Visitor:
    arrived = come()
    assert arrived.log_in().url.path == "/keys"
    return arrived


def _filled(path: str, console: Console) -> str:
    return path.format(
        key=console.account.stored()[0].id,
        api=console.world.api_keys.stored()[0].id,
        session=console.world.sessions.stored(console.user_id)[0].id,
    )


def _everything(console: Console) -> tuple[object, ...]:
    """What a form could change, without the times of use."""
    world = console.world
    return (
        world.account.stored(deleted=True),
        [(key.id, key.name, key.last_four) for key in world.api_keys.stored()],
        [session.id for session in world.sessions.stored(world.account.user_id)],
        world.switches.fault,
    )


def test_the_page_has_its_sections(visitor: Visitor) -> None:
    """Logged in, all sections are there."""
    page = visitor.get("/keys")
    assert re.findall(r"<h2[^>]*>([^<]*)", page.text) == list(_SECTIONS)


def test_without_a_session_there_is_only_the_login(
    console: Console, visitor: Visitor, come: Come
) -> None:
    """Every page leads who is not logged in to the form, and shows nothing."""
    stranger = come()
    for path in _PAGES:
        assert visitor.http.head(_filled(path, console)).status_code == 405  # it exists
        answer = stranger.get(_filled(path, console))
        assert answer.url.path == "/login"
        assert "first" not in words(answer)


@pytest.mark.parametrize("token", [None, "", "0" * 64, "another session's"])
def test_a_form_without_its_token_is_refused(
    console: Console, visitor: Visitor, come: Come, token: str | None
) -> None:
    """CSRF: missing, empty, made up or of another session, the token stops every change."""
    if token == "another session's":
        other = come()
        other.log_in()
        token = other.token("/keys")
    before = _everything(console)
    fields = {"key": key_line("evil"), "name": "evil", "permission": "misc", "fault": "outage"}
    sent = {**fields, **({} if token is None else {"csrf": token})}
    for path in _POSTS:
        assert visitor.http.post(_filled(path, console), data=sent).status_code == 403
        assert _everything(console) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://{host}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused(
    console: Console, visitor: Visitor, headers: dict[str, str]
) -> None:
    """Even with the right token; the page's own origin is taken."""
    host = console.url.removeprefix("http://")
    sent = {name: value.format(host=host) for name, value in headers.items()}
    fields = {"csrf": visitor.token("/keys"), "fault": "outage"}
    assert visitor.http.post("/keys/fault", data=fields, headers=sent).status_code == 403
    assert console.fault is None
    own = {"Origin": console.url, "Sec-Fetch-Site": "same-origin"}
    assert visitor.http.post("/keys/fault", data=fields, headers=own).status_code == 200
    assert console.fault == "outage"


def test_the_login_form_says_where_the_credentials_are(
    console: Console, come: Come, directory: Path
) -> None:
    """The file by its path, and the line that `make sandbox` prints; never what is in them."""
    page = come().get("/login")
    said = words(page)
    assert f"{directory}/credentials.json" in said
    assert "log in with LOGIN PASSWORD" in said.replace("\xa0", "")
    known = console.world.credentials
    assert not {known.login, known.password, known.api_key} & set(said.split())
    assert known.password not in page.text
    console.world.ready_file = Path("ready.json")
    assert str(Path("ready.json").absolute()) in come().text("/login")


def test_the_login_form_has_a_token_too(console: Console, come: Come) -> None:
    """Nobody can be logged in to another's account by a foreign form."""
    known = console.world.credentials
    fields = {"login": known.login, "password": known.password}
    visitor = come()
    assert visitor.http.post("/login", data=fields).status_code == 403
    assert visitor.http.post("/login", data={**fields, "csrf": ""}).status_code == 403
    assert console.world.sessions.stored(console.user_id) == []


@pytest.mark.parametrize("token", ["", "0" * 64, "another browser's", "none"])
def test_a_login_needs_the_token_of_its_own_cookie(
    console: Console, come: Come, token: str
) -> None:
    """A foreign form knows the password of its own account, but not what the cookie holds."""
    known = console.world.credentials
    fields = {"login": known.login, "password": known.password}
    visitor, other = come(), come()
    assert visitor.get("/login").cookies
    sent = other.token("/login") if token == "another browser's" else token
    data = fields if token == "none" else {**fields, "csrf": sent}
    assert visitor.http.post("/login", data=data).status_code == 403
    assert console.world.sessions.stored(console.user_id) == []


def test_without_a_cookie_no_token_is_right(console: Console, come: Come) -> None:
    """Also not that of the empty cookie, which everybody can compute."""
    known = console.world.credentials
    fields = {"login": known.login, "password": known.password, "csrf": form_token("")}
    visitor = come()
    assert visitor.http.post("/login", data=fields).status_code == 403
    port = console.url.rpartition(":")[2]
    empty = {"Cookie": f"keys_visit_{port}="}
    assert visitor.http.post("/login", data=fields, headers=empty).status_code == 403
    assert console.world.sessions.stored(console.user_id) == []


def test_another_address_is_no_fresh_start(console: Console, come: Come) -> None:
    """A program on this machine has all of 127.0.0.0/8 to come from."""
    visitor = come()
    for _ in range(5):
        assert visitor.log_in(password="wrong").status_code == 401
    transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=False, trust_env=False)
    with httpx.Client(base_url=console.url, transport=transport) as elsewhere:
        csrf = re.search(r'name="csrf" value="([^"]+)"', elsewhere.get("/login").text)
        assert csrf is not None
        data = {"csrf": csrf[1], "login": "x", "password": "y"}
        assert elsewhere.post("/login", data=data).status_code == 429


def test_a_foreign_name_gets_nothing(console: Console, visitor: Visitor) -> None:
    """DNS rebinding: the page answers to this machine's own names only."""
    port = console.url.rpartition(":")[2]
    answer = visitor.http.get("/keys", headers={"Host": f"evil.example:{port}"})
    assert answer.status_code == 403
    assert visitor.http.get(f"http://localhost:{port}/login").status_code == 200


def test_the_cookie_is_out_of_reach(console: Console, come: Come) -> None:
    """HttpOnly, SameSite=Strict, the whole path, a week; and not the one from before the login."""
    visitor = come()
    before = dict(visitor.get("/login").cookies)
    answer = visitor.log_in()
    cookie = answer.history[0].headers["set-cookie"]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert attributes == {"httponly", "samesite=strict", "path=/", "max-age=604800"}
    assert cookie.split("=")[0] not in before


def test_two_consoles_on_one_machine_do_not_sign_each_other_out(
    console: Console, visitor: Visitor
) -> None:
    """Cookies know no ports, so the port is in their name."""
    with Console() as second:
        visitor.http.base_url, visitor.console = httpx.URL(second.url), second
        visitor.log_in()
        assert visitor.get(f"{console.url}/keys").url.path == "/keys"
        assert visitor.get(f"{second.url}/keys").url.path == "/keys"


@pytest.mark.parametrize("path", ["/login", "/keys", "/keys/ssh/new", "/static/style.css"])
def test_the_headers_guard_every_answer(visitor: Visitor, path: str) -> None:
    """No foreign frame, no foreign or inline script, no guessing of types; pages are not kept."""
    answer = visitor.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    kept = "no-cache" if path.startswith("/static") else "no-store"
    assert answer.headers["cache-control"] == kept
    assert "<style" not in answer.text
    assert "<script>" not in answer.text
    assert not re.search(r"""\son[a-z]+=|\sstyle=["']""", answer.text) or path.endswith(".css")
    assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", answer.text)


def test_wrong_passwords_are_slowed_down(console: Console, come: Come) -> None:
    """The sixth try within a minute waits, even with the right password; the login is kept."""
    visitor = come()
    for _ in range(5):
        wrong = visitor.log_in(password="wrong")
        assert wrong.status_code == 401
        assert "Login or password is wrong" in words(wrong)
        assert f'value="{console.world.credentials.login}"' in wrong.text
    throttled = visitor.log_in()
    assert throttled.status_code == 429
    assert 0 < int(throttled.headers["retry-after"]) <= 60
    assert console.world.sessions.stored(console.user_id) == []


def test_the_right_password_forgets_the_wrong_ones(visitor: Visitor) -> None:
    """A typing mistake now and then never adds up."""
    for _ in range(3):
        for _ in range(4):
            assert visitor.log_in(password="wrong").status_code == 401
        assert visitor.log_in().url.path == "/keys"


def test_a_wrong_login_with_the_right_password_stays_out(console: Console, come: Come) -> None:
    """Both must be right, whatever is in them."""
    assert come().log_in(login="someone").status_code == 401
    assert come().log_in(login="räksmörgås \U0001f600", password="ä").status_code == 401


def test_logging_out_ends_the_session(console: Console, visitor: Visitor) -> None:
    """Not only the cookie goes: a kept copy of it opens nothing."""
    copy = dict(visitor.http.cookies)
    assert visitor.send("/keys", "/logout").url.path == "/login"
    assert visitor.get("/keys").url.path == "/login"
    assert httpx.get(f"{console.url}/keys", cookies=copy, trust_env=False).status_code == 303


def test_an_expired_session_stops_working(console: Console, visitor: Visitor) -> None:
    """After its week, the page asks for a login and says why."""
    with console.world.engine.begin() as connection:
        connection.execute(update(sessions).values(expires_at="2024-01-01T00:00:00Z"))
    answer = visitor.get("/keys")
    assert answer.url.path == "/login"
    assert "Your session has ended" in words(answer)


def test_a_deleted_session_is_signed_out_at_once(come: Come, console: Console) -> None:
    """Also its open stream ends, with the word that it was signed out."""
    mine, theirs = come(), come()
    mine.log_in()
    theirs.log_in()
    newest = console.world.sessions.stored(console.user_id)[0]
    with theirs.http.stream("GET", "/keys/live") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: parts"
        answer = mine.send(
            f"/keys/sessions/{newest.id}/delete", f"/keys/sessions/{newest.id}/delete"
        )
        ended = time.monotonic()
        assert "That browser was signed out" in words(answer)
        assert "event: signed-out" in list(lines)
        assert time.monotonic() - ended < 5
    assert theirs.get("/keys").url.path == "/login"
    assert mine.get("/keys").url.path == "/keys"


def test_deleting_the_own_session_leads_to_the_login(console: Console, visitor: Visitor) -> None:
    """This browser is marked, and can sign itself out here too."""
    own = console.world.sessions.stored(console.user_id)[0]
    assert "Firefox 128 on Linux this browser" in visitor.text()
    path = f"/keys/sessions/{own.id}/delete"
    assert visitor.send(path, path).url.path == "/login"


def test_an_oversized_form_is_refused(console: Console, visitor: Visitor) -> None:
    """Nothing of it is stored, and the answer says so."""
    fields = {"csrf": visitor.token("/keys"), "key": "x" * 70_000, "anyway": "no_type"}
    answer = visitor.http.post("/keys/ssh", data=fields)
    assert answer.status_code == 413
    assert len(console.account.stored()) == 1


def test_a_file_is_no_form(console: Console, visitor: Visitor) -> None:
    """Uploads have no place on this page."""
    files = {"key": ("id.pub", key_line("x"))}
    fields = {"csrf": visitor.token("/keys")}
    assert visitor.http.post("/keys/ssh", data=fields, files=files).status_code == 415
    assert len(console.account.stored()) == 1


def test_the_database_holds_no_secret_of_the_page(directory: Path, visitor: Visitor) -> None:
    """Neither the password, nor a session's token, nor an API key's value."""
    known = visitor.console.world.credentials
    made = visitor.send("/keys/api/new", "/keys/api", name="mine", permission="user_read")
    found = re.search(r'id="value" value="([0-9a-f]{64})"', made.text)
    assert found is not None
    content = b"".join(path.read_bytes() for path in directory.glob("console.sqlite3*"))
    assert b"mine" in content
    for secret in (known.password, known.api_key, found[1], *dict(visitor.http.cookies).values()):
        assert secret.encode() not in content


def test_the_address_is_that_of_the_connection(console: Console, come: Come) -> None:
    """A header that names another address neither enters the list nor escapes the throttle."""
    visitor = come()
    visitor.http.headers["X-Forwarded-For"] = "203.0.113.1"
    visitor.log_in()
    assert [one.address for one in console.world.sessions.stored(console.user_id)] == ["127.0.0.1"]
