"""Every section and dialog, light and dark, wide and narrow: checked by axe, kept as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # reason: it carries no types
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Arrive
from tests.browser.support import LIVE_MS, Person, Setting
from tests.support.machine import key_line

_WIDE = {"width": 1200, "height": 860}
_PHONE = {"width": 375, "height": 760}
_SECTIONS = ("SSH Keys", "API Keys", "Session Keys", "Instances", "Faults")


def _is_accessible(person: Person, what: str) -> None:
    """No finding of axe at all, whatever its impact."""
    found = Axe().run(person.page)
    assert found.violations_count == 0, f"{what}:\n{found.generate_report()}"


def _has_no_sideways_scroll(person: Person) -> None:
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert person.page.evaluate(wide) is False


def _furnish(setting: Setting) -> None:
    """One of everything that the page can show."""
    console = setting.console
    console.add_key(key_line("maria@laptop"))
    console.add_key(key_line("build-server"))
    console.add_key(key_line("night-watch"))
    console.add_key("/home/maria/.ssh/id_ed25519.pub")
    with setting.live.keys_file.open("a") as file:
        file.write("# from the image\n")
        file.write(f'restrict,command="/usr/bin/backup" {key_line("night-watch")}\n')
        file.write(f"{key_line('operator@old-desk')}\n")
    console.world.api_keys.create("agent on C.1", {"api": {"user_read": {}}})


@contextmanager
def _dialog(person: Person, link: str) -> Iterator[Locator]:
    person.page.get_by_role("link", name=link, exact=True).click()
    expect(person.dialog.get_by_role("heading")).to_be_visible()
    yield person.dialog
    person.page.keyboard.press("Escape")
    expect(person.dialog).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_section_is_accessible(setting: Setting, arrive: Arrive, scheme: str) -> None:
    """The whole page, its empty state and its banner; the colours follow the system."""
    person = arrive(color_scheme=scheme, viewport=_WIDE)
    person.page.goto(f"{setting.console.url}/login")
    _is_accessible(person, "login")
    person.picture(f"{scheme}-login")
    person.log_in()
    _is_accessible(person, "empty")
    person.picture(f"{scheme}-empty", person.section("SSH Keys"))
    _furnish(setting)
    person.sees("maria@laptop", "works")
    person.sees("night-watch", "restricted")
    person.sees("id_ed25519.pub", "rejected")
    _is_accessible(person, "page")
    person.picture(f"{scheme}-page")
    for name in _SECTIONS:
        person.picture(f"{scheme}-{name.lower().replace(' ', '-')}", person.section(name))
    _has_no_sideways_scroll(person)
    dark = person.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(17, 22, 27)") is (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_dialog_is_accessible(setting: Setting, arrive: Arrive, scheme: str) -> None:
    """Forms, questions, errors and the value that is shown once."""
    _furnish(setting)
    person = arrive(color_scheme=scheme, viewport=_WIDE).log_in()
    for name, link in (
        ("new-ssh", "New SSH key"),
        ("edit-ssh", "Edit maria@laptop"),
        ("delete-ssh", "Delete maria@laptop"),
        ("new-api", "New API key"),
        ("edit-api", "Edit agent on C.1"),
        ("reset-api", "Reset sandbox"),
        ("delete-api", "Delete sandbox"),
    ):
        with _dialog(person, link):
            _is_accessible(person, name)
            person.picture(f"{scheme}-{name}")
    with _dialog(person, "New SSH key") as dialog:
        dialog.get_by_label("Public key").fill("ssh-ed25519 AAAAC3Nz maria@laptop")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.get_by_role("alert")).to_be_visible()
        _is_accessible(person, "warning")
        person.picture(f"{scheme}-warning")
    with _dialog(person, "New API key") as dialog:
        dialog.get_by_label("Name", exact=True).fill("agent on C.2")
        dialog.get_by_role("button", name="Make the key").click()
        expect(dialog.get_by_role("button", name="Copy")).to_be_visible()
        _is_accessible(person, "value")
        person.picture(f"{scheme}-value")
    with _dialog(person, "New API key") as dialog:
        dialog.get_by_role("radio", name="Only for keysync").check()
        person.picture(f"{scheme}-only-for-keysync")
        dialog.get_by_role("button", name="Make the key").click()
        expect(dialog.get_by_label("Install keysync with this key")).to_be_visible()
        _is_accessible(person, "install line")
        person.picture(f"{scheme}-install-line")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_pulled_plug_is_accessible(setting: Setting, arrive: Arrive, scheme: str) -> None:
    """The banner, the failing agent, and keys that work on."""
    _furnish(setting)
    person = arrive(color_scheme=scheme, viewport=_WIDE).log_in()
    person.sees("maria@laptop", "works")
    setting.console.fault = "outage"
    person.agent_says("fails, keys kept")
    setting.console.add_key(key_line("too-late"))
    person.sees("too-late", "pending")
    _is_accessible(person, "outage")
    person.picture(f"{scheme}-outage")
    person.picture(f"{scheme}-outage-instances", person.section("Instances"))


def test_a_phone_shows_it_all(setting: Setting, arrive: Arrive) -> None:
    """Nothing is cut off or scrolls sideways, and every control can be hit with a thumb."""
    _furnish(setting)
    person = arrive(viewport=_PHONE, has_touch=True).log_in()
    person.sees("maria@laptop", "works")
    _has_no_sideways_scroll(person)
    _is_accessible(person, "phone")
    person.picture("phone")
    with _dialog(person, "New API key"):
        _is_accessible(person, "phone dialog")
        person.picture("phone-new-api")
    # All at once: a live update may replace a row between two questions.
    controls = person.page.locator("main button:visible, main a.button:visible")
    sides = controls.evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(box => [box.width, box.height])"
    )
    assert len(sides) > 3
    assert min(map(min, sides)) >= 24  # WCAG 2.2, 2.5.8
    expect(person.section("Faults")).to_be_visible(timeout=LIVE_MS)
