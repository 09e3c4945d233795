"""What every request to the API passes first: the note of it, the cap on its body, the fault."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.api.answers import failure, invalid_request, too_frequent
from sandbox.world import World

PREFIX = "/api/v0/"
_MAX_BODY = 1 << 20
_HTML = "<!doctype html><title>Console</title><p>We will be back in a few minutes.</p>\n"


class Front:
    """ASGI middleware; what is not below `PREFIX` only gets the cap."""

    def __init__(self, app: ASGIApp, world: World) -> None:
        self._app = app
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _has_no_bound(scope):
            refusal = invalid_request("The body has no length, or is too large")
            refusal.headers["Connection"] = "close"
            await refusal(scope, receive, send)
        elif scope["path"].startswith(PREFIX):
            await self._api(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._world.requests.append((scope["method"], scope["path"]))
        switches = self._world.switches
        if switches.fault == "outage":
            await _hang_up(scope, receive)
        elif (canned := _canned(switches.fault)) is not None:
            await canned(scope, receive, send)
        else:
            if switches.fault == "slow":
                await asyncio.sleep(switches.slow_seconds)
            halved = _Halved(send) if switches.fault == "truncated" else send
            await self._app(_with_final_slash(scope), receive, halved)


class _Halved:
    """Sends the first half of an answer, with a Content-Length that matches it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        half = self._body[: len(self._body) // 2]
        kept = [(name, value) for name, value in self._start["headers"] if name not in _DESCRIBING]
        length = (b"content-length", str(len(half)).encode())
        await self._send({**self._start, "headers": [*kept, length]})
        await self._send({"type": "http.response.body", "body": half})


_DESCRIBING = (b"content-length", b"etag")


def _has_no_bound(scope: Scope) -> bool:
    headers: MutableMapping[bytes, bytes] = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MAX_BODY


def _with_final_slash(scope: Scope) -> Scope:
    """The platform answers with and without it; the routes are written with it."""
    path: str = scope["path"]
    return scope if path.endswith(("/", ".json")) else {**scope, "path": f"{path}/"}


async def _hang_up(scope: Scope, receive: Receive) -> None:
    hang_up: Any = scope["state"]["hang_up"]
    hang_up()
    while (await receive())["type"] != "http.disconnect":
        pass


def _canned(fault: str | None) -> Response | None:
    match fault:
        case "error_500":
            return failure(500, "server_error", "Internal server error")
        case "rate_limited":
            return too_frequent(1.0)
        case "html":
            return HTMLResponse(_HTML)
        case _:
            return None
