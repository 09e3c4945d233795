"""A person at the Keys page without a browser's scripts: plain links, forms and cookies."""

from __future__ import annotations

import re
from html import unescape

import httpx

from sandbox.console import Console

_CSRF = re.compile(r'name="csrf" value="([^"]+)"')
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


class Visitor:
    """One browser; redirects are followed, as browsers do."""

    def __init__(self, console: Console, user_agent: str = FIREFOX) -> None:
        self.console = console
        self.http = httpx.Client(
            base_url=console.url,
            follow_redirects=True,
            trust_env=False,
            verify=False,  # plain HTTP: reading the machine's certificates would only cost time
            headers={"User-Agent": user_agent},
            timeout=30,  # a busy machine is no failure of the page
        )

    def close(self) -> None:
        self.http.close()

    def log_in(self, login: str | None = None, password: str | None = None) -> httpx.Response:
        """Send the login form, by default with the right values."""
        known = self.console.world.credentials
        fields = {"login": login or known.login, "password": password or known.password}
        return self.send("/login", "/login", **fields)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def send(self, form: str, action: str, **fields: str | list[str]) -> httpx.Response:
        """Open the page with a form, and send that form with its token."""
        return self.http.post(action, data={"csrf": self.token(form), **fields})

    def token(self, form: str) -> str:
        """The token in the forms of a page."""
        found = _CSRF.search(self.get(form).text)
        assert found is not None, f"{form} has no form"
        return found[1]

    def text(self, path: str = "/keys") -> str:
        """What a page says, without its markup."""
        return words(self.get(path))


def words(answer: httpx.Response) -> str:
    """The text of a page, its blanks and line breaks folded."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", answer.text))).strip()
