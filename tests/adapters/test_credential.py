"""Where the API key is looked for, and what is not accepted as one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.adapters.credential import find_credential
from agent.config_file import load
from agent.errors import CredentialRejected
from agent.events import Event
from agent.service.cycle import Request, Syncer
from sandbox.console import Console
from tests.support.machine import REPOSITORY, Machine, key_line

NOWHERE = "/nonexistent/api_key"  # these tests do not depend on an installation on this machine


def key(name: str) -> str:
    """An API key that says where it was put."""
    return f"{name}-0123456789abcdef0123456789abcdef"


def private(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@dataclass(frozen=True)
class ServedFiles:
    """Every place where an API key can be, each with its own."""

    key_file: Path
    systemd: Path
    client: Path
    old_client: Path
    environment: dict[str, str]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedFiles:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    systemd = private(tmp_path / "credentials" / "api_key", key("systemd"))
    return ServedFiles(
        private(tmp_path / "key", key("key_file") + "\n"),
        systemd,
        private(home / ".config" / "vastai" / "vast_api_key", key("client")),
        private(home / ".vast_api_key", key("old_client") + "\n"),
        {"CREDENTIALS_DIRECTORY": str(systemd.parent), "VAST_API_KEY": key("variable")},
    )


def refused(key_file: Path | str | None, environment: dict[str, str]) -> CredentialRejected:
    with pytest.raises(CredentialRejected) as caught:
        find_credential(None if key_file is None else str(key_file), environment, NOWHERE)
    error = caught.value
    assert error.exit_code == 77
    assert error.message.endswith(".")
    assert error.hint
    return error


def test_order(places: ServedFiles, tmp_path: Path) -> None:
    """API key: api.key_file, the file that install makes, systemd's credential, VAST_API_KEY, the
    client's file, its older one.
    """
    environment = dict(places.environment)
    installed = private(tmp_path / "etc" / "api_key", key("installed"))
    found = [find_credential(str(places.key_file), environment, str(installed))]
    found.append(find_credential(None, environment, str(installed)))
    installed.write_text("\n")  # as good as empty
    found.append(find_credential(None, environment, str(installed)))
    installed.unlink()
    del environment["CREDENTIALS_DIRECTORY"]
    found.append(find_credential(None, environment, str(installed)))
    del environment["VAST_API_KEY"]
    found.append(find_credential(None, environment, str(installed)))
    places.client.unlink()
    found.append(find_credential(None, environment, str(installed)))
    assert [(one.value, one.source) for one in found] == [
        (key("key_file"), str(places.key_file)),
        (key("installed"), str(installed)),
        (key("systemd"), str(places.systemd)),
        (key("variable"), "the variable VAST_API_KEY"),
        (key("client"), str(places.client)),
        (key("old_client"), str(places.old_client)),
    ]


def test_exposed_installed_file(places: ServedFiles, tmp_path: Path) -> None:
    """API key: the file that install makes is refused like any other when others can read it."""
    installed = private(tmp_path / "etc" / "api_key", key("installed"))
    installed.chmod(0o644)
    with pytest.raises(CredentialRejected, match="can be read or written by others"):
        find_credential(None, places.environment, str(installed))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_installed_file_of_root_is_not_for_others() -> None:
    """API key: an ordinary user's agent goes on to that user's own places."""
    folder = tempfile.mkdtemp()
    try:
        Path(folder).chmod(0o755)
        installed = private(Path(folder) / "api_key", key("installed"))
        script = (
            "import os, sys; from agent.adapters.credential import find_credential as find;"
            "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534);"
            "print(find(None, {'VAST_API_KEY': 'of-the-user-0123456789'}, sys.argv[1]).value)"
        )
        command = [sys.executable, "-c", script, str(installed)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    finally:
        shutil.rmtree(folder)
    assert done.stdout == "of-the-user-0123456789\n"


def test_none_at_all(places: ServedFiles) -> None:
    """API key, commands: without any, the message names every place, and the hint the scope."""
    places.client.unlink()
    places.old_client.unlink()
    error = refused(None, {})
    assert error.kind == "credential_missing"
    for word in (
        "api.key_file",
        NOWHERE,
        "credential api_key",
        "VAST_API_KEY",
        "~/.config/vastai/vast_api_key",
    ):
        assert word in error.message
    assert "~/.vast_api_key" in error.message
    assert "user_read" in error.hint


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_empty_variable(places: ServedFiles, empty: str) -> None:
    """API key: a variable that is set and empty is no API key; the next source is asked."""
    assert find_credential(None, {"VAST_API_KEY": empty}, NOWHERE).value == key("client")


def test_folder_without_credential(places: ServedFiles) -> None:
    """API key: a service with other credentials only goes on to the next source."""
    places.systemd.unlink()
    assert find_credential(None, places.environment, NOWHERE).value == key("variable")


def test_empty_systemd_credential(places: ServedFiles) -> None:
    """API key: a unit whose key file is missing gives an empty credential, which is none at all."""
    places.systemd.write_text("\n")
    assert find_credential(None, places.environment, NOWHERE).value == key("variable")


def test_named_file_is_missing(places: ServedFiles) -> None:
    """A file that the configuration names is the one; no other key is taken in its stead."""
    places.key_file.unlink()
    error = refused(places.key_file, places.environment)
    assert error.kind == "credential_missing"
    assert str(places.key_file) in error.message
    assert "api.key_file" in error.message


def test_home_is_written_as_a_tilde(places: ServedFiles) -> None:
    """API key, configuration: api.key_file may begin with ~/."""
    assert find_credential("~/.vast_api_key", {}).value == key("old_client")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601, 0o666, 0o777])
@pytest.mark.parametrize("named", [True, False])
def test_exposed_file(places: ServedFiles, mode: int, named: bool) -> None:
    """A file that others can read or write is refused, and the chmod in the hint mends it."""
    file = places.key_file if named else places.client
    file.chmod(mode)
    error = refused(file if named else None, {})
    assert error.kind == "credential_exposed"
    assert str(file) in error.message
    assert f"{mode:04o}" in error.message
    command, _, why = error.hint.partition("  (")
    assert command == f"chmod 600 {file}"
    assert "reset" in why
    subprocess.run(command, shell=True, check=True)
    assert find_credential(str(file), {}).source == str(file)


def test_exposed_file_with_an_odd_name(places: ServedFiles, tmp_path: Path) -> None:
    """API key: the hint can be pasted into a shell whatever the path is."""
    file = private(tmp_path / "my key; echo 'oh no'", key("odd"))
    file.chmod(0o644)
    command = refused(file, {}).hint.partition("  (")[0]
    assert shlex.split(command) == ["chmod", "600", str(file)]


def test_systemd_guards_its_own_folder(places: ServedFiles) -> None:
    """Systemd's credential is what systemd made it (systemd.exec(5)), its mode included."""
    places.systemd.chmod(0o444)
    assert find_credential(None, places.environment, NOWHERE).value == key("systemd")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"two words-0123456789abcdef",
        b"line one\nline two\n",
        b"key\0key",
        b"key\x1b[31m",
        b"\xff\xfe0123456789",
        "schlüssel-0123456789".encode(),
        "\ufeff0123456789abcdef".encode(),
        b"x" * 4097,
        b"\n" * 4096 + b"0123456789abcdef",
    ],
)
def test_malformed(places: ServedFiles, content: bytes) -> None:
    """API key, G10: what cannot be an API key is refused without a word of it being shown."""
    places.key_file.write_bytes(content)
    error = refused(places.key_file, places.environment)
    assert error.kind == "credential_malformed"
    assert str(places.key_file) in error.message
    said = error.message.replace(str(places.key_file), "") + error.hint
    assert ("is empty" in error.message) == (content.strip() == b"")
    for secret in ("0123456789", "two words", "line one", "xxxx", "\x1b"):
        assert secret not in said


