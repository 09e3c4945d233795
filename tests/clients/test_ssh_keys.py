"""SSH keys by the provider's own client: what it sends, what the agent makes of it, who gets in."""

from __future__ import annotations

import json

from tests.clients.support import Setting, fingerprints, public_file


def test_create_and_show(setting: Setting) -> None:
    """R1: a key that the client creates gets in after the sync, not before; it shows the list."""
    anchor, key = setting.listed_key(), setting.new_key()
    made = setting.client.run("create", "ssh-key", key.public_line).made
    assert made["success"] is True
    assert not setting.in_(key)
    [target] = setting.world.sync()["targets"]
    assert [(entry["fingerprint"], entry["key_id"]) for entry in target["added"]] == [
        (key.fingerprint, made["key"]["id"])
    ]
    assert setting.in_(key)
    shown = json.loads(setting.client.run("show", "ssh-keys", "--raw").out)
    assert [entry["key"] for entry in shown] == [anchor.public_line, key.public_line]


def test_update(setting: Setting) -> None:
    """R2: a key that the client updates is the old one out and the new one in."""
    old, new = setting.listed_key(), setting.new_key()
    [key_id] = setting.stored()
    setting.client.run("update", "ssh-key", str(key_id), new.public_line)
    [target] = setting.world.sync()["targets"]
    assert fingerprints(target["removed"]) == [old.fingerprint]
    assert fingerprints(target["added"]) == [new.fingerprint]
    assert not setting.in_(old)
    assert setting.in_(new)


def test_delete(setting: Setting) -> None:
    """R2: a key that the client deletes is refused; the other one still gets in."""
    goes, stays = setting.listed_key(), setting.listed_key()
    key_id = min(setting.stored())
    setting.client.run("delete", "ssh-key", str(key_id))
    setting.world.sync()
    assert not setting.in_(goes)
    assert setting.in_(stays)
    again = setting.client.tries("delete", "ssh-key", str(key_id))
    assert "Failed with error 400: No ssh key provided" in again.err


def test_create_from_a_file_stores_its_path(setting: Setting) -> None:
    """G2: the client sends the file's name as the key; it is rejected by id and reason, and the
    key inside gets in no more than before. Those who could log in still can.
    """
    anchor, key = setting.listed_key(), setting.new_key()
    made = setting.client.run("create", "ssh-key", public_file(key)).made["key"]
    assert setting.stored()[made["id"]] == public_file(key)
    before = setting.world.lines
    report = setting.world.sync()
    assert report["rejected"] == [
        {
            "key_id": made["id"],
            "reason": "file_path",
            "detail": "this is the path of a file; paste the content of the file",
        }
    ]
    assert setting.world.status()["rejected"] == report["rejected"]
    assert setting.world.lines == before
    assert setting.in_(anchor)
    assert not setting.in_(key)


def test_nothing_but_a_path_locks_nobody_out(setting: Setting) -> None:
    """G3: an account whose only entry is a path is held, and whoever was in stays in."""
    key = setting.listed_key()
    [key_id] = setting.stored()
    setting.console.edit_key(key_id, public_file(key))
    made = setting.client.run("create", "ssh-key", public_file(key)).made["key"]
    setting.client.run("delete", "ssh-key", str(key_id))
    report = setting.world.sync(exits=3)
    assert report["error"]["kind"] == "no_valid_entry"
    assert [entry["key_id"] for entry in report["rejected"]] == [made["id"]]
    assert setting.in_(key)


def test_update_from_a_file_sends_its_newline(setting: Setting) -> None:
    """G2, incident 1: the newline at the end is no reason to refuse the key."""
    old, other, new = setting.listed_key(), setting.listed_key(), setting.new_key()
    key_id = min(setting.stored())
    setting.client.run("update", "ssh-key", str(key_id), public_file(new))
    assert setting.stored()[key_id] == f"{new.public_line}\n"
    assert setting.world.sync()["rejected"] == []
    assert [setting.in_(key) for key in (old, other, new)] == [False, True, True]


def test_an_only_key_from_a_file_replaces_the_old_one(setting: Setting) -> None:
    """G2, G3, incident 1: an account with one key, whose owner sends the new one from a file."""
    old, new = setting.listed_key(), setting.new_key()
    [key_id] = setting.stored()
    setting.client.run("update", "ssh-key", str(key_id), public_file(new))
    assert setting.world.sync()["rejected"] == []
    assert [setting.in_(key) for key in (old, new)] == [False, True]
