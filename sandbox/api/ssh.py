"""The account's SSH keys."""

import hashlib
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from sandbox.account import Account, StoredKey, UnknownKey
from sandbox.api.answers import Json, documented, invalid_request, linked, no_ssh_key
from sandbox.api.gate import GatedRoute, named, needs, world_of
from sandbox.api.models import ChangedKey, Entries, SshKeyText, Success, WrappedEntries
from sandbox.api.paths import Number
from sandbox.faults import KeyField
from sandbox.permissions import SSH_KEYS
from sandbox.world import World

router = APIRouter(
    prefix="/ssh", tags=["Accounts"], route_class=GatedRoute, generate_unique_id_function=named
)
TheWorld = Annotated[World, Depends(world_of)]


@router.get(
    "/",
    response_model=Entries | WrappedEntries,
    responses={304: {"description": "as it was, with If-None-Match"}, **documented()},
    openapi_extra=needs("user_read", "api.ssh.show", SSH_KEYS),
)
async def show_ssh_keys(request: Request, world: TheWorld) -> Response:
    """The keys of the account."""
    switches = world.switches
    keys = [] if switches.fault == "empty_list" else _listed(world)
    entries = [entry(key, switches.key_field) for key in keys]
    answer = Json(entries if switches.shape == "list" else {"ssh_keys": entries})
    return _with_etag(request, answer) if switches.etag else answer


@router.post(
    "/",
    response_model=ChangedKey,
    responses={
        **documented(400),
        **linked("made", "/key/id", "update_ssh_key", "delete_ssh_key"),
    },
    openapi_extra=needs("user_write", "api.ssh.create", SSH_KEYS),
)
async def create_ssh_key(sent: SshKeyText, world: TheWorld) -> Response:
    """Add a key, for instances that are made later; its text is not checked."""
    account = acting_account(world)
    if account.is_team:
        return invalid_request("Team accounts cannot hold SSH keys")
    return _changed(lambda: account.add_key(sent.ssh_key))


@router.put(
    "/{id:number}/",
    response_model=ChangedKey,
    responses=documented(400),
    openapi_extra=needs("user_write", "api.ssh.update"),
)
async def update_ssh_key(id: Number, sent: SshKeyText, world: TheWorld) -> Response:
    """Replace a key's text."""
    return _changed(lambda: acting_account(world).edit_key(id, sent.ssh_key))


@router.delete(
    "/{id:number}/",
    response_model=Success,
    responses=documented(400),
    openapi_extra=needs("user_write", "api.ssh.delete"),
)
async def delete_ssh_key(id: Number, world: TheWorld) -> Response:
    """Delete a key; running instances keep it."""
    try:
        acting_account(world).delete_key(id)
    except UnknownKey:
        return no_ssh_key()
    return Json({"success": True})


def acting_account(world: World) -> Account:
    """The account, or with that fault a stranger's."""
    return world.stranger if world.switches.fault == "another_account" else world.account


def entry(key: StoredKey, key_field: KeyField) -> dict[str, object]:
    """A key as the API shows it."""
    return {
        "id": key.id,
        "user_id": key.user_id,
        key_field: key.text,
        "created_at": key.created_at,
        "deleted_at": key.deleted_at,
    }


def _listed(world: World) -> list[StoredKey]:
    return acting_account(world).stored(deleted=world.switches.include_deleted)


def _changed(change: Callable[[], StoredKey]) -> Response:
    try:
        key = change()
    except UnknownKey:
        return no_ssh_key()
    return Json({"success": True, "key": entry(key, "public_key")})


def _with_etag(request: Request, answer: Json) -> Response:
    """The answer with its ETag, or 304 when the client has it (RFC 9110 §13.1.2)."""
    etag = f'"{hashlib.sha256(bytes(answer.body)).hexdigest()}"'
    if etag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers={"ETag": etag})
    answer.headers["ETag"] = etag
    return answer
