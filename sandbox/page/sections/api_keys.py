"""API Keys: +New with name and permissions, the value once, Reset, Delete."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from sandbox import permissions
from sandbox.api_keys import ApiKey, UnknownApiKey
from sandbox.page.page import NewValue, Page
from sandbox.page.permission_words import PERMISSION_WORDS
from sandbox.page.private_key import is_private
from sandbox.page.sections.forms import text_of
from sandbox.page.security import Visitor
from sandbox.page.templates import render

_LONGEST_NAME = 100
_PRIVATE = (
    "This is a private key, so it was not stored. A private key that was pasted somewhere is "
    "better replaced: ssh-keygen -t ed25519"
)


class ApiKeySection:
    """The forms behind the list of API keys."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the routes into the router."""
        router.get("/keys/api/new", response_model=None)(self.new)
        router.post("/keys/api", response_model=None)(self.make)
        router.get("/keys/api/value/{place}", response_model=None)(self.show)
        router.get("/keys/api/{key_id:number}/reset", response_model=None)(self.ask_reset)
        router.post("/keys/api/{key_id:number}/reset", response_model=None)(self.reset)
        router.get("/keys/api/{key_id:number}/delete", response_model=None)(self.ask_delete)
        router.post("/keys/api/{key_id:number}/delete", response_model=None)(self.delete)

    async def new(self, request: Request) -> Response:
        """The form; all permissions are chosen."""
        visitor = self._page.gate.visitor(request)
        return _form(visitor, "", list(permissions.CATEGORIES))

    async def make(self, request: Request) -> Response:
        """Make a key, and go to where its value is shown."""
        visitor, form = await self._page.gate.posted(request)
        name = text_of(form, "name")
        sent = form.getlist("permission")
        chosen = [category for category in permissions.CATEGORIES if category in sent]
        if wrong := _wrong(name, chosen):
            return _form(visitor, "" if is_private(name) else name, chosen, wrong)
        key, value = self._page.world.api_keys.create(name, permissions.of(*chosen))
        return self._to_value(NewValue(visitor.session.id, key.name, value, False))

    async def show(self, request: Request, place: str) -> Response:
        """The value, this once."""
        visitor = self._page.gate.visitor(request)
        views = await self._page.board.views()  # first: this may fail, and the value is shown once
        kept = self._page.take_value(visitor, place)
        if kept is None:
            return _back("api-seen")
        files = [(v.instance.label, v.api_key_file) for v in views if v.api_key_file is not None]
        return render("api_value.html", kept=kept, files=files)

    async def ask_reset(self, request: Request, key_id: int) -> Response:
        """The question before a value dies."""
        return self._ask(request, key_id, "api_reset.html")

    async def reset(self, request: Request, key_id: int) -> Response:
        """Give the key a new value, and go to where it is shown."""
        visitor, _ = await self._page.gate.posted(request)
        key = self._find(key_id)
        if key is None:
            return _back("api-gone")
        value = self._page.world.api_keys.reset(key_id)
        return self._to_value(NewValue(visitor.session.id, key.name, value, True))

    async def ask_delete(self, request: Request, key_id: int) -> Response:
        """The question before a key is deleted."""
        return self._ask(request, key_id, "api_delete.html")

    async def delete(self, request: Request, key_id: int) -> Response:
        """Delete the key."""
        await self._page.gate.posted(request)
        try:
            self._page.world.api_keys.delete(key_id)
        except UnknownApiKey:
            return _back("api-gone")
        return _back("api-deleted")

    def _ask(self, request: Request, key_id: int, template: str) -> Response:
        visitor = self._page.gate.visitor(request)
        key = self._find(key_id)
        return _back("api-gone") if key is None else render(template, csrf=visitor.csrf, key=key)

    def _to_value(self, value: NewValue) -> Response:
        return RedirectResponse(f"/keys/api/value/{self._page.keep_value(value)}", 303)

    def _find(self, key_id: int) -> ApiKey | None:
        return next((key for key in self._page.world.api_keys.stored() if key.id == key_id), None)


def _wrong(name: str, chosen: list[str]) -> dict[str, str]:
    """What is wrong, by field."""
    wrong = {}
    if not name:
        wrong["name"] = "Give the key a name that says who uses it."
    if len(name) > _LONGEST_NAME:
        wrong["name"] = f"The name has {len(name)} characters; at most {_LONGEST_NAME} are kept."
    if is_private(name):
        wrong["name"] = _PRIVATE
    if not chosen:
        wrong["permission"] = "Choose at least one permission; a key without any opens nothing."
    return wrong


def _form(
    visitor: Visitor, name: str, chosen: list[str], wrong: dict[str, str] | None = None
) -> Response:
    return render(
        "api_form.html",
        422 if wrong else 200,
        csrf=visitor.csrf,
        name=name,
        chosen=chosen,
        wrong={"name": "", "permission": "", **(wrong or {})},
        words=PERMISSION_WORDS,
    )


def _back(done: str) -> Response:
    return RedirectResponse(f"/keys?done={done}#api-keys", 303)
