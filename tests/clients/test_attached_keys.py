"""Keys that the provider's own client attaches to one instance and detaches again."""

from __future__ import annotations

import httpx

from tests.clients.support import Setting, fingerprints, public_file


def _attached(setting: Setting) -> dict[str, int]:
    """Text and id of each key, from the list that is encoded twice."""
    answer = httpx.get(
        f"{setting.console.url}/api/v0/instances/{setting.instance_id}/ssh/",
        headers={"Authorization": f"Bearer {setting.console.api_key}"},
        trust_env=False,
    )
    keys = httpx.Response(200, text=answer.json()["ssh_keys"]).json()
    return {key["public_key"]: key["id"] for key in keys}


def test_a_key_of_nobodys_list(setting: Setting) -> None:
    """R6, R9: an attached key that the account does not list is foreign and stays as it is until
    it is detached; the listed key that the platform wiped off the file meanwhile is back.
    """
    listed, key = setting.listed_key(), setting.new_key()
    number = str(setting.instance_id)
    setting.client.run("attach", "ssh", number, key.public_line)
    assert (setting.in_(key), setting.in_(listed)) == (True, False)
    [target] = setting.world.sync()["targets"]
    assert fingerprints(target["foreign"]) == [key.fingerprint]
    assert (setting.in_(key), setting.in_(listed)) == (True, True)
    key_id = _attached(setting)[key.public_line]
    setting.client.run("detach", "ssh", number, str(key_id))
    setting.world.sync()
    assert (setting.in_(key), setting.in_(listed)) == (False, True)


def test_a_listed_key_from_a_file(setting: Setting) -> None:
    """R1, R3: the newline of the file does no harm here, and the platform's plain line becomes a
    managed one. Detaching a key that is still listed does not last; deleting it does.
    """
    key, other = setting.listed_key(), setting.listed_key()
    key_id = min(setting.stored())
    number = str(setting.instance_id)
    setting.client.run("attach", "ssh", number, public_file(key))
    assert _attached(setting) == {key.public_line: key_id}
    [target] = setting.world.sync()["targets"]
    assert fingerprints(target["adopted"]) == [key.fingerprint]
    assert fingerprints(target["added"]) == [other.fingerprint]
    setting.client.run("detach", "ssh", number, str(key_id))
    assert not setting.in_(key)
    setting.world.sync()
    assert setting.in_(key)
    setting.client.run("delete", "ssh-key", str(key_id))
    setting.world.sync()
    assert (setting.in_(key), setting.in_(other)) == (False, True)


def test_a_revoked_key(setting: Setting) -> None:
    """R5: a key that was deleted from the account is removed also when the platform attaches it."""
    gone, stays = setting.listed_key(), setting.listed_key()
    setting.client.run("delete", "ssh-key", str(min(setting.stored())))
    setting.world.sync()
    setting.client.run("attach", "ssh", str(setting.instance_id), public_file(gone))
    assert setting.in_(gone)
    setting.world.sync()
    assert (setting.in_(gone), setting.in_(stays)) == (False, True)


def test_what_is_not_there(setting: Setting) -> None:
    """The client says in words that an instance or a key is unknown, and nothing changes."""
    key = setting.listed_key()
    before = setting.world.lines
    stranger = setting.client.tries("attach", "ssh", "999999", key.public_line)
    assert "Failed with error 404: Instance not found." in stranger.err
    unknown = setting.client.tries("detach", "ssh", str(setting.instance_id), "999999")
    assert "Failed with error 404: SSH key not found." in unknown.err
    assert setting.world.lines == before
    assert setting.in_(key)
