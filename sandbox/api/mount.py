"""Puts the API into an application: routes, the platform's errors, and the OpenAPI document."""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from sandbox.api import instances, keys, ssh, users
from sandbox.api.answers import Json, failure, invalid_request, no_ssh_key, not_found
from sandbox.api.front import PREFIX, Front
from sandbox.world import World

_ROUTERS = (ssh.router, instances.router, keys.router, users.router, users.public)
_BEARER = HTTPBearer(auto_error=False, description="An API key, or a session key")


def add_api(app: FastAPI, world: World) -> None:
    """Add everything below /api/v0."""
    app.add_middleware(Front, world=world)
    for router in (ssh.router, instances.router, keys.router, users.router):
        app.include_router(router, prefix=PREFIX.rstrip("/"), dependencies=[Depends(_BEARER)])
    app.include_router(users.public, prefix=PREFIX.rstrip("/"))
    app.include_router(_document_router(), include_in_schema=False)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _no_route)


def _document_router() -> APIRouter:
    router = APIRouter()

    @router.get(f"{PREFIX}openapi.json")
    async def document(request: Request) -> Response:
        return Json(openapi(request.app))

    return router


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the API, written from its routes and models."""
    found = get_openapi(
        title="Keys of the console",
        version="0",
        description="A local stand-in for the provider's console: its API for keys.",
        routes=app.routes,
    )
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # such a request gets 400 here
    for unused in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(unused, None)
    return found


async def _not_valid(request: Request, error: Exception) -> Response:
    """A body that the models refuse, as the platform says it."""
    assert isinstance(error, RequestValidationError)
    if not request.url.path.startswith(PREFIX):
        return await request_validation_exception_handler(request, error)
    found = error.errors()[0]
    where = [part for part in found["loc"] if part != "body"]
    if found["type"] == "json_invalid":
        return invalid_request()
    if "/ssh/" in request.scope["path"]:
        return no_ssh_key()
    if "permissions" in where:
        return failure(400, "invalid_permissions", found["msg"])
    return invalid_request(f"{'.'.join(map(str, where)) or 'body'}: {found['msg']}")


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not request.url.path.startswith(PREFIX) or error.status_code not in (400, 404, 405):
        return await http_exception_handler(request, error)
    if error.status_code == 400:
        return invalid_request()
    if error.status_code == 404:
        return not_found()
    refusal = failure(405, "method_not_allowed", "Not allowed")
    refusal.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return refusal


def _methods(request: Request) -> set[str]:
    """What the path of a request can be asked for (RFC 9110 §15.5.6)."""
    path = "/" + request.scope["path"].removeprefix(PREFIX)
    routes = [route for router in _ROUTERS for route in router.routes]
    found: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.path_regex.match(path):
            found |= route.methods or set()
    return found
