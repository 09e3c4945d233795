"""HTTP/1.1 on loopback: uvicorn in a thread of its own, started and stopped within milliseconds."""

import asyncio
import socket
import threading
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_IDLE_SECONDS = 75
_SILENT_SECONDS = 20.0
_END_SECONDS = 5.0
_START_SECONDS = 10.0


class Server:
    """Serves an ASGI application on 127.0.0.1, on a free port by default.

    A connection that says nothing for `silent_seconds` is closed.
    """

    def __init__(
        self, app: ASGIApp, port: int = 0, *, silent_seconds: float = _SILENT_SECONDS
    ) -> None:
        self._socket = socket.create_server(("127.0.0.1", port), backlog=256)
        # Inherited by connections: without it an answer in two writes waits 40 ms for an ACK.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self._uvicorn = _Uvicorn(_config(app, silent_seconds))
        self._thread = threading.Thread(target=self._serve, name="console")

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        """Serve; every request is answered when this returns."""
        self._thread.start()
        if not self._uvicorn.answers.wait(_START_SECONDS) or not self._uvicorn.started:
            self.__exit__()
            raise RuntimeError("the console's application did not start; its error is above")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port and every connection; the thread has ended when this returns."""
        self._uvicorn.end()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._uvicorn.serve(sockets=[self._socket]))
        finally:
            self._uvicorn.answers.set()


class _Uvicorn(uvicorn.Server):
    """uvicorn, except that it ends at once: it waits for an event, and cancels what still runs."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def end(self) -> None:
        """Stop serving, from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        await self.on_tick(0)  # writes the date that answers carry
        self.answers.set()
        while not self.should_exit:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._end.wait(), 1.0)
            await self.on_tick(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for open_socket in sockets or []:
            open_socket.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets the connections learn that they are lost
        for task in list(state.tasks):
            task.cancel()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=_END_SECONDS)
        await self.lifespan.shutdown()


class _Config(uvicorn.Config):
    silent_seconds = _SILENT_SECONDS


class _Protocol(H11Protocol):
    """Gives a request, in its `state`, the means to hang up without a word.

    Unlike its base, it also waits only so long for a connection's first word.
    """

    config: _Config

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # reason: as its base
        super().connection_made(transport)
        self.app_state = {**self.app_state, "hang_up": transport.close}
        # The base cancels this at the first data, as it does between two requests.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.config.silent_seconds, self.timeout_keep_alive_handler
        )


def _config(app: ASGIApp, silent_seconds: float) -> _Config:
    found = _Config(
        _ending_quietly(app),
        loop="asyncio",
        http=_Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # an address is that of the connection, whatever a header says
        timeout_keep_alive=_IDLE_SECONDS,
    )
    found.silent_seconds = silent_seconds
    return found


def _ending_quietly(app: ASGIApp) -> ASGIApp:
    """Only the end of the server cancels a request, and nobody is there to hear about it."""

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return quiet
