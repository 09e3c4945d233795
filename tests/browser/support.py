"""A person at the Keys page: a real Chromium, with the verbs of the tests."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from sandbox.console import Console
from sandbox.instance import Instance
from sandbox.platform import LiveInstance

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LIVE_MS = 20_000  # an agent polls every two seconds, and backs off to five when it fails
_REPOSITORY = Path(__file__).parents[2]


def artefacts() -> Path:
    """Where pictures of the page are kept for people."""
    folder = Path(os.environ.get("KEYSYNC_ARTEFACTS") or _REPOSITORY / ".artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Setting:
    """A console with an instance and the agent beside it."""

    console: Console
    instance: Instance
    live: LiveInstance

    @property
    def agents_key_file(self) -> Path:
        """The file that the agent reads its API key from."""
        assert self.live.agent_config is not None
        return self.live.agent_config.parent / "api_key"


@dataclass
class Person:
    """Somebody with a browser of their own; `complaints` is what the browser objected to."""

    context: BrowserContext
    page: Page
    console: Console
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def arrive(cls, browser: Browser, console: Console, **options: object) -> Person:
        """Open a fresh browser profile."""
        context = browser.new_context(**options)  # type: ignore[arg-type]  # reason: its own options
        context.set_default_timeout(LIVE_MS)
        person = cls(context, context.new_page(), console)
        person.page.on("pageerror", lambda error: person.complaints.append(str(error)))
        person.page.on("console", person._heard)
        return person

    def log_in(self) -> Person:
        """Fill in the login form, and wait for the live page."""
        known = self.console.world.credentials
        self.page.goto(f"{self.console.url}/")
        self.page.get_by_label("Login").fill(known.login)
        self.page.get_by_label("Password").fill(known.password)
        self.page.get_by_role("button", name="Log in").click()
        self.is_live()
        return self

    def is_live(self) -> None:
        """The stream has brought its first parts."""
        expect(self.page.locator("html[data-live=yes]")).to_be_attached(timeout=LIVE_MS)

    def section(self, name: str) -> Locator:
        """A section by its heading."""
        return self.page.get_by_role("region", name=name, exact=True)

    @property
    def dialog(self) -> Locator:
        """The open dialog."""
        return self.page.get_by_role("dialog")

    def add_key(self, text: str) -> None:
        """+New, paste, Save."""
        self.page.get_by_role("link", name="New SSH key").click()
        self.dialog.get_by_label("Public key").fill(text)
        self.dialog.get_by_role("button", name="Save").click()

    def key(self, name: str) -> Locator:
        """The entry of an SSH key, by its name alone: ages and reasons hold words too."""
        named = self.page.locator(".name", has_text=name)
        return self.section("SSH Keys").locator("[data-key]").filter(has=named)

    def sees(self, key: str, state: str) -> None:
        """The live column beside a key comes to say this."""
        expect(self.key(key).locator(f".state-{state}")).to_be_visible(timeout=LIVE_MS)

    def says(self, text: str | re.Pattern[str]) -> None:
        """The page shows a message."""
        expect(self.page.locator("[data-said]")).to_have_text(text)

    def agent_says(self, text: str | re.Pattern[str]) -> None:
        """The panel of the instance comes to show this."""
        expect(self.section("Instances")).to_contain_text(text, timeout=LIVE_MS)

    def picture(self, name: str, where: Locator | None = None) -> None:
        """Keep a picture for people."""
        path = artefacts() / f"{name}.png"
        if where is None:
            self.page.screenshot(path=path, animations="disabled")
        else:
            where.screenshot(path=path, animations="disabled")

    def _heard(self, message: object) -> None:
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        if kind == "error" and "Failed to load resource" not in text:
            self.complaints.append(text)
