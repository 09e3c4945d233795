"""The Keys page by plain links and forms, as a browser without scripts uses it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from html import unescape
from pathlib import Path

import httpx
import pytest

from sandbox.console import Console
from sandbox.faults import FAULTS
from sandbox.instance import Instance
from sandbox.page.fault_words import FAULT_WORDS
from sandbox.page.permission_words import PERMISSION_WORDS
from sandbox.permissions import CATEGORIES, everything, of, only_for_keysync
from tests.sandbox.page_support import Visitor, words
from tests.support.machine import Machine, fingerprint, key_line


def _texts(console: Console) -> list[str]:
    return [key.text for key in console.account.stored()]


def _field(answer: httpx.Response, name: str) -> str:
    found = re.search(rf'<textarea id="{name}"[^>]*>\n(.*?)</textarea>', answer.text, re.DOTALL)
    assert found is not None
    return unescape(found[1])


def _checked(answer: httpx.Response, name: str = "permission") -> list[str]:
    """The values of the boxes or the radio button that are chosen."""
    return re.findall(rf'name="{name}" value="(\w+)" checked', answer.text)


def _value(answer: httpx.Response) -> str:
    found = re.search(r'id="value" value="([0-9a-f]+)"', answer.text)
    assert found is not None, words(answer)
    return found[1]


# ---- SSH Keys ----


def test_an_account_without_keys_says_so(visitor: Visitor) -> None:
    """The empty state says what to do."""
    assert "No SSH keys yet. Add a public key" in visitor.text()


def test_a_pasted_key_is_saved_and_listed(console: Console, visitor: Visitor) -> None:
    """+New, paste, Save: the key is on the list with type, fingerprint, name and age."""
    line = key_line("maria@laptop")
    answer = visitor.send("/keys/ssh/new", "/keys/ssh", key=f"  {line}\r\n")
    assert _texts(console) == [line]
    said = words(answer)
    assert "The SSH key was saved." in said
    assert f"maria@laptop ssh-ed25519 {fingerprint(line)} added" in said
    assert re.search(r"added (just now|\d seconds? ago)", said)


def test_a_reload_saves_nothing_twice(console: Console, visitor: Visitor) -> None:
    """Post, redirect, get: what a reload repeats is harmless."""
    answer = visitor.send("/keys/ssh/new", "/keys/ssh", key=key_line("once"))
    assert answer.history[0].status_code == 303
    visitor.get(str(answer.url))
    assert len(_texts(console)) == 1


def test_nothing_is_no_key(console: Console, visitor: Visitor) -> None:
    """The error stands beside the field and is tied to it."""
    answer = visitor.send("/keys/ssh/new", "/keys/ssh", key=" \r\n ")
    assert answer.status_code == 422
    assert "Paste a public key" in words(answer)
    assert 'aria-describedby="key-error key-hint" aria-invalid=true' in answer.text
    assert _texts(console) == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_private_key_is_refused_and_kept_nowhere(
    console: Console, visitor: Visitor, tmp_path: Path, *, whole: bool
) -> None:
    """Neither stored, nor echoed, nor saved "anyway"; also without its first line."""
    with Instance() as instance:
        private = instance.keygen("private").private_path.read_text()
    secret = private.splitlines()[2]
    pasted = private if whole else "\n".join(private.splitlines()[1:])
    for anyway in ("", "private", "no_type"):
        answer = visitor.send("/keys/ssh/new", "/keys/ssh", key=pasted, anyway=anyway)
        assert answer.status_code == 422
        assert "This is a private key, so it was not stored" in words(answer)
        assert secret not in answer.text
        assert _field(answer, "key") == ""
        assert "Save anyway" not in words(answer)
    console.add_key(key_line("stored"))
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert key_line("stored").encode() in content
    assert secret.encode() not in content


def test_a_private_key_is_no_edit_either(console: Console, visitor: Visitor) -> None:
    """The old text stays."""
    key_id = console.add_key(key_line("old"))
    sent = visitor.send(
        f"/keys/ssh/{key_id}/edit", f"/keys/ssh/{key_id}", key="-----BEGIN RSA PRIVATE KEY-----"
    )
    assert sent.status_code == 422
    assert _texts(console) == [key_line("old")]


def test_garbage_is_asked_about_and_then_saved(console: Console, visitor: Visitor) -> None:
    """As on the real console it can be stored; here only by somebody who was told."""
    garbage = 'not a key "><b>&'
    asked = visitor.send("/keys/ssh/new", "/keys/ssh", key=garbage)
    assert asked.status_code == 422
    assert "does not begin with a key type" in words(asked)
    assert _field(asked, "key") == garbage
    assert _texts(console) == []
    saved = visitor.send("/keys/ssh/new", "/keys/ssh", key=garbage, anyway="no_type")
    assert _texts(console) == [garbage]
    assert "Cannot be used: it does not begin with a key type" in words(saved)


def test_another_garbage_is_asked_about_again(console: Console, visitor: Visitor) -> None:
    """Saying yes to one doubt is not saying yes to the next."""
    path = "/home/me/.ssh/id.pub"
    asked = visitor.send("/keys/ssh/new", "/keys/ssh", key=path, anyway="no_type")
    assert asked.status_code == 422
    assert _texts(console) == []


def test_several_keys_can_be_saved_each_by_itself(console: Console, visitor: Visitor) -> None:
    """A paste of a whole file is one click away from what was meant."""
    lines = [key_line("one"), key_line("two")]
    asked = visitor.send("/keys/ssh/new", "/keys/ssh", key="\r\n".join(lines))
    assert "several keys" in words(asked)
    assert "Save each key by itself" in words(asked)
    visitor.send("/keys/ssh/new", "/keys/ssh", key="\r\n".join(lines), split="1")
    assert _texts(console) == lines


def test_the_bare_body_of_a_private_key_is_refused(
    console: Console, visitor: Visitor, tmp_path: Path
) -> None:
    """PEM without its first and last line, also for who insists."""
    path = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    lines = path.read_text().splitlines()[1:-1]
    body = "\r\n".join(lines)
    for anyway in ("", "no_type"):
        answer = visitor.send("/keys/ssh/new", "/keys/ssh", key=body, anyway=anyway)
        assert answer.status_code == 422
        assert lines[1] not in answer.text
    assert _texts(console) == []


def test_a_private_key_is_no_name(console: Console, visitor: Visitor) -> None:
    """An API key's name is shown for ever: refused, and not echoed."""
    before = len(console.world.api_keys.stored())
    name = "-----BEGIN EC PRIVATE KEY----- MHcCAQEEIA"
    answer = visitor.send("/keys/api/new", "/keys/api", name=name, permission="misc")
    assert answer.status_code == 422
    assert "This is a private key" in words(answer)
    assert "MHcCAQEEIA" not in answer.text
    assert len(console.world.api_keys.stored()) == before


