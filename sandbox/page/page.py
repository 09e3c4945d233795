"""What all routes of the page share, and the parts that the page and its live stream show alike."""

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi.responses import HTMLResponse

from sandbox.page.access import KeyRow, key_rows, lingering
from sandbox.page.fault_words import FAULT_WORDS, FaultWords
from sandbox.page.key_text import read_key
from sandbox.page.live import Board, View
from sandbox.page.permission_words import scope_words
from sandbox.page.security import Gate, Throttle, Visitor
from sandbox.page.templates import fragment, render

if TYPE_CHECKING:
    from sandbox.world import World

_MOST_VALUES = 20


@dataclass(frozen=True, slots=True)
class NewValue:
    """An API key's value on its only way to the person who made it."""

    session_id: int
    name: str
    value: str
    was_reset: bool = False
    for_keysync: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that the sections show at one moment."""

    views: list[View]
    rows: list[KeyRow]
    parts: dict[str, str]


@dataclass(slots=True)
class Page:
    """The page of one console."""

    world: "World"
    board: Board
    gate: Gate
    throttle: Throttle = field(default_factory=Throttle)
    _values: dict[str, NewValue] = field(default_factory=dict)

    async def picture(self, visitor: Visitor) -> Picture:
        """The live parts by the id of the element that each fills."""
        views = await self.board.views()
        stored = self.world.account.stored()
        rows = key_rows(stored, views)
        parts = {
            "live-banner": fragment("_banner.html", fault=self.fault(), csrf=visitor.csrf),
            "live-ssh": fragment(
                "_ssh.html",
                rows=rows,
                lingering=lingering(stored, views),
                is_team=self.world.account.is_team,
            ),
            "live-api": fragment(
                "_api.html", api_keys=self.world.api_keys.stored(), scope_words=scope_words
            ),
            "live-sessions": fragment(
                "_sessions.html",
                sessions=self.world.sessions.stored(visitor.session.user_id),
                own=visitor.session.id,
            ),
            "live-faults": fragment("_faults.html", faults=FAULT_WORDS, now=self.fault()),
        }
        for view in views:
            parts[f"live-instance-{view.instance.id}"] = fragment("_instance.html", view=view)
        return Picture(views, rows, parts)

    async def whole(self, visitor: Visitor, done: str, section: str) -> HTMLResponse:
        """The page itself; `done` is a message about the form that was just sent."""
        picture = await self.picture(visitor)
        return render(
            "keys.html",
            visitor=visitor,
            login=self.world.account.login,
            parts=picture.parts,
            views=picture.views,
            attached_to=self.attached,
            rows=picture.rows,
            done=done,
            section=section,
        )

    def fault(self) -> FaultWords | None:
        """What is wrong with the API now."""
        return FAULT_WORDS.get(self.world.switches.fault or "")

    def attached(self, view: View) -> list[tuple[int, str]]:
        """Number and name of each key that the platform writes to an instance's file."""
        keys = self.world.platform.attached(view.instance.id)
        return [(key.key_id, read_key(key.text).name) for key in keys]

    def keep_value(self, value: NewValue) -> str:
        """Where the value can be fetched, once, by the session that asked for it."""
        while len(self._values) >= _MOST_VALUES:
            self._values.pop(next(iter(self._values)))
        place = secrets.token_urlsafe(16)
        self._values[place] = value
        return place

    def take_value(self, visitor: Visitor, place: str) -> NewValue | None:
        """The value, which is forgotten here; None when it was shown already."""
        kept = self._values.get(place)
        if kept is None or kept.session_id != visitor.session.id:
            return None
        return self._values.pop(place)