def test_malformed_variable(places: ServedFiles) -> None:
    """API key: the message names the variable when it is the source."""
    error = refused(None, {"VAST_API_KEY": "my key"})
    assert error.kind == "credential_malformed"
    assert "VAST_API_KEY" in error.message
    assert "my key" not in error.message + error.hint


@pytest.mark.parametrize("end", ["", "\n", "\r\n", " \n\n"])
def test_blanks_around(places: ServedFiles, end: str) -> None:
    """API key: what an editor leaves at the end of a file is no part of the key."""
    places.key_file.write_text("\n " + key("key_file") + end)
    assert find_credential(str(places.key_file), {}).value == key("key_file")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path, 0o600), "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
    ids=["folder", "pipe", "device", "loop"],
)
@pytest.mark.parametrize("named", [True, False])
def test_no_file(places: ServedFiles, make: Callable[[Path], None], word: str, named: bool) -> None:
    """Something else in the file's place is refused at once, and no other source is taken."""
    path = places.key_file if named else places.client
    path.unlink()
    make(path)
    error = refused(path if named else None, {})
    assert error.kind == "credential_unreadable"
    assert str(path) in error.message
    assert word in error.message


def test_linked_file(places: ServedFiles, tmp_path: Path) -> None:
    """API key: a link to a private file is as good as the file; a dangling one is no file."""
    link = tmp_path / "link"
    link.symlink_to(places.key_file)
    assert find_credential(str(link), {}).value == key("key_file")
    places.key_file.unlink()
    assert refused(link, {}).kind == "credential_missing"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