@pytest.mark.parametrize("number", ["9" * 19, "9" * 30, "9" * 5000])
def test_a_number_that_no_key_can_have_is_not_found(
    console: Console, visitor: Visitor, tmp_path: Path, number: str
) -> None:
    """Neither SQLite nor Python gets to see it."""
    instance = console.world.platform.add_instance("C.7", keys_file=tmp_path / "authorized_keys")
    csrf = visitor.token("/keys")
    for path in (
        f"/keys/ssh/{number}",
        f"/keys/ssh/{number}/delete",
        f"/keys/api/{number}/delete",
        f"/keys/api/{number}/reset",
        f"/keys/sessions/{number}/delete",
        f"/keys/instances/{number}/refresh",
    ):
        sent = visitor.http.post(path, data={"csrf": csrf, "key": key_line("x")})
        assert sent.status_code == 404
        assert visitor.get(path).status_code == 404
    fields = {"csrf": csrf, "key_id": number}
    detached = visitor.http.post(f"/keys/instances/{instance}/detach", data=fields)
    assert detached.status_code == 404


def test_splitting_saves_no_private_key(console: Console, visitor: Visitor) -> None:
    """A private key between two public ones is still a private key."""
    pasted = f"{key_line('one')}\r\n{key_line('two')} PRIVATE KEY"
    assert visitor.send("/keys/ssh/new", "/keys/ssh", key=pasted, split="1").status_code == 422
    assert _texts(console) == []


