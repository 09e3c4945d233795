"""The account's API keys; their values are shown once and never again."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from sandbox import permissions
from sandbox.account import Account
from sandbox.api.answers import Documented, Json, documented, failure, linked
from sandbox.api.gate import Caller, GatedRoute, caller_of, named, needs
from sandbox.api.models import (
    ApiKeyEntries,
    ApiKeyEntry,
    Error,
    MadeApiKey,
    Message,
    NewApiKey,
    NewValue,
    WhoseKey,
)
from sandbox.api.paths import Number
from sandbox.api.ssh import TheWorld
from sandbox.api_keys import ApiKey, UnknownApiKey

router = APIRouter(tags=["Accounts"], route_class=GatedRoute, generate_unique_id_function=named)
TheCaller = Annotated[Caller, Depends(caller_of)]
_OF_ONE: Documented = {
    **documented(),
    403: {"model": Error | Message, "description": "not permitted, or another account's key"},
    404: {"model": Error | Message, "description": "the API key is not valid, or not there"},
}


@router.get(
    "/auth/apikeys/",
    response_model=ApiKeyEntries,
    responses=documented(),
    openapi_extra=needs("user_read", "api.apikeys.show"),
)
async def show_api_keys(world: TheWorld) -> Response:
    """The keys without their values."""
    return Json({"apikeys": [_entry(key, world.account) for key in world.api_keys.stored()]})


@router.post(
    "/auth/apikeys/",
    response_model=MadeApiKey,
    responses={**documented(400), **linked("made", "/id", "show_api_key", "delete_api_key")},
    openapi_extra=needs("user_write", "api.apikeys.create"),
)
async def create_api_key(sent: NewApiKey, world: TheWorld, caller: TheCaller) -> Response:
    """Make a key that may do at most what the asking one may."""
    wanted = caller.permissions if sent.permissions is None else sent.permissions
    if permissions.exceeds(wanted, caller.permissions):
        message = "An API key cannot give another one more than it has"
        return failure(400, "invalid_permissions", message)
    params = caller.key_params if sent.key_params is None else sent.key_params
    if permissions.constrained(caller.permissions) and not permissions.same(
        params, caller.key_params
    ):
        message = "A key with constraints cannot give another one other key_params"
        return failure(400, "invalid_permissions", message)
    key, value = world.api_keys.create(sent.name, wanted, params)
    return Json({"id": key.id, "key": value, "permissions": key.permissions})


@router.get(
    "/auth/apikeys/{id:number}/",
    response_model=ApiKeyEntry,
    responses=_OF_ONE,
    openapi_extra=needs("user_read", "api.apikey.show"),
)
async def show_api_key(id: Number, world: TheWorld) -> Response:
    """One key without its value."""
    for key in world.api_keys.stored():
        if key.id == id:
            return Json(_entry(key, world.account))
    return _not_found()


@router.delete(
    "/auth/apikeys/{id:number}/",
    response_model=str,
    responses=_OF_ONE,
    openapi_extra=needs("user_write", "api.apikey.delete"),
)
async def delete_api_key(id: Number, world: TheWorld) -> Response:
    """End a key at once; the answer is a JSON text, not an object."""
    if world.api_keys.owner(id) not in (None, world.account.user_id):
        return Json({"msg": "You do not have permission to delete this API Key."}, 403)
    try:
        world.api_keys.delete(id)
    except UnknownApiKey:
        return _not_found()
    return Json("Successfully Deleted API Key")


@router.put(
    "/commands/reset_apikey/",
    response_model=NewValue,
    responses=documented(400),
    openapi_extra=needs("user_write", "api.apikey.reset"),
)
async def reset_api_key(_sent: WhoseKey, world: TheWorld, caller: TheCaller) -> Response:
    """Give the asking key a new value; the old one is dead at once."""
    if caller.api_key is None:
        return failure(400, "invalid_request", "A session key cannot be reset")
    return Json({"success": True, "new_api_key": world.api_keys.reset(caller.api_key.id)})


def _not_found() -> Json:
    return Json({"msg": "API Key not found."}, 404)


def _entry(key: ApiKey, account: Account) -> dict[str, object]:
    granted = permissions.categories(key.permissions)
    return {
        "id": key.id,
        "user_id": key.user_id,
        "name": key.name,
        "rights": " ".join(granted),
        "permissions": key.permissions,
        "key_params": key.key_params,
        "last_four": key.last_four,
        "team_id": account.user_id if account.is_team else None,
        "team_name": account.login if account.is_team else None,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
    }
