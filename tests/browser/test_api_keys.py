"""API Keys in a real browser, with an agent that lives by one of them."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.support import LIVE_MS, Person, Setting
from tests.support.machine import key_line


def _copied(person: Person) -> str:
    """Press Copy in the dialog, and read the clipboard."""
    value = person.dialog.get_by_label("API key", exact=True)
    expect(value).to_have_value(re.compile("^[0-9a-f]{64}$"))
    person.dialog.get_by_role("button", name="Copy").click()
    expect(person.dialog.get_by_role("button", name="Copied")).to_be_visible()
    text: str = person.page.evaluate("navigator.clipboard.readText()")
    assert text == value.input_value()
    return text


def test_an_agent_follows_its_api_key(setting: Setting, person: Person) -> None:
    """Make, copy, give to the agent; reset, and see it fail and recover; delete, and see it fail.

    Through all of this the SSH key keeps working.
    """
    setting.console.add_key(key_line("maria@laptop"))
    person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    person.log_in()
    person.page.get_by_role("link", name="New API key").click()
    boxes = person.dialog.get_by_role("checkbox")
    assert all(box.is_checked() for box in boxes.all())
    person.dialog.get_by_label("Name", exact=True).fill("agent on C.1")
    for box in boxes.all():
        box.set_checked(box.get_attribute("value") == "user_read")
    person.dialog.get_by_role("button", name="Make the key").click()
    setting.agents_key_file.write_text(_copied(person))
    person.dialog.get_by_role("link", name="Done").click()
    entry = person.section("API Keys").locator("[data-api]", has_text="agent on C.1")
    expect(entry).to_contain_text("May user_read")
    expect(entry).to_contain_text("last used", timeout=LIVE_MS)

    person.page.get_by_role("link", name="Reset agent on C.1").click()
    person.dialog.get_by_role("button", name="Reset").click()
    expect(person.dialog).to_contain_text("The old value has stopped working")
    value = _copied(person)
    person.dialog.get_by_role("link", name="Done").click()
    person.agent_says("fails, keys kept")
    person.agent_says("credential_rejected")
    person.sees("maria@laptop", "works")
    setting.agents_key_file.write_text(value)
    person.agent_says("in sync")

    person.page.get_by_role("link", name="Delete agent on C.1").click()
    person.dialog.get_by_role("button", name="Delete").click()
    person.says("The API key was deleted; it stopped working at once.")
    person.agent_says("fails, keys kept")
    person.sees("maria@laptop", "works")
    assert value not in person.page.content()


def test_only_for_keysync_is_one_choice(setting: Setting, person: Person) -> None:
    """One click in the form; the agent syncs with that key, and the install line is copied."""
    person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    person.log_in()
    person.page.get_by_role("link", name="New API key").click()
    person.dialog.get_by_role("radio", name="Only for keysync").check()
    expect(person.dialog.get_by_role("checkbox").first).to_be_hidden()
    person.dialog.get_by_role("button", name="Make the key").click()
    expect(person.dialog).to_contain_text("It is shown only once")
    value = person.dialog.get_by_label("API key", exact=True).input_value()
    person.dialog.get_by_role("button", name="Copy the install line").click()
    expect(person.dialog.get_by_text("Copied")).to_be_visible()
    copied = person.page.evaluate("navigator.clipboard.readText()")
    assert copied.split() == [
        f"VAST_URL={setting.console.url}",
        f"VAST_API_KEY={value}",
        "/opt/keysync/bin/keysync",
        "install",
    ]
    setting.agents_key_file.write_text(value)
    person.dialog.get_by_role("link", name="Done").click()
    entry = person.section("API Keys").locator("[data-api]", has_text="keysync")
    expect(entry).to_contain_text("May read the SSH keys, nothing else")
    expect(entry).to_contain_text("last used", timeout=LIVE_MS)
    person.add_key(key_line("maria@laptop"))
    person.sees("maria@laptop", "works")
    person.agent_says("in sync")


def test_an_api_key_is_edited(setting: Setting, person: Person) -> None:
    """Name and permissions, by keyboard; an agent with the key goes on with the same value."""
    _key, value = setting.console.world.api_keys.create("agent", {"api": {"user_read": {}}})
    setting.agents_key_file.write_text(value)
    person.log_in()
    edit = person.page.get_by_role("link", name="Edit agent")
    edit.focus()
    person.page.keyboard.press("Enter")
    name = person.dialog.get_by_label("Name", exact=True)
    expect(name).to_be_focused()
    expect(name).to_have_value("agent")
    name.fill("")
    person.page.keyboard.press("Enter")
    expect(person.dialog.get_by_role("alert")).to_contain_text("Give the key a name")
    person.page.keyboard.type("renamed")
    person.page.keyboard.press("Tab")
    person.page.keyboard.press("ArrowUp")
    expect(person.dialog.get_by_role("radio", name="Only for keysync")).to_be_checked()
    person.page.keyboard.press("Enter")
    person.says("The API key was changed; its value is still the same.")
    entry = person.section("API Keys").locator("[data-api]", has_text="renamed")
    expect(entry).to_contain_text("May read the SSH keys, nothing else")
    setting.console.add_key(key_line("maria@laptop"))
    person.sees("maria@laptop", "works")
    assert value not in person.page.content()