def test_a_comment_is_text(console: Console, visitor: Visitor) -> None:
    """Escaping: markup in a key's comment is shown, never obeyed, on every page that names it."""
    evil = key_line("x").replace(" x", """ <script>alert(1)</script>"'><img src=x onerror=1>""")
    key_id = console.add_key(evil)
    for path in ("/keys", f"/keys/ssh/{key_id}/edit", f"/keys/ssh/{key_id}/delete"):
        page = visitor.get(path).text
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert" not in page
        assert "<img" not in page
    with visitor.http.stream("GET", "/keys/live") as stream:
        data = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert "<script>alert" not in json.loads(data.removeprefix("data: "))["live-ssh"]


def test_editing_changes_the_text(console: Console, visitor: Visitor) -> None:
    """Edit shows the old text and stores the new one under the same id."""
    key_id = console.add_key(key_line("old"))
    form = visitor.get(f"/keys/ssh/{key_id}/edit")
    assert _field(form, "key") == key_line("old")
    answer = visitor.send(f"/keys/ssh/{key_id}/edit", f"/keys/ssh/{key_id}", key=key_line("new"))
    assert "The SSH key was changed." in words(answer)
    assert [(key.id, key.text) for key in console.account.stored()] == [(key_id, key_line("new"))]


def test_saving_an_edit_without_a_change_asks_nothing(console: Console, visitor: Visitor) -> None:
    """A key is no double of itself."""
    key_id = console.add_key(key_line("same"))
    path = f"/keys/ssh/{key_id}"
    assert visitor.send(f"{path}/edit", path, key=key_line("same")).status_code == 200


def test_deleting_asks_first(console: Console, visitor: Visitor) -> None:
    """The question names the key and deletes nothing; the answer does."""
    key_id = console.add_key(key_line("goes"))
    console.add_key(key_line("stays"))
    path = f"/keys/ssh/{key_id}/delete"
    question = visitor.text(path)
    assert "goes" in question
    assert fingerprint(key_line("goes")) in question
    assert "the last key" not in question
    assert len(_texts(console)) == 2
    assert "The SSH key was deleted." in words(visitor.send(path, path))
    assert _texts(console) == [key_line("stays")]


def test_deleting_the_last_key_is_warned_of(console: Console, visitor: Visitor) -> None:
    """The agent holds an empty list, and the page says so before."""
    key_id = console.add_key(key_line("only"))
    assert "It is the last key" in visitor.text(f"/keys/ssh/{key_id}/delete")


@pytest.mark.parametrize("what", ["ssh", "api", "sessions"])
def test_what_is_gone_is_said_to_be_gone(visitor: Visitor, what: str) -> None:
    """Two people at once: the second learns that there is nothing left to do."""
    page = visitor.get(f"/keys/{what}/999/delete")
    assert page.url.path == "/keys"
    assert "nothing was changed" in words(page) or "had ended already" in words(page)
    answer = visitor.send("/keys", f"/keys/{what}/999/delete")
    assert "nothing was changed" in words(answer) or "had ended already" in words(answer)
    if what != "sessions":
        assert "nothing was changed" in visitor.text(f"/keys/{what}/999/edit")
        assert "nothing was changed" in words(visitor.send("/keys", f"/keys/{what}/999"))


def test_a_team_account_cannot_hold_keys(tmp_path: Path) -> None:
    """The page says so and stores none."""
    with Console(directory=tmp_path, is_team=True) as console:
        visitor = Visitor(console)
        visitor.log_in()
        assert "team account" in visitor.text()
        answer = visitor.send("/keys/ssh/new", "/keys/ssh", key=key_line("x"))
        assert answer.status_code == 422
        assert _texts(console) == []
        visitor.close()
    console.world.close()


