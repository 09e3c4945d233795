"""Session Keys: which browsers are logged in; deleting one signs it out at once."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from sandbox.page.page import Page
from sandbox.page.templates import render


class SessionSection:
    """The question and the deed behind the list of sessions."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the routes into the router."""
        router.get("/keys/sessions/{session_id:number}/delete", response_model=None)(self.ask)
        router.post("/keys/sessions/{session_id:number}/delete", response_model=None)(self.end)

    async def ask(self, request: Request, session_id: int) -> Response:
        """The question before a browser is signed out."""
        visitor = self._page.gate.visitor(request)
        stored = self._page.world.sessions.stored(visitor.session.user_id)
        session = next((one for one in stored if one.id == session_id), None)
        if session is None:
            return _back("session-gone")
        own = session.id == visitor.session.id
        return render("session_delete.html", csrf=visitor.csrf, session=session, own=own)

    async def end(self, request: Request, session_id: int) -> Response:
        """Sign the browser out; its open pages notice by their live stream."""
        visitor, _form = await self._page.gate.posted(request)
        ended = self._page.world.sessions.end(visitor.session.user_id, session_id)
        if session_id == visitor.session.id:
            return RedirectResponse("/login?ended=1", 303)
        return _back("session-ended" if ended else "session-gone")


def _back(done: str) -> Response:
    return RedirectResponse(f"/keys?done={done}#session-keys", 303)
