"""Instances: what the platform itself can do to the keys of one."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from sandbox.page.page import Page
from sandbox.page.sections.forms import text_of
from sandbox.page.security import refused
from sandbox.platform import NotAttached, UnknownInstance

_MOST_DIGITS = 18  # of an integer in SQLite


class InstanceSection:
    """Attach, detach and the platform's rewriting of the file, per instance."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the routes into the router."""
        router.post("/keys/instances/{number:number}/attach", response_model=None)(self.attach)
        router.post("/keys/instances/{number:number}/detach", response_model=None)(self.detach)
        router.post("/keys/instances/{number:number}/refresh", response_model=None)(self.refresh)

    async def attach(self, request: Request, number: int) -> Response:
        """Attach a key of the account."""
        _visitor, form = await self._page.gate.posted(request)
        wanted = text_of(form, "key_id")
        texts = [k.text for k in self._page.world.account.stored() if str(k.id) == wanted]
        if not texts:
            return _back("instance-gone")
        platform = self._page.world.platform
        return _done("attached", lambda: platform.attach(number, texts[0]))

    async def detach(self, request: Request, number: int) -> Response:
        """Detach a key."""
        _visitor, form = await self._page.gate.posted(request)
        wanted = text_of(form, "key_id")
        key_id = _number(wanted)
        platform = self._page.world.platform
        return _done("detached", lambda: platform.detach(number, key_id))

    async def refresh(self, request: Request, number: int) -> Response:
        """Let the platform write the file from its own list, as it does every few hours."""
        await self._page.gate.posted(request)
        return _done("rewritten", lambda: self._page.world.platform.refresh(number))


def _number(text: str) -> int:
    """The id in a field; 0, which no key has, when there is none."""
    if not (text.isascii() and text.isdecimal()):
        return 0
    if len(text) > _MOST_DIGITS:
        raise refused(404, "No such key", "The key's number is too long; nothing was changed.")
    return int(text)


def _done(name: str, deed: Callable[[], object]) -> Response:
    try:
        deed()
    except (UnknownInstance, NotAttached):
        return _back("instance-gone")
    return _back(name)


def _back(done: str) -> Response:
    return RedirectResponse(f"/keys?done={done}#instances", 303)
