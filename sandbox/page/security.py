"""Who may use the page: the session's cookie, the token in every form, the lightest of throttles.

Nothing here is an exception handler of the application: `GuardedRoute` answers by itself, so the
page is guarded wherever its router is put.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import FormData

from sandbox.page.templates import render
from sandbox.sessions import LIFETIME, Session, Sessions

_LARGEST_FORM_BYTES = 64 * 1024
_OUR_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not no-referrer: with it browsers send `Origin: null` with every form, also with ours.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Number(Convertor[int]):
    """An id in an address: what has more digits than SQLite's integers hold is no address."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        """As the routes get it."""
        return int(value)

    def to_string(self, value: int) -> str:
        """As it stands in an address."""
        return str(value)


register_url_convertor("number", Number())


class Turned(Exception):
    """A request that goes no further; `response` says why or where to go instead."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class GuardedRoute(APIRoute):
    """A route of the page: answered on this machine's own names only, with the headers above."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI inside the guard."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                _check_name(request)
                response = await handler(request)
            except Turned as turned:
                response = turned.response
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return guarded


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks: the session, its token for the stream's own checks, and what its forms carry."""

    session: Session
    token: str
    csrf: str


class Gate:
    """Lets in who has a session, and believes forms only that this page itself has made."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def visitor(self, request: Request) -> Visitor:
        """Who asks; everybody else is sent to the login form."""
        token = request.cookies.get(cookie_name(request), "")
        session = self._sessions.find(token) if token else None
        if session is None:
            raise Turned(RedirectResponse("/login?ended=1" if token else "/login", 303))
        return Visitor(session, token, form_token(token))

    async def posted(self, request: Request) -> tuple[Visitor, FormData]:
        """Who sent a form of this page, and what is in it."""
        visitor = self.visitor(request)
        return visitor, await checked_form(request, visitor.csrf)


async def checked_form(request: Request, expected: str) -> FormData:
    """The form, if this page made it: its origin, its size and its token are right."""
    _check_origin(request)
    _check_body(request)
    form = await request.form()
    sent = form.get("csrf")
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), expected.encode()):
        raise refused(
            403,
            "This form is not valid any more",
            "Its token is missing or belongs to another session, so nothing was changed. "
            "Go back, reload the page and try again.",
        )
    return form


def form_token(secret: str) -> str:
    """What forms carry; it follows from the cookie, which other sites cannot read."""
    return hmac.new(secret.encode(), b"form token", hashlib.sha256).hexdigest()


def refused(status: int, title: str, text: str) -> Turned:
    """An answer that says what was refused, why, and what to do next."""
    return Turned(render("refused.html", status, title=title, text=text))


def cookie_name(request: Request) -> str:
    """Cookies know no ports: two consoles on one machine would sign each other out."""
    return f"keys_session_{_port(request)}"


def first_cookie_name(request: Request) -> str:
    """The cookie that the login form's token follows from, before there is a session."""
    return f"keys_visit_{_port(request)}"


def set_cookie(response: Response, name: str, value: str) -> None:
    """Keep a value in the browser, out of reach of scripts and of other sites' requests.

    Without `Secure`: the console speaks plain HTTP, and only on loopback.
    """
    seconds = int(LIFETIME.total_seconds())
    response.set_cookie(name, value, max_age=seconds, path="/", httponly=True, samesite="strict")


def new_secret() -> str:
    """A value that nobody can guess."""
    return secrets.token_urlsafe(32)


@dataclass(slots=True)
class Throttle:
    """At most `_ALLOWED` wrong passwords a minute.

    From all addresses together: who is on this machine has all of 127.0.0.0/8.
    """

    _failures: list[float] = field(default_factory=list)

    def wait(self) -> int:
        """For how many seconds nobody must try again."""
        recent = self._recent()
        return 0 if len(recent) < _ALLOWED else max(1, round(recent[0] + _WINDOW - _clock()))

    def failed(self) -> None:
        """Count a wrong password."""
        self._failures = [*self._recent(), _clock()]

    def succeeded(self) -> None:
        """Forget the wrong ones: the right person is there."""
        self._failures.clear()

    def _recent(self) -> list[float]:
        return [at for at in self._failures if at > _clock() - _WINDOW]


_ALLOWED = 5
_WINDOW = 60.0
_clock = time.monotonic


def _port(request: Request) -> int:
    server = request.scope.get("server")
    return int(server[1]) if server else 0


def _check_name(request: Request) -> None:
    """A foreign name that leads to this machine (DNS rebinding) gets nothing."""
    if request.url.hostname not in _OUR_NAMES:
        raise refused(
            403, "Wrong address", "This page answers on 127.0.0.1 and localhost; open it there."
        )


def _check_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    fetched = request.headers.get("sec-fetch-site", "same-origin")
    if origin not in (None, own) or fetched not in ("same-origin", "none"):
        raise refused(
            403,
            "This form came from another site",
            "Nothing was changed. Forms are taken from this page only: open it and try again.",
        )


def _check_body(request: Request) -> None:
    length = request.headers.get("content-length", "")
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise refused(415, "Not a form of this page", "Nothing was changed: send it from the page.")
    if not length.isascii() or not length.isdecimal() or int(length) > _LARGEST_FORM_BYTES:
        raise refused(
            413, "Too much text", "A form may hold 64 kB; nothing was stored. A key is far shorter."
        )
