"""SSH Keys: +New with paste, Edit, Delete with confirmation."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from sandbox.account import StoredKey, UnknownKey
from sandbox.page.judge import Judgement, judge
from sandbox.page.key_text import read_key, several
from sandbox.page.page import Page
from sandbox.page.sections.forms import text_of
from sandbox.page.security import Visitor
from sandbox.page.templates import render


class SshSection:
    """The forms behind the list of SSH keys."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        """Put the routes into the router."""
        router.get("/keys/ssh/new", response_model=None)(self.new)
        router.post("/keys/ssh", response_model=None)(self.add)
        router.get("/keys/ssh/{key_id:number}/edit", response_model=None)(self.edit)
        router.post("/keys/ssh/{key_id:number}", response_model=None)(self.change)
        router.get("/keys/ssh/{key_id:number}/delete", response_model=None)(self.ask)
        router.post("/keys/ssh/{key_id:number}/delete", response_model=None)(self.delete)

    async def new(self, request: Request) -> Response:
        """The form for a new key."""
        return _form(self._page.gate.visitor(request), None, "")

    async def add(self, request: Request) -> Response:
        """Store what was pasted, unless there is reason to ask first."""
        visitor, form = await self._page.gate.posted(request)
        text = text_of(form, "key")
        judgement = self._judge(text, text_of(form, "anyway"), None)
        if text_of(form, "split") and several(text) and not judgement.final:
            for line in several(text):
                self._page.world.account.add_key(line)
            return _back("ssh-split")
        if judgement.stops:
            return _form(visitor, None, text, judgement)
        self._page.world.account.add_key(text)
        return _back("ssh-added")

    async def edit(self, request: Request, key_id: int) -> Response:
        """The form with the key's text."""
        visitor = self._page.gate.visitor(request)
        key = self._find(key_id)
        return _back("ssh-gone") if key is None else _form(visitor, key, key.text)

    async def change(self, request: Request, key_id: int) -> Response:
        """Store the text in place of the old one."""
        visitor, form = await self._page.gate.posted(request)
        key = self._find(key_id)
        if key is None:
            return _back("ssh-gone")
        text = text_of(form, "key")
        judgement = self._judge(text, text_of(form, "anyway"), key)
        if judgement.stops:
            return _form(visitor, key, text, judgement)
        self._page.world.account.edit_key(key_id, text)
        return _back("ssh-edited")

    async def ask(self, request: Request, key_id: int) -> Response:
        """The question before a key is deleted."""
        visitor = self._page.gate.visitor(request)
        key = self._find(key_id)
        if key is None:
            return _back("ssh-gone")
        last = len(self._page.world.account.stored()) == 1
        read = read_key(key.text)
        return render("ssh_delete.html", csrf=visitor.csrf, id=key_id, key=read, last=last)

    async def delete(self, request: Request, key_id: int) -> Response:
        """Delete the key."""
        await self._page.gate.posted(request)
        try:
            self._page.world.account.delete_key(key_id)
        except UnknownKey:
            return _back("ssh-gone")
        return _back("ssh-deleted")

    def _judge(self, text: str, anyway: str, edited: StoredKey | None) -> Judgement:
        account = self._page.world.account
        others = [key for key in account.stored() if edited is None or key.id != edited.id]
        return judge(text, anyway, others, is_team=account.is_team)

    def _find(self, key_id: int) -> StoredKey | None:
        return next((key for key in self._page.world.account.stored() if key.id == key_id), None)


def _form(
    visitor: Visitor, key: StoredKey | None, text: str, judgement: Judgement | None = None
) -> Response:
    judgement = judgement or Judgement("")
    return render(
        "ssh_form.html",
        422 if judgement.code else 200,
        csrf=visitor.csrf,
        id=key.id if key else None,
        name=read_key(key.text).name if key else "",
        text=text if judgement.keeps_text else "",
        judgement=judgement,
        can_split=key is None and len(several(text)) > 1,
    )


def _back(done: str) -> Response:
    return RedirectResponse(f"/keys?done={done}#ssh-keys", 303)
