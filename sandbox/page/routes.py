"""The Keys page as a router: put it into any application that serves this world's API."""

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from sandbox.page.live import Board
from sandbox.page.messages import message
from sandbox.page.page import Page
from sandbox.page.sections.api_keys import ApiKeySection
from sandbox.page.sections.faults import FaultSection
from sandbox.page.sections.instances import InstanceSection
from sandbox.page.sections.login import Login
from sandbox.page.sections.session_keys import SessionSection
from sandbox.page.sections.ssh_keys import SshSection
from sandbox.page.security import Gate, GuardedRoute, refused
from sandbox.page.stream import Stream

if TYPE_CHECKING:
    from sandbox.world import World

_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def page_router(world: "World") -> APIRouter:
    """All routes of the page; they are no part of the API's description."""
    page = Page(world, Board(world.platform), Gate(world.sessions))
    router = APIRouter(route_class=GuardedRoute, include_in_schema=False)
    front = Front(page)
    router.get("/", response_model=None)(front.root)
    router.get("/keys", response_model=None)(front.keys)
    router.get("/static/{name}", response_model=None)(front.static)
    for section in (
        Login(page),
        SshSection(page),
        ApiKeySection(page),
        SessionSection(page),
        InstanceSection(page),
        FaultSection(page),
        Stream(page),
    ):
        section.add_to(router)
    return router


class Front:
    """The page itself and the files it is made with."""

    def __init__(self, page: Page) -> None:
        self._page = page
        folder = Path(__file__).parent / "static"
        self._files = {name: (folder / name).read_bytes() for name in _STATIC}

    async def root(self) -> Response:
        """The address that people type."""
        return RedirectResponse("/keys", 303)

    async def keys(self, request: Request) -> Response:
        """All sections; `done` in the address names what the last form did."""
        visitor = self._page.gate.visitor(request)
        said = message(request.query_params.get("done", ""))
        return await self._page.whole(visitor, said.text, said.section)

    async def static(self, name: str) -> Response:
        """A file of the page; there are three, and they are small."""
        if name not in self._files:
            raise refused(404, "Nothing here", "The address has no page; the keys are at /keys.")
        headers = {"Cache-Control": "no-cache"}
        return Response(self._files[name], media_type=_STATIC[name], headers=headers)
