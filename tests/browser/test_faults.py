"""Pull the plug in a real browser, and watch the agent keep everybody's way in."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from sandbox.instance import KeyPair
from sandbox.page.fault_words import FAULT_WORDS
from tests.browser.support import LIVE_MS, Person, Setting

# What the panel of the instance comes to say: the kind of the agent's last error.
_SEEN = {
    "outage": "connection_lost",
    "error_500": "server_error",
    "rate_limited": "rate_limited",
    "html": "html_page",
    "truncated": "not_json",
    "another_account": "account_changed",
}


def _flip(person: Person, name: str) -> None:
    person.page.get_by_role("switch", name=FAULT_WORDS[name].title).click()


def _is_pulled(person: Person, name: str) -> None:
    banner = person.page.locator(".banner")
    expect(banner).to_contain_text(f"The plug is pulled: {FAULT_WORDS[name].title}")
    switch = person.page.get_by_role("switch", name=FAULT_WORDS[name].title)
    expect(switch).to_have_attribute("aria-checked", "true")


@pytest.fixture
def pair(setting: Setting) -> KeyPair:
    """The key of who watches."""
    return setting.instance.keygen(f"watcher-{id(setting)}", comment="watcher")


@pytest.fixture
def watching(setting: Setting, person: Person, pair: KeyPair) -> Person:
    """Somebody whose key works."""
    setting.console.add_key(pair.public_line)
    person.log_in()
    person.sees("watcher", "works")
    return person


def test_every_failure_is_shown_and_no_key_is_lost(
    watching: Person, setting: Setting, pair: KeyPair
) -> None:
    """Fault after fault the agent names what went wrong, and the key goes on working."""
    before = setting.live.keys_file.read_bytes()
    for name, kind in _SEEN.items():
        _flip(watching, name)
        _is_pulled(watching, name)
        watching.agent_says(re.compile(rf"fails, keys kept.*\b{kind}\b", re.DOTALL))
        watching.sees("watcher", "works")
        assert setting.instance.can_log_in(pair.private_path), name
    assert setting.live.keys_file.read_bytes() == before
    watching.page.get_by_role("button", name="Put it back").click()
    expect(watching.page.locator(".banner")).to_have_count(0)
    watching.agent_says("in sync")


def test_an_empty_list_is_held(watching: Person, setting: Setting, pair: KeyPair) -> None:
    """The panel says what is held, and the key works meanwhile."""
    _flip(watching, "empty_list")
    _is_pulled(watching, "empty_list")
    watching.agent_says("holds the list")
    watching.agent_says("the list is empty, seen in")
    watching.sees("watcher", "works")
    assert setting.instance.can_log_in(pair.private_path)
    _flip(watching, "empty_list")
    watching.says("The API answers as it should again.")
    watching.agent_says("in sync")
    watching.sees("watcher", "works")


def test_a_slow_api_does_no_harm(watching: Person, setting: Setting, pair: KeyPair) -> None:
    """A key that is added meanwhile works in the end, only later."""
    _flip(watching, "slow")
    _is_pulled(watching, "slow")
    late = setting.instance.keygen(f"late-{id(setting)}", comment="late")
    watching.add_key(late.public_line)
    watching.sees("late", "works")
    assert setting.instance.can_log_in(late.private_path)
    assert setting.instance.can_log_in(pair.private_path)
    expect(watching.section("Instances")).to_contain_text("in sync", timeout=LIVE_MS)