def test_a_key_can_be_copied_and_garbage_cannot(console: Console, visitor: Visitor) -> None:
    """The button has the stored text, whatever is in its comment; what is no key has none."""
    line = key_line('<b>&"maria\'s" laptop')
    key_id = console.add_key(line)
    other = console.add_key("/home/maria/.ssh/id_ed25519.pub")
    page = visitor.get("/keys").text
    found = re.search(rf'<code class="key-text" id="key-text-{key_id}" hidden>(.*?)</code>', page)
    assert found is not None
    assert unescape(found[1]) == line
    assert f'data-copy="#key-text-{key_id}"' in page
    assert f"key-text-{other}" not in page


def test_the_delete_question_names_open_sessions(console: Console, visitor: Visitor) -> None:
    """Deleting a key ends no session: the question says so, and how to end them."""
    key_id = console.add_key(key_line("maria@laptop"))
    said = visitor.text(f"/keys/ssh/{key_id}/delete")
    assert "refuses new logins with it after its agent's next poll" in said
    assert "Open sessions stay open until they end." in said
    assert "pgrep -af 'sshd.*@'" in said
    assert "kill PID" in said


# ---- API Keys ----


def test_a_new_api_key_may_do_everything_by_default(console: Console, visitor: Visitor) -> None:
    """The form has every permission chosen, with words for each."""
    chosen = _checked(visitor.get("/keys/api/new"))
    assert chosen == list(CATEGORIES) == list(PERMISSION_WORDS)
    visitor.send("/keys/api/new", "/keys/api", name="all", permission=chosen)
    made = console.world.api_keys.stored()[-1]
    assert (made.name, made.permissions) == ("all", everything())


def test_the_value_is_shown_once(console: Console, visitor: Visitor) -> None:
    """It works at the API; loading its page again, or the list, shows it no more."""
    answer = visitor.send("/keys/api/new", "/keys/api", name="agent", permission="user_read")
    value = _value(answer)
    assert console.world.api_keys.find(value) is not None
    again = visitor.get(str(answer.url))
    assert "was shown already" in words(again)
    assert value not in again.text
    assert f"agent …{value[-4:]} made" in words(again)


def test_a_value_is_shown_only_to_who_asked(console: Console, visitor: Visitor) -> None:
    """Its address is of no use in another session."""
    sent = visitor.http.post(
        "/keys/api",
        data={"csrf": visitor.token("/keys/api/new"), "name": "mine", "permission": "misc"},
        follow_redirects=False,
    )
    other = Visitor(console)
    other.log_in()
    assert "was shown already" in words(other.get(sent.headers["location"]))
    other.close()
    assert _value(visitor.get(sent.headers["location"]))


def test_chosen_permissions_are_enforced(console: Console, visitor: Visitor) -> None:
    """A key with user_read alone lists SSH keys and can add none."""
    answer = visitor.send("/keys/api/new", "/keys/api", name="reader", permission="user_read")
    headers = {"Authorization": f"Bearer {_value(answer)}"}
    assert "May user_read" in visitor.text()
    assert visitor.http.get("/api/v0/ssh/", headers=headers).status_code == 200
    sent = visitor.http.post("/api/v0/ssh/", headers=headers, json={"ssh_key": key_line("x")})
    assert sent.status_code != 200
    assert _texts(console) == []


def test_a_form_with_errors_keeps_what_was_entered(console: Console, visitor: Visitor) -> None:
    """Name and permissions have their own errors, beside them."""
    before = len(console.world.api_keys.stored())
    nameless = visitor.send("/keys/api/new", "/keys/api", name=" ", permission=["misc"])
    assert nameless.status_code == 422
    assert "Give the key a name" in words(nameless)
    assert _checked(nameless) == ["misc"]
    powerless = visitor.send("/keys/api/new", "/keys/api", name="<none>")
    assert "Check at least one permission" in words(powerless)
    assert 'value="&lt;none&gt;"' in powerless.text
    endless = visitor.send("/keys/api/new", "/keys/api", name="x" * 101, permission="misc")
    assert "101 characters" in words(endless)
    unknown = visitor.send("/keys/api/new", "/keys/api", name="x", permission="root")
    assert unknown.status_code == 422
    assert len(console.world.api_keys.stored()) == before


