"""API Keys: +New and Edit with name and permissions, the value once, Reset, Delete."""

import json
import shlex
from typing import Literal, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from sandbox import permissions
from sandbox.api_keys import ApiKey, UnknownApiKey
from sandbox.page.page import NewValue, Page
from sandbox.page.permission_words import PERMISSION_WORDS
from sandbox.page.private_key import is_private
from sandbox.page.sections.forms import text_of
from sandbox.page.security import Visitor
from sandbox.page.templates import render

Scope = Literal["chosen", "keysync", "kept"]

_LONGEST_NAME = 100
_PROGRAM = "/opt/keysync/bin/keysync"  # where docs/install.md puts it
_PRIVATE = (
    "This is a private key, so it was not stored. A private key that was pasted somewhere is "
    "better replaced: ssh-keygen -t ed25519"
)


class Entered(NamedTuple):
    """The fields of the form; `scope` says which permissions count.

    chosen   the checked categories
    keysync  only what keysync needs
    kept     what the key has now, and the form has no boxes for
    """

    name: str
    scope: Scope
    chosen: list[str]


class ApiKeySection:
    """The forms behind the list of API keys."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the routes into the router."""
        router.get("/keys/api/new", response_model=None)(self.new)
        router.post("/keys/api", response_model=None)(self.make)
        router.get("/keys/api/value/{place}", response_model=None)(self.show)
        router.get("/keys/api/{key_id:number}/edit", response_model=None)(self.edit)
        router.post("/keys/api/{key_id:number}", response_model=None)(self.change)
        router.get("/keys/api/{key_id:number}/reset", response_model=None)(self.ask_reset)
        router.post("/keys/api/{key_id:number}/reset", response_model=None)(self.reset)
        router.get("/keys/api/{key_id:number}/delete", response_model=None)(self.ask_delete)
        router.post("/keys/api/{key_id:number}/delete", response_model=None)(self.delete)

    async def new(self, request: Request) -> Response:
        """The form; all permissions are chosen."""
        visitor = self._page.gate.visitor(request)
        return _form(visitor, None, Entered("", "chosen", list(permissions.CATEGORIES)))

    async def make(self, request: Request) -> Response:
        """Make a key, and go to where its value is shown."""
        visitor, form = await self._page.gate.posted(request)
        entered = _entered(form, None)
        if wrong := _wrong(entered):
            return _form(visitor, None, entered, wrong)
        for_keysync = entered.scope == "keysync"
        key, value = self._page.world.api_keys.create(entered.name, _permissions(entered, None))
        return self._to_value(
            NewValue(visitor.session.id, key.name, value, for_keysync=for_keysync)
        )

    async def edit(self, request: Request, key_id: int) -> Response:
        """The form with the key's name and permissions; its value is not known any more."""
        visitor = self._page.gate.visitor(request)
        key = self._find(key_id)
        return _back("api-gone") if key is None else _form(visitor, key, _stored(key))

    async def change(self, request: Request, key_id: int) -> Response:
        """Give the key another name and other permissions at once."""
        visitor, form = await self._page.gate.posted(request)
        key = self._find(key_id)
        if key is None:
            return _back("api-gone")
        entered = _entered(form, key)
        if wrong := _wrong(entered):
            return _form(visitor, key, entered, wrong)
        self._page.world.api_keys.edit(key_id, entered.name, _permissions(entered, key))
        return _back("api-edited")

    async def show(self, request: Request, place: str) -> Response:
        """The value, this once."""
        visitor = self._page.gate.visitor(request)
        views = await self._page.board.views()  # first: this may fail, and the value is shown once
        kept = self._page.take_value(visitor, place)
        if kept is None:
            return _back("api-seen")
        files = [(v.instance.label, v.api_key_file) for v in views if v.api_key_file is not None]
        return render(
            "api_value.html",
            kept=kept,
            files=files,
            install_line=_install_line(str(request.base_url), kept.value),
        )

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
        return self._to_value(NewValue(visitor.session.id, key.name, value, was_reset=True))

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


def _entered(form: FormData, key: ApiKey | None) -> Entered:
    """The form's fields; without a name, a key for keysync alone is called so."""
    sent = form.getlist("permission")
    chosen = [category for category in permissions.CATEGORIES if category in sent]
    name, scope = text_of(form, "name"), text_of(form, "scope")
    if scope == "keysync":
        return Entered(name or ("" if key else "keysync"), "keysync", chosen)
    if scope == "kept" and key is not None:
        return Entered(name, "kept", chosen)
    return Entered(name, "chosen", chosen)


def _stored(key: ApiKey) -> Entered:
    """The form's fields as they are stored."""
    granted = permissions.categories(key.permissions)
    if permissions.same(key.permissions, permissions.only_for_keysync()):
        return Entered(key.name, "keysync", granted)
    has_boxes = permissions.same(key.permissions, permissions.of(*granted))
    return Entered(key.name, "chosen" if has_boxes else "kept", granted)


def _permissions(entered: Entered, key: ApiKey | None) -> permissions.Permissions:
    if entered.scope == "keysync":
        return permissions.only_for_keysync()
    if entered.scope == "kept" and key is not None:
        return key.permissions
    return permissions.of(*entered.chosen)


def _install_line(console: str, value: str) -> str:
    """What installs keysync with this key, for the console at this address."""
    variables = f"VAST_URL={shlex.quote(console.rstrip('/'))} VAST_API_KEY={value}"
    return f"{variables} {_PROGRAM} install"


def _wrong(entered: Entered) -> dict[str, str]:
    """What is wrong, by field."""
    wrong = {}
    length = len(entered.name)
    if not entered.name:
        wrong["name"] = "Give the key a name that says who uses it."
    if length > _LONGEST_NAME:
        wrong["name"] = f"The name has {length} characters; shorten it to {_LONGEST_NAME} or fewer."
    if is_private(entered.name):
        wrong["name"] = _PRIVATE
    if entered.scope == "chosen" and not entered.chosen:
        wrong["permission"] = "Check at least one permission; a key without any opens nothing."
    return wrong


def _form(
    visitor: Visitor, key: ApiKey | None, entered: Entered, wrong: dict[str, str] | None = None
) -> Response:
    return render(
        "api_form.html",
        422 if wrong else 200,
        csrf=visitor.csrf,
        id=key.id if key else None,
        known_as=key.name if key else "",
        name="" if is_private(entered.name) else entered.name,
        scope=entered.scope,
        chosen=entered.chosen,
        kept=_kept(key),
        wrong={"name": "", "permission": "", **(wrong or {})},
        words=PERMISSION_WORDS,
    )


def _kept(key: ApiKey | None) -> str:
    """Permissions that have no boxes, as JSON; empty where there is no such choice."""
    if key is None or _stored(key).scope != "kept":
        return ""
    return json.dumps(key.permissions)


def _back(done: str) -> Response:
    return RedirectResponse(f"/keys?done={done}#api-keys", 303)
