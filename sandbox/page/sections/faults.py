"""Pull the plug: one switch per fault of the API."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from sandbox.page.fault_words import FAULT_WORDS
from sandbox.page.page import Page
from sandbox.page.sections.forms import text_of


class FaultSection:
    """At most one fault is on; the page itself goes on in all of them."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the route into the router."""
        router.post("/keys/fault", response_model=None)(self.switch)

    async def switch(self, request: Request) -> Response:
        """Turn a fault on, or the present one off."""
        _visitor, form = await self._page.gate.posted(request)
        wanted = text_of(form, "fault")
        self._page.world.switches.fault = wanted if wanted in FAULT_WORDS else None
        done = "fault-on" if wanted in FAULT_WORDS else "fault-off"
        return RedirectResponse(f"/keys?done={done}#faults", 303)