def test_a_key_only_for_keysync_lists_ssh_keys_and_nothing_else(
    console: Console, visitor: Visitor
) -> None:
    """One choice, no name needed; what it may not do is refused by the API."""
    answer = visitor.send("/keys/api/new", "/keys/api", name="", scope="keysync")
    value = _value(answer)
    made = console.world.api_keys.stored()[-1]
    assert (made.name, made.permissions) == ("keysync", only_for_keysync())
    assert "May read the SSH keys, nothing else" in visitor.text()
    headers = {"Authorization": f"Bearer {value}"}
    for method, path, status in (
        ("GET", "ssh", 200),
        ("POST", "ssh", 403),
        ("DELETE", "ssh/1", 403),
        ("GET", "auth/apikeys", 403),
        ("GET", "users/current", 403),
    ):
        body = {"ssh_key": key_line("x")} if method == "POST" else None
        sent = visitor.http.request(method, f"/api/v0/{path}/", headers=headers, json=body)
        assert (path, sent.status_code) == (path, status)
    assert _texts(console) == []


def test_the_install_line_carries_the_new_key(
    console: Console, visitor: Visitor, tmp_path: Path
) -> None:
    """The real agent syncs with the variables of the line; other keys have no such line."""
    answer = visitor.send("/keys/api/new", "/keys/api", name="agent", scope="keysync")
    line = _field(answer, "install").strip()
    *variables, program, command = shlex.split(line)
    assert (program, command) == ("/opt/keysync/bin/keysync", "install")
    environment = dict(variable.split("=", 1) for variable in variables)
    assert environment == {"VAST_URL": console.url, "VAST_API_KEY": _value(answer)}
    console.add_key(key_line("maria@laptop"))
    folder = tmp_path / "machine"
    folder.mkdir()
    machine = Machine(folder, console.url)
    machine.set_api_key(environment["VAST_API_KEY"])
    done = machine.process("sync")
    assert done.code == 0, done.stderr
    assert machine.lines == [f"{key_line('maria@laptop')} keysync:managed"]
    everything_else = visitor.send("/keys/api/new", "/keys/api", name="x", permission="user_read")
    assert "Install keysync with this key" not in words(everything_else)


def test_edit_changes_name_and_permissions_and_keeps_the_value(
    console: Console, visitor: Visitor
) -> None:
    """The form has what is stored; the value works on, with the new permissions at once."""
    made, value = console.world.api_keys.create("old", of("misc", "user_read"))
    path = f"/keys/api/{made.id}"
    form = visitor.get(f"{path}/edit")
    assert 'name="name" value="old"' in form.text
    assert (_checked(form, "scope"), _checked(form)) == (["chosen"], ["user_read", "misc"])
    assert value not in form.text
    answer = visitor.send(f"{path}/edit", path, name=" <new> ", permission=["misc"])
    assert "The API key was changed; its value is still the same." in words(answer)
    assert value not in answer.text
    assert f"<new> …{made.last_four} made" in words(answer)
    changed = console.world.api_keys.find(value)
    assert changed is not None
    assert (changed.id, changed.name, changed.permissions) == (made.id, "<new>", of("misc"))
    headers = {"Authorization": f"Bearer {value}"}
    assert visitor.http.get("/api/v0/ssh/", headers=headers).status_code == 403


def test_edit_narrows_a_key_to_keysync(console: Console, visitor: Visitor) -> None:
    """And shows that choice the next time; a name is not made up for a key that had one."""
    made, value = console.world.api_keys.create("agent", everything())
    path = f"/keys/api/{made.id}"
    assert "Give the key a name" in words(
        visitor.send(f"{path}/edit", path, name="", scope="keysync")
    )
    visitor.send(f"{path}/edit", path, name="agent", scope="keysync")
    changed = console.world.api_keys.find(value)
    assert changed is not None
    assert changed.permissions == only_for_keysync()
    assert _checked(visitor.get(f"{path}/edit"), "scope") == ["keysync"]


