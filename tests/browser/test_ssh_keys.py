"""SSH Keys in a real browser: what the live column says is what a real `ssh` login meets."""

from __future__ import annotations

import itertools

from playwright.sync_api import expect

from sandbox.instance import KeyPair
from tests.browser.support import LIVE_MS, Person, Setting

_numbers = itertools.count()


def _pair(setting: Setting, name: str) -> KeyPair:
    return setting.instance.keygen(f"{name}-{next(_numbers)}", comment=name)


def _gets_in(setting: Setting, pair: KeyPair) -> bool:
    return setting.instance.can_log_in(pair.private_path)


def test_an_added_key_turns_to_works_and_gets_in(setting: Setting, person: Person) -> None:
    """From the empty state: +New, paste, Save; the column turns to "works", and ssh gets in."""
    pair = _pair(setting, "maria@laptop")
    person.log_in()
    expect(person.section("SSH Keys")).to_contain_text("No SSH keys yet")
    assert not _gets_in(setting, pair)
    person.add_key(pair.public_line)
    person.says("The SSH key was saved.")
    expect(person.key("maria@laptop")).to_contain_text(pair.fingerprint)
    person.sees("maria@laptop", "works")
    assert _gets_in(setting, pair)
    line = person.section("Instances").locator("tr", has_text="maria@laptop")
    expect(line).to_contain_text("managed")


def test_an_edited_key_is_replaced(setting: Setting, person: Person) -> None:
    """Edit: the new key works, the old one is refused."""
    old, new, anchor = (_pair(setting, name) for name in ("old", "new", "anchor"))
    setting.console.add_key(anchor.public_line)
    setting.console.add_key(old.public_line)
    person.log_in()
    person.sees("old", "works")
    assert _gets_in(setting, old)
    person.page.get_by_role("link", name="Edit old").click()
    field = person.dialog.get_by_label("Public key")
    expect(field).to_have_value(old.public_line)
    field.fill(new.public_line)
    person.dialog.get_by_role("button", name="Save").click()
    person.says("The SSH key was changed.")
    person.sees("new", "works")
    assert _gets_in(setting, new)
    assert not _gets_in(setting, old)


def test_a_deleted_key_is_refused(setting: Setting, person: Person) -> None:
    """Delete asks first; kept, nothing changes; deleted, the key is refused and the others not."""
    goes, stays = _pair(setting, "goes"), _pair(setting, "stays")
    setting.console.add_key(goes.public_line)
    setting.console.add_key(stays.public_line)
    person.log_in()
    person.sees("goes", "works")
    person.page.get_by_role("link", name="Delete goes").click()
    expect(person.dialog).to_contain_text(goes.fingerprint)
    expect(person.dialog).to_contain_text("Open sessions stay open until they end.")
    person.dialog.get_by_role("link", name="Keep it").click()
    expect(person.dialog).to_be_hidden()
    assert len(setting.console.account.stored()) == 2
    person.page.get_by_role("link", name="Delete goes").click()
    person.dialog.get_by_role("button", name="Delete").click()
    person.says("The SSH key was deleted.")
    expect(person.section("Instances").locator("tr", has_text="goes")).to_have_count(0)
    assert not _gets_in(setting, goes)
    assert _gets_in(setting, stays)


def test_the_last_key_is_held_and_shown_as_still_let_in(setting: Setting, person: Person) -> None:
    """A deleted last key still opens the instance while the agent holds, and the page says so."""
    only = _pair(setting, "only")
    setting.console.add_key(only.public_line)
    person.log_in()
    person.sees("only", "works")
    person.page.get_by_role("link", name="Delete only").click()
    expect(person.dialog).to_contain_text("It is the last key")
    person.dialog.get_by_role("button", name="Delete").click()
    lingering = person.section("SSH Keys").locator(f"[data-lingering='{only.fingerprint}']")
    expect(lingering).to_contain_text("the list is empty, seen in", timeout=LIVE_MS)
    expect(lingering).to_have_count(0, timeout=LIVE_MS)
    assert not _gets_in(setting, only)


def test_a_restricted_line_is_shown_for_what_it_is(setting: Setting, person: Person) -> None:
    """Listed, it is called restricted; deleted, it is called still authorized."""
    anchor, limited = _pair(setting, "anchor"), _pair(setting, "limited")
    with setting.live.keys_file.open("a") as file:
        file.write(f'restrict,command="echo limited" {limited.public_line}\n')
    key_id = setting.console.add_key(limited.public_line)
    setting.console.add_key(anchor.public_line)
    person.log_in()
    person.sees("anchor", "works")  # so the agent has seen both on the list
    person.sees("limited", "restricted")
    setting.console.delete_key(key_id)
    lingering = person.section("SSH Keys").locator("[data-lingering]")
    expect(lingering).to_contain_text("limited", timeout=LIVE_MS)
    expect(lingering).to_contain_text("Still authorized by a restricted line", timeout=LIVE_MS)


def test_garbage_is_warned_of_and_then_rejected_with_a_reason(
    setting: Setting, person: Person
) -> None:
    """The warning stands beside the field with the text kept; the agent's reason comes live."""
    person.log_in()
    person.add_key("/home/maria/.ssh/id_ed25519.pub")
    expect(person.dialog.get_by_role("alert")).to_contain_text("path of a file")
    field = person.dialog.get_by_label("Public key")
    expect(field).to_have_value("/home/maria/.ssh/id_ed25519.pub")
    expect(field).to_be_focused()
    person.dialog.get_by_role("button", name="Save anyway").click()
    person.says("The SSH key was saved.")
    person.sees("id_ed25519.pub", "rejected")
    expect(person.key("id_ed25519.pub").locator(".state-rejected .why")).not_to_be_empty()


def test_a_pasted_private_key_is_refused(setting: Setting, person: Person) -> None:
    """It is not stored, and it is gone from the field."""
    pair = _pair(setting, "private")
    person.log_in()
    person.add_key(pair.private_path.read_text())
    expect(person.dialog.get_by_role("alert")).to_contain_text("This is a private key")
    expect(person.dialog.get_by_label("Public key")).to_have_value("")
    assert setting.console.account.stored() == []


def test_a_comment_with_markup_is_text(setting: Setting, person: Person) -> None:
    """No script of a key's comment ever runs, on the page, in its live parts or in a dialog."""
    evil = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
    pair = setting.instance.keygen("evil", comment=evil)
    person.log_in()
    person.add_key(pair.public_line)
    person.sees("<script>", "works")
    person.page.get_by_role("link", name="Delete <script>").click()
    expect(person.dialog).to_contain_text("<script>document.title")
    assert "owned" not in person.page.title()
    assert person.page.locator("img").count() == 0


def test_a_key_is_copied(setting: Setting, person: Person) -> None:
    """With the permission to the clipboard, and without it shown and selected instead."""
    pair = _pair(setting, "maria@laptop")
    setting.console.add_key(pair.public_line)
    person.log_in()
    person.sees("maria@laptop", "works")
    button = person.key("maria@laptop").get_by_role("button", name="Copy the public key")
    deny = "navigator.clipboard.writeText = () => Promise.reject(new Error('denied'))"
    allow = "delete navigator.clipboard.writeText"
    person.page.evaluate(f"() => {{ {deny}; }}")
    button.click()
    expect(button).to_have_text("Press Ctrl+C")
    assert person.page.evaluate("getSelection().toString()") == pair.public_line
    person.page.evaluate(f"() => {{ {allow}; }}")
    person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button.click()
    expect(button).to_have_text("Copied")
    assert person.page.evaluate("navigator.clipboard.readText()") == pair.public_line
    expect(button).to_have_text("Copy")
