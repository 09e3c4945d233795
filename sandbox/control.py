"""The control API: turns the switches while the console serves, for scripts and tests."""

from dataclasses import asdict, fields
from typing import Any

from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from sandbox.api.answers import Json, auth_error, failure, invalid_request
from sandbox.api.gate import bearer, caller
from sandbox.faults import Switches, checked_fault
from sandbox.permissions import everything
from sandbox.world import World

PATH = "/sandbox/switches"
_SWITCHES = TypeAdapter(Switches)


def control_router(world: World) -> APIRouter:
    """`GET` and `PUT /sandbox/switches`, for a bearer who may do everything."""
    router = APIRouter()

    @router.get(PATH)
    async def show(request: Request) -> Response:
        return _refusal(world, request) or Json(asdict(world.switches))

    @router.put(PATH)
    async def change(request: Request) -> Response:
        refusal = _refusal(world, request)
        if refusal is not None:
            return refusal
        try:
            turn(world.switches, await request.json())
        except (ValueError, RecursionError) as error:
            return invalid_request(str(error))
        return Json(asdict(world.switches))

    return router


def turn(switches: Switches, wanted: object) -> None:
    """Turn the switches that are named; all or none, raising `ValueError` for a wrong one."""
    if not isinstance(wanted, dict):
        raise ValueError("an object of switches is wanted")
    known: dict[str, Any] = asdict(switches)
    if unknown := set(wanted) - set(known):
        raise ValueError(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    checked_fault(wanted.get("fault"))
    try:
        turned = _SWITCHES.validate_python({**known, **wanted}, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None
    for each in fields(turned):
        setattr(switches, each.name, getattr(turned, each.name))


def _refusal(world: World, request: Request) -> Response | None:
    found = caller(world, bearer(request))
    if found is None:
        return auth_error()
    if found.permissions != everything():
        return failure(403, "insufficient_permissions", "It needs a key that may do everything")
    return None
