"""Session Keys in real browsers: two persons, and one of them is signed out."""

from __future__ import annotations

import re

from playwright.sync_api import expect
from sqlalchemy import update

from sandbox.console import Console
from sandbox.database import sessions
from tests.browser.conftest import Arrive
from tests.browser.support import LIVE_MS, Person

_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_LOGIN = re.compile("/login")


def test_two_browsers_are_two_sessions_and_one_is_signed_out(arrive: Arrive) -> None:
    """Each names its device and marks itself; the other's open page goes to the login form."""
    mine, theirs = arrive(), arrive(user_agent=_FIREFOX)
    mine.log_in()
    theirs.log_in()
    entries = mine.section("Session Keys").locator("[data-session]")
    expect(entries).to_have_count(2)
    foreign = entries.filter(has_text="Firefox 128 on Linux")
    expect(foreign).not_to_contain_text("this browser")
    expect(entries.filter(has_text="headless Chrome")).to_contain_text("this browser")
    expect(foreign).to_contain_text("expires in 7 days")
    foreign.get_by_role("link", name="Delete").click()
    mine.dialog.get_by_role("button", name="Delete").click()
    mine.says("That browser was signed out.")
    expect(theirs.page).to_have_url(_LOGIN)
    expect(theirs.page.get_by_text("Your session has ended")).to_be_visible()
    expect(entries).to_have_count(1)
    theirs.page.goto(f"{theirs.console.url}/keys")
    expect(theirs.page).to_have_url(_LOGIN)


def test_an_open_page_notices_that_its_week_is_over(person: Person, console: Console) -> None:
    """An expired session leads to the login form, also where nobody touches the page."""
    person.log_in()
    with console.world.engine.begin() as connection:
        connection.execute(update(sessions).values(expires_at="2024-01-01T00:00:00Z"))
    expect(person.page).to_have_url(_LOGIN, timeout=LIVE_MS)


def test_logging_out(person: Person, console: Console) -> None:
    """Log out ends the session."""
    person.log_in()
    person.page.get_by_role("button", name="Log out").click()
    expect(person.page).to_have_url(_LOGIN)
    assert console.world.sessions.stored(console.user_id) == []


def test_a_console_that_goes_away_is_noticed(person: Person, console: Console) -> None:
    """The page says that what it shows may be old."""
    person.log_in()
    console.__exit__(None, None, None)
    expect(person.page.get_by_text("The connection to the console is lost")).to_be_visible()
    person.complaints.clear()  # the browser complains, rightly, that nobody answers
