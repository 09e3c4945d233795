"""Logging in and out; each login makes a session key."""

import hmac

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from sandbox.page.device import in_words
from sandbox.page.page import Page
from sandbox.page.security import (
    checked_form,
    cookie_name,
    first_cookie_name,
    form_token,
    new_secret,
    set_cookie,
)
from sandbox.page.templates import render


class Login:
    """The login form. Before there is a session its token follows from a cookie of its own."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the routes into the router."""
        router.get("/login", response_model=None)(self.form)
        router.post("/login", response_model=None)(self.log_in)
        router.post("/logout", response_model=None)(self.log_out)

    async def form(self, request: Request) -> Response:
        """The empty form."""
        ended = "ended" in request.query_params
        return self._form(request, "", "Your session has ended. Log in again." if ended else "")

    async def log_in(self, request: Request) -> Response:
        """Compare login and password, and begin a session."""
        secret = request.cookies.get(first_cookie_name(request), "")
        form = await checked_form(request, form_token(secret) if secret else new_secret())
        login, password = _text(form.get("login")), _text(form.get("password"))
        address = request.client.host if request.client else ""
        if wait := self._page.throttle.wait():
            error = f"Too many wrong passwords. Try again in {wait} seconds."
            return self._form(request, login, error, 429, wait)
        if not self._is_right(login, password):
            self._page.throttle.failed()
            return self._form(request, login, "Login or password is wrong.", 401)
        self._page.throttle.succeeded()
        return self._begin(request, address)

    async def log_out(self, request: Request) -> Response:
        """End the session of this browser."""
        visitor, _form = await self._page.gate.posted(request)
        self._page.world.sessions.end(visitor.session.user_id, visitor.session.id)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(cookie_name(request), path="/", httponly=True, samesite="strict")
        return answer

    def _form(
        self, request: Request, login: str, said: str, status: int = 200, wait: int = 0
    ) -> Response:
        secret = request.cookies.get(first_cookie_name(request)) or new_secret()
        answer = render(
            "login.html",
            status,
            login=login,
            said=said,
            is_error=status > 200,
            csrf=form_token(secret),
            files=self._page.world.credential_files,
        )
        set_cookie(answer, first_cookie_name(request), secret)
        if wait:
            answer.headers["Retry-After"] = str(wait)
        return answer

    def _is_right(self, login: str, password: str) -> bool:
        account = self._page.world.account
        right = account.check_password(password)
        return hmac.compare_digest(login.encode(), account.login.encode()) and right

    def _begin(self, request: Request, address: str) -> Response:
        world = self._page.world
        device = in_words(request.headers.get("user-agent", ""))
        _session, token = world.sessions.begin(world.account.user_id, device, address)
        answer = RedirectResponse("/keys", 303)
        set_cookie(answer, cookie_name(request), token)
        return answer


def _text(value: object) -> str:
    """A form's field; an uploaded file is none."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
