"""The page without a mouse, and without scripts."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from sandbox.console import Console
from tests.browser.conftest import Arrive
from tests.browser.support import LIVE_MS, Person, Setting
from tests.support.machine import key_line

_MOST_TABS = 60


def _tab_to(page: Page, name: str) -> None:
    """Press Tab until the element with this accessible name has the focus, and can be seen to."""
    for _ in range(_MOST_TABS):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        said = focused.get_attribute("aria-label") or focused.inner_text()
        if said.strip() == name:
            outline: str = focused.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline == "solid", f"{name} has the focus, and nobody sees it"
            return
    raise AssertionError(f"{name} was not reached in {_MOST_TABS} steps")


def _log_in(person: Person) -> Page:
    page, known = person.page, person.console.world.credentials
    page.goto(person.console.url)
    expect(page.get_by_label("Login")).to_be_focused()
    page.keyboard.type(known.login)
    page.keyboard.press("Tab")
    page.keyboard.type(known.password)
    page.keyboard.press("Enter")
    person.is_live()
    return page


def test_everything_by_keyboard(setting: Setting, person: Person) -> None:
    """Log in, add a key, change one's mind, delete the key: the focus is always where one looks."""
    setting.console.add_key(key_line("anchor"))
    page = _log_in(person)
    _tab_to(page, "New SSH key")
    page.keyboard.press("Enter")
    expect(person.dialog.get_by_label("Public key")).to_be_focused()
    page.keyboard.press("Escape")
    expect(person.dialog).to_have_count(0)
    expect(page.get_by_role("link", name="New SSH key")).to_be_focused()
    page.keyboard.press("Enter")
    expect(person.dialog.get_by_label("Public key")).to_be_focused()
    page.keyboard.type(key_line("typed"))
    _tab_to(page, "Save")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The SSH key was saved.")).to_be_focused()
    person.sees("typed", "works")
    _tab_to(page, "Delete typed")
    page.keyboard.press("Enter")
    expect(person.dialog.get_by_role("link", name="Keep it")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The SSH key was deleted.")).to_be_focused()


def test_the_focus_survives_what_is_live(setting: Setting, person: Person) -> None:
    """When the list is drawn anew under a focused button, or while the dialog that it opened
    stands in front of it, the focus is on that button afterwards.
    """
    setting.console.add_key(key_line("first"))
    person.log_in()
    person.sees("first", "works")
    button = person.page.get_by_role("link", name="Edit first")
    button.focus()
    setting.console.add_key(key_line("second"))
    person.sees("second", "works")
    expect(button).to_be_focused()
    person.page.keyboard.press("Enter")
    expect(person.dialog.get_by_label("Public key")).to_be_focused()
    setting.console.add_key(key_line("third"))
    expect(person.page.locator(".name", has_text="third")).to_be_attached()
    person.page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_changes_are_said(setting: Setting, person: Person) -> None:
    """A screen reader is told, politely, what the live column has come to say."""
    setting.console.add_key(key_line("first"))  # an empty list would be held
    person.log_in()
    person.sees("first", "works")
    setting.console.fault = "outage"  # so that the agent cannot be faster than the page
    person.add_key(key_line("maria@laptop"))
    person.sees("maria@laptop", "pending")
    setting.console.fault = None
    news = person.page.locator("#live-news[role=status]")
    expect(news).to_have_text("maria@laptop: works on C.1.", timeout=LIVE_MS)


def test_everything_without_scripts(console: Console, arrive: Arrive) -> None:
    """Links, forms and questions are pages of their own."""
    person = arrive(java_script_enabled=False)
    page, known = person.page, console.world.credentials
    page.goto(console.url)
    page.get_by_label("Login").fill(known.login)
    page.get_by_label("Password").fill(known.password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="New SSH key").click()
    expect(page).to_have_url(re.compile("/keys/ssh/new$"))
    page.get_by_label("Public key").fill("garbage")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("does not begin with a key type")
    page.get_by_label("Public key").fill(key_line("maria@laptop"))
    page.get_by_role("button", name="Check again and save").click()
    person.says("The SSH key was saved.")
    page.get_by_role("link", name="Delete maria@laptop").click()
    page.get_by_role("button", name="Delete").click()
    person.says("The SSH key was deleted.")
    page.get_by_role("link", name="New API key").click()
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_label("API key")).to_have_value(re.compile("^[0-9a-f]{64}$"))
    page.get_by_role("link", name="Done").click()
    page.get_by_role("switch", name="Outage").click()
    assert console.fault == "outage"
    page.get_by_role("button", name="Put it back").click()
    assert console.fault is None