@pytest.mark.parametrize("named", [True, False])
def test_file_of_another_user(places: ServedFiles, named: bool) -> None:
    """G8, API key: who owns the key file chooses the account, so root takes no ordinary user's; the
    chown in the hint mends it.
    """
    file = places.key_file if named else places.client
    os.chown(file, 12345, 12345)
    error = refused(file if named else None, {})
    assert error.kind == "credential_untrusted"
    for word in (str(file), "12345", "runs as user id 0"):
        assert word in error.message
    command = error.hint.partition(": ")[2].partition("  (")[0]
    assert command == f"chown 0 {file}"
    subprocess.run(command, shell=True, check=True)
    assert find_credential(str(file), {}).source == str(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
@pytest.mark.parametrize("what", ["folder", "link"])
def test_way_of_another_user(places: ServedFiles, tmp_path: Path, what: str) -> None:
    """G8, API key: nor what an ordinary user can exchange for another file of root's."""
    path = places.client
    if what == "folder":
        os.chown(path.parent, 12345, 12345)
    else:
        path.unlink()
        path.symlink_to(places.key_file)
        os.chown(path, 12345, 12345, follow_symlinks=False)
    error = refused(None, {})
    assert error.kind == "credential_untrusted"
    assert str(path) in error.message
    assert "12345" in error.message


_FIND = """
import os, sys
from agent.adapters.credential import find_credential
uid = int(sys.argv[1])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
print(find_credential(None, {"CREDENTIALS_DIRECTORY": sys.argv[2]}, "/nonexistent").value)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("owner", [0, 64123])
def test_systemds_credential_is_roots_or_the_services(owner: int) -> None:
    """Systemd.exec(5): the file is root's with an access list, or belongs to User= itself."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        found = private(Path(folder) / "api_key", key("systemd"))
        os.chown(found, owner, -1)
        found.chmod(0o444 if owner == 0 else 0o400)
        command = [sys.executable, "-c", _FIND, "64123", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == key("systemd")


def test_key_is_read_anew_for_each_poll(tmp_path: Path) -> None:
    """API key: a key that is reset on the console and replaced on disk works without a restart."""
    emitted: list[Event] = []
    with Console() as console:
        machine = Machine(tmp_path, console.url)
        machine.set_api_key(console.api_key)
        console.add_key(key_line("laptop"))
        syncer = Syncer(load(str(machine.config), {}), {}, emitted.append)
        first = syncer.sync(Request())
        machine.set_api_key(console.reset_api_key())
        second = syncer.sync(Request())
        console.reset_api_key()
        third = syncer.sync(Request())
        machine.set_api_key(console.api_key)
        fourth = syncer.sync(Request())
        syncer.close()
    assert [report.exit_code for report in (first, second, third, fourth)] == [0, 0, 77, 0]
    assert third.problem
    assert third.problem.kind == "credential_rejected"
    assert str(machine.api_key_file) in third.problem.message
    assert "user_read" in third.problem.hint
    assert len(machine.lines) == 1
