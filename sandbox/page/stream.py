"""The live part of the page: server-sent events with those parts that have changed."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from sandbox.page.access import KeyRow, news
from sandbox.page.page import Page, Picture
from sandbox.page.security import Visitor

_PAUSE = 0.3
_TIME_TEXT = re.compile(r"(<time [^>]*>)[^<]*")


@dataclass(slots=True)
class Shown:
    """What one browser has been sent; ages in words do not count, it keeps those itself."""

    _parts: dict[str, str] = field(default_factory=dict)
    _rows: list[KeyRow] | None = None

    def changes(self, picture: Picture) -> dict[str, str]:
        """The parts that this browser does not have yet, and a sentence for its screen reader."""
        bare = {name: _TIME_TEXT.sub(r"\1", html) for name, html in picture.parts.items()}
        changed = {n: picture.parts[n] for n, html in bare.items() if self._parts.get(n) != html}
        said = news(self._rows, picture.rows) if self._rows is not None else []
        self._parts, self._rows = bare, picture.rows
        return {**changed, "live-news": " ".join(said)} if said else changed


class Stream:
    """One endless answer per open page; it ends with the session."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the route into the router."""
        router.get("/keys/live", response_model=None)(self.open)

    async def open(self, request: Request) -> Response:
        """Begin to send."""
        visitor = self._page.gate.visitor(request)
        return StreamingResponse(self._events(visitor), media_type="text/event-stream")

    async def _events(self, visitor: Visitor) -> AsyncIterator[str]:
        """A browser that went away cancels this at its next pause."""
        shown = Shown()
        while self._page.world.sessions.find(visitor.token, touch=False) is not None:
            changes = shown.changes(await self._page.picture(visitor))
            if changes:
                yield f"event: parts\ndata: {json.dumps(changes)}\n\n"
            await asyncio.sleep(_PAUSE)
        yield "event: signed-out\ndata: {}\n\n"