def test_edit_keeps_permissions_that_have_no_boxes(console: Console, visitor: Visitor) -> None:
    """A key that a script made for one endpoint is renamed without being widened."""
    narrow = {
        "api": {"instance_read": {"api.instance.ssh.show": {"constraints": {"id": {"eq": 7}}}}}
    }
    made, value = console.world.api_keys.create("one", narrow)
    path = f"/keys/api/{made.id}"
    assert "May instance_read, in part" in visitor.text()
    form = visitor.get(f"{path}/edit")
    assert _checked(form, "scope") == ["kept"]
    assert json.dumps(narrow) in words(form)
    visitor.send(f"{path}/edit", path, name="two", scope="kept")
    changed = console.world.api_keys.find(value)
    assert changed is not None
    assert (changed.name, changed.permissions) == ("two", narrow)
    whole = console.world.api_keys.create("whole", of("misc"))[0]
    path = f"/keys/api/{whole.id}"
    assert _checked(visitor.get(f"{path}/edit"), "scope") == ["chosen"]


def test_an_edit_with_errors_changes_nothing(console: Console, visitor: Visitor) -> None:
    """The form keeps what was entered, and each error says what to do."""
    made = console.world.api_keys.create("agent", of("misc"))[0]
    path = f"/keys/api/{made.id}"
    for fields, error in (
        ({"name": " ", "permission": "misc"}, "Give the key a name that says who uses it."),
        ({"name": "x" * 101, "permission": "misc"}, "shorten it to 100 or fewer"),
        ({"name": "b"}, "Check at least one permission"),
        ({"name": "-----BEGIN RSA PRIVATE KEY-----", "permission": "misc"}, "a private key"),
    ):
        answer = visitor.send(f"{path}/edit", path, **fields)
        assert answer.status_code == 422
        assert error in words(answer)
        assert "Edit an API key agent" in words(answer)
    assert console.world.api_keys.stored()[-1] == made


def test_resetting_gives_a_new_value_at_once(console: Console, visitor: Visitor) -> None:
    """The question changes nothing; after it the old value is dead and the new one works."""
    old = console.api_key
    key_id = console.world.api_keys.stored()[0].id
    path = f"/keys/api/{key_id}/reset"
    assert "Reset this API key?" in visitor.text(path)
    assert console.world.api_keys.find(old) is not None
    answer = visitor.send(path, path)
    assert "The old value has stopped working" in words(answer)
    assert console.world.api_keys.find(old) is None
    assert console.world.api_keys.find(_value(answer)) is not None


def test_deleting_an_api_key_ends_it(console: Console, visitor: Visitor) -> None:
    """After the question its value opens nothing."""
    key_id = console.world.api_keys.stored()[0].id
    path = f"/keys/api/{key_id}/delete"
    assert "Delete this API key?" in visitor.text(path)
    assert "The API key was deleted" in words(visitor.send(path, path))
    assert console.world.api_keys.find(console.api_key) is None
    assert "No API keys." in visitor.text()


# ---- Session Keys ----


def test_each_login_makes_a_session_key(console: Console, visitor: Visitor) -> None:
    """The list names device, address, last use and expiry, and marks this browser alone."""
    other = Visitor(console, "curl/8.5.0")
    other.log_in()
    said = visitor.text()
    assert "Firefox 128 on Linux this browser from 127.0.0.1, logged in" in said
    assert "curl 8 from 127.0.0.1" in said
    assert said.count("this browser") == 1
    assert "expires in 7 days" in said
    other.close()


# ---- Instances ----


