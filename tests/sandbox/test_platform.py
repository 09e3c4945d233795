"""The platform's own hand on an instance: what it writes to the file, and what it wipes away."""

import json
import os
from pathlib import Path

import httpx
import pytest

from sandbox.console import Console
from tests.sandbox.support import KEYS, LINE, client_of

LATER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB== later"
FOREIGN = b"# by hand\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC== by hand\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "ssh"
    folder.mkdir()
    return folder / "authorized_keys"


def instance(console: Console, file: Path) -> str:
    """The path of a new instance's keys in the API."""
    return f"/api/v0/instances/{console.world.platform.add_instance('C.1', keys_file=file)}/ssh/"


def attached(client: httpx.Client, path: str) -> dict[int, str]:
    answer = client.get(path).json()
    assert answer["success"] is True
    return {entry["id"]: entry["public_key"] for entry in json.loads(answer["ssh_keys"])}


def test_creation(console: Console, client: httpx.Client, file: Path) -> None:
    """An instance gets the keys of its first moment as plain lines; later ones never reach it."""
    first = console.add_key(LINE)
    console.delete_key(console.add_key("deleted"))
    path = instance(console, file)
    console.add_key(LATER)
    console.delete_key(first)
    assert file.read_text() == f"{LINE}\n"
    assert attached(client, path) == {first: LINE}
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_list_is_encoded_twice(console: Console, client: httpx.Client, file: Path) -> None:
    """`ssh_keys` is a text that holds JSON, as the real one's."""
    console.add_key(LINE)
    listed = client.get(instance(console, file)).json()["ssh_keys"]
    assert isinstance(listed, str)
    assert isinstance(json.loads(listed), list)


def test_attach_and_detach(console: Console, client: httpx.Client, file: Path) -> None:
    """Each writes the whole file from the attached keys: what others wrote is gone."""
    key_id = console.add_key(LINE)
    path = instance(console, file)
    file.write_bytes(file.read_bytes() + FOREIGN)
    answer = client.post(path, json={"ssh_key": f"{LATER}\n"})
    assert answer.json() == {"success": True, "msg": "SSH key attached successfully"}
    assert file.read_text() == f"{LINE}\n{LATER}\n"
    file.write_bytes(FOREIGN)
    answer = client.delete(f"{path}{key_id}/")
    assert answer.json() == {"success": True, "msg": "SSH key removed from instance."}
    assert file.read_text() == f"{LATER}\n"
    [later] = attached(client, path)
    assert client.delete(f"{path}{later}/").status_code == 200
    assert file.read_bytes() == b""


def test_an_attached_key_of_the_account_has_its_number(
    console: Console, client: httpx.Client, file: Path
) -> None:
    """So that the number in the account's list is the one to detach, blanks at the end or not."""
    path = instance(console, file)
    key_id = console.add_key(LINE)
    client.post(path, json={"ssh_key": f"{LINE}\n"})
    client.post(path, json={"ssh_key": LINE})
    assert attached(client, path) == {key_id: LINE}
    [entry] = client.get(KEYS).json()
    assert client.delete(f"{path}{entry['id']}/").status_code == 200


def test_refresh(console: Console, file: Path) -> None:
    """The platform's own refresh wipes away what is not attached."""
    console.add_key(LINE)
    instance(console, file)
    file.write_bytes(FOREIGN)
    [live] = console.world.platform.instances()
    console.world.platform.refresh(live.id)
    assert file.read_text() == f"{LINE}\n"


def test_what_is_not_there(console: Console, client: httpx.Client, file: Path) -> None:
    """An unknown instance is 404 `no_such_instance`, an unknown key 404 `no_such_ssh_key`."""
    path = instance(console, file)
    missing = "/api/v0/instances/999/ssh/"
    for answer in (
        client.get(missing),
        client.post(missing, json={"ssh_key": LINE}),
        client.delete(f"{missing}1/"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (404, "no_such_instance")
    answer = client.delete(f"{path}999/")
    assert (answer.status_code, answer.json()["error"]) == (404, "no_such_ssh_key")
    assert client.post(path, json={}).json()["error"] == "no_ssh_key"


def test_garbage_is_written_as_it_is(console: Console, client: httpx.Client, file: Path) -> None:
    """The platform checks nothing: a path, and half a surrogate pair, become lines."""
    path = instance(console, file)
    client.post(path, json={"ssh_key": "/home/me/.ssh/id.pub"})
    client.post(path, content=b'{"ssh_key": "half \\ud800"}')
    assert file.read_bytes() == b"/home/me/.ssh/id.pub\nhalf \xed\xa0\x80\n"


def test_a_destroyed_instance(console: Console, client: httpx.Client, file: Path) -> None:
    """It is gone from the API, and its file is left to its owner."""
    console.add_key(LINE)
    path = instance(console, file)
    [live] = console.world.platform.instances()
    console.world.platform.remove_instance(live.id)
    assert client.get(path).status_code == 404
    assert console.world.platform.instances() == []
    assert file.read_text() == f"{LINE}\n"


def test_instances_of_an_earlier_run_are_gone(tmp_path: Path, file: Path) -> None:
    """Instances end with the program, and their numbers are not given again."""
    with Console(directory=tmp_path) as console:
        console.add_key(LINE)
        path = instance(console, file)
    console.world.close()
    with Console(directory=tmp_path) as again, client_of(again) as client:
        assert client.get(path).status_code == 404
        assert again.world.platform.instances() == []
        assert instance(again, file) != path
    again.world.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for somebody else")
def test_the_file_belongs_to_the_directorys_owner(
    console: Console, client: httpx.Client, tmp_path: Path
) -> None:
    """sshd reads a user's file only if it is the user's (sshd(8), StrictModes)."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    path = instance(console, folder / "authorized_keys")
    client.post(path, json={"ssh_key": LINE})
    [written] = folder.iterdir()
    assert (written.stat().st_uid, written.stat().st_gid) == (65534, 65534)


def test_a_link_for_the_directory(console: Console, file: Path, tmp_path: Path) -> None:
    """A user who puts a link in place of the keys' directory leads the platform nowhere."""
    folder, elsewhere = tmp_path / "theirs", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    instance(console, folder / file.name)
    [live] = console.world.platform.instances()
    folder.rename(tmp_path / "moved")
    folder.symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        console.world.platform.refresh(live.id)
    assert list(elsewhere.iterdir()) == []


def test_a_link_for_the_file(console: Console, file: Path, tmp_path: Path) -> None:
    """A link in place of the file is replaced; what it leads to is as it was."""
    target = tmp_path / "target"
    target.write_bytes(FOREIGN)
    target.chmod(0o644)
    file.symlink_to(target)
    console.add_key(LINE)
    instance(console, file)
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (FOREIGN, 0o644)
    assert not file.is_symlink()
    assert (file.read_text(), file.stat().st_mode & 0o777) == (f"{LINE}\n", 0o600)


def test_a_file_that_cannot_be_replaced(console: Console, file: Path) -> None:
    """What was prepared beside it does not stay."""
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        instance(console, file)
    assert list(file.parent.iterdir()) == [file]
