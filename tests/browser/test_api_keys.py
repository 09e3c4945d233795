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
    person.dialog.get_by_label("Name").fill("agent on C.1")
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