def test_an_instance_shows_its_file_line_by_line(
    console: Console, visitor: Visitor, tmp_path: Path
) -> None:
    """In order, keys shortened, and what is no key said to be none; without an agent too."""
    line = key_line("maria@laptop")
    console.add_key(line)
    file = tmp_path / "authorized_keys"
    console.world.platform.add_instance("C.7", keys_file=file, ssh_port=2222, ssh_user="root")
    with file.open("a") as opened:
        opened.write(f"# note\n\n<b>junk\n{key_line('guest')}\n")
    said = visitor.text()
    data = line.split()[1]
    assert "ssh -p 2222 root@127.0.0.1" in said
    assert "no agent runs here" in said
    assert (
        f"1 foreign ssh-ed25519 {data[:12]}…{data[-8:]} maria@laptop "
        "2 foreign not a key # note 3 foreign not a key (blank) "
        "4 foreign not a key <b>junk sshd ignores this line 5 foreign ssh-ed25519"
    ) in said
    assert data not in said.replace(line, "", 1)  # which is there for the copy button
    assert key_line("guest").split()[1] not in said
    assert "C.7 works" in said


def test_the_platform_attaches_and_detaches(
    console: Console, visitor: Visitor, tmp_path: Path
) -> None:
    """Per instance, as the platform has it: each rewrites the file wholly."""
    file = tmp_path / "authorized_keys"
    number = console.world.platform.add_instance("C.7", keys_file=file)
    line = key_line("maria@laptop")
    key_id = str(console.add_key(line))
    assert "C.7 absent" in visitor.text()
    answer = visitor.send("/keys", f"/keys/instances/{number}/attach", key_id=key_id)
    assert "The key was attached" in words(answer)
    assert file.read_text() == f"{line}\n"
    file.write_text("# by hand\n")
    visitor.send("/keys", f"/keys/instances/{number}/refresh")
    assert file.read_text() == f"{line}\n"
    attached = console.world.platform.attached(number)[0].key_id
    visitor.send("/keys", f"/keys/instances/{number}/detach", key_id=str(attached))
    assert file.read_text() == ""


@pytest.mark.parametrize("deed", ["attach", "detach", "refresh"])
@pytest.mark.parametrize("key_id", ["1", "x", "²", ""])
def test_an_unknown_instance_or_key_changes_nothing(
    visitor: Visitor, deed: str, key_id: str
) -> None:
    """Whatever the form says."""
    answer = visitor.send("/keys", f"/keys/instances/99/{deed}", key_id=key_id)
    assert "nothing was changed" in words(answer)


# ---- Faults ----


def test_every_fault_has_its_switch(console: Console, visitor: Visitor) -> None:
    """One at a time; the present one stands at the top of the page, and can be put back there."""
    assert set(FAULT_WORDS) == set(FAULTS)
    for name, fault in FAULT_WORDS.items():
        said = words(visitor.send("/keys", "/keys/fault", fault=name))
        assert console.fault == name
        assert f"The plug is pulled: {fault.title}. {fault.does} {fault.expect}" in said
    page = visitor.get("/keys").text
    assert page.count('aria-checked="true"') == 1
    visitor.send("/keys", "/keys/fault", fault="")
    assert console.fault is None
    assert "The plug is pulled" not in visitor.text()


def test_an_unknown_fault_is_none(console: Console, visitor: Visitor) -> None:
    """A made-up name never reaches the API."""
    visitor.send("/keys", "/keys/fault", fault="fire")
    assert console.fault is None


@pytest.mark.parametrize("path", ["/keys?done=<script>", "/keys?done=unknown"])
def test_an_unknown_message_is_none(visitor: Visitor, path: str) -> None:
    """The address cannot put words on the page."""
    assert "data-said" not in visitor.get(path).text


# ---- the live stream ----


def test_the_stream_brings_what_changes(console: Console, visitor: Visitor) -> None:
    """First everything, then only the parts that changed, as they change."""
    with visitor.http.stream("GET", "/keys/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = (
            json.loads(line.removeprefix("data: "))
            for line in stream.iter_lines()
            if line.startswith("data: ")
        )
        assert {"live-banner", "live-ssh", "live-api", "live-sessions"} <= set(next(events))
        console.add_key(key_line("maria@laptop"))
        changed = next(events)
        assert set(changed) == {"live-ssh"}
        assert "maria@laptop" in changed["live-ssh"]
        console.fault = "outage"
        assert set(next(events)) == {"live-banner", "live-faults"}
