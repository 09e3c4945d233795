"""A Chromium for each file, one sshd for all; a fresh console and agent for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from sandbox.console import Console
from sandbox.instance import Instance
from sandbox.stage import instance_with_agent
from tests.browser.support import CHROMIUM, FLAGS, Person, Setting

Arrive = Callable[..., Person]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for longer: while it is there, an event loop runs in this thread, and no other can."""
    if not CHROMIUM.exists():
        if os.geteuid() == 0:
            pytest.fail("chromium is missing: tools/setup.sh browser installs it")
        pytest.skip(reason="chromium is missing; as root: tools/setup.sh browser installs it")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def instance() -> Iterator[Instance]:
    with Instance() as running:
        yield running


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as running:
        yield running


@pytest.fixture
def setting(console: Console, instance: Instance) -> Iterator[Setting]:
    """The instance of a new account, without keys yet."""
    with instance_with_agent(console, instance) as live:
        yield Setting(console, instance, live)


@pytest.fixture
def arrive(browser: Browser, console: Console) -> Iterator[Arrive]:
    """Lets persons come, each with a browser of their own; none may have had an error in it."""
    persons: list[Person] = []

    def come(**options: object) -> Person:
        persons.append(Person.arrive(browser, console, **options))
        return persons[-1]

    yield come
    for person in persons:
        person.context.close()
    assert [complaint for person in persons for complaint in person.complaints] == []


@pytest.fixture
def person(arrive: Arrive) -> Person:
    return arrive()
