"""Who may ask what: rate limit, API key and permission, all before a call is answered."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from sandbox import permissions
from sandbox.api.answers import auth_error, failure, too_frequent
from sandbox.api_keys import ApiKey
from sandbox.page.security import cookie_name
from sandbox.rate import Identity
from sandbox.world import World


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an API key, or a session key, which may do everything."""

    api_key: ApiKey | None
    permissions: permissions.Permissions
    key_params: dict[str, object]


def world_of(request: Request) -> World:
    """The world that the application serves."""
    world: World = request.app.state.world
    return world


def needs(category: str, endpoint: str, route: str = "") -> dict[str, Any]:
    """The permission that a call needs, as its route and the OpenAPI document know it."""
    named_route = {"route": route} if route else {}
    return {"x-permission": {"category": category, "endpoint": endpoint, **named_route}}


class GatedRoute(APIRoute):
    """A route that answers only who may ask; without `needs` anybody may."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def gated(request: Request) -> Response:
            refusal = await _refusal(request, self)
            return await answer(request) if refusal is None else refusal

        return gated


def named(route: APIRoute) -> str:
    """What the OpenAPI document calls a call: as its function."""
    return route.name


def caller_of(request: Request) -> Caller:
    """Who passed the gate."""
    caller: Caller = request.state.caller
    return caller


def caller(world: World, token: str | None) -> Caller | None:
    """Who a bearer token is, if anybody."""
    if not token:
        return None
    if (api_key := world.api_keys.find(token)) is not None:
        return Caller(api_key, api_key.permissions, api_key.key_params)
    if world.sessions.find(token) is not None:
        return Caller(None, permissions.everything(), {})
    return None


def bearer(request: Request) -> str | None:
    """The token of the Authorization header (RFC 6750 §2.1)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def _refusal(request: Request, route: GatedRoute) -> Response | None:
    world = world_of(request)
    limit = world.switches.min_interval
    if world.rate.refuses(_identity(request), request.method, route.path_format, limit):
        return too_frequent(limit)
    needed = (route.openapi_extra or {}).get("x-permission")
    if needed is None:
        return None
    found = caller(world, bearer(request))
    if found is None:
        return auth_error(world.switches.bad_key_status)
    request.state.caller = found
    call = permissions.Call(
        needed["category"], needed["endpoint"], needed.get("route", ""), request.method
    )
    if permissions.allows(found.permissions, call, await _params(request), found.key_params):
        return None
    message = f"This API key may not do this: it needs {needed['category']}"
    return failure(403, "insufficient_permissions", message)


def _identity(request: Request) -> Identity:
    return Identity(
        token=bearer(request),
        session=request.cookies.get(cookie_name(request)),
        api_key=request.query_params.get("api_key"),
        address=request.client.host if request.client else "",
    )


async def _params(request: Request) -> dict[str, object]:
    """What constraints look at: the body's members, and above them those of the path."""
    try:
        sent = await request.json()
    except (ValueError, RecursionError):
        sent = None
    return {**(sent if isinstance(sent, dict) else {}), **request.path_params}
