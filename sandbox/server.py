"""HTTP/1.1 on loopback: turns what arrives on sockets into `Request` and `Answer` into bytes."""

import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from sandbox.api import Answer, Request

_MAX_BODY = 1 << 20
_IDLE_SECONDS = 60.0


class Server(ThreadingHTTPServer):
    """Keep-alive HTTP on 127.0.0.1; `answer` gets every request, None hangs up without a word."""

    daemon_threads = False  # server_close() then waits for them
    request_queue_size = 128

    def __init__(self, port: int, answer: Callable[[Request], Answer | None]) -> None:
        self.answer = answer
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own would look the host's name up, which may ask a name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # reason: IPv4 alone, so the address is a pair

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        with self._open_lock:
            for connection in self._open:
                _hang_up(connection)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away is its own affair; anything else is a defect worth a traceback.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    # Without these two every kept-alive request waits 44 ms for a delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    server: Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing; `Console.requests` has it."""

    def _serve(self) -> None:
        body = self._body()
        if body is None:
            self.close_connection = True
            self._send(Answer(400, b""))
            return
        answer = self.server.answer(self._request(body))
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer)

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            return None
        return self.rfile.read(int(length)) if int(length) <= _MAX_BODY else None

    def _request(self, body: bytes) -> Request:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return Request(
            method=self.command,
            path=urlsplit(self.path).path,
            address=str(self.client_address[0]),
            token=token.strip() if scheme.lower() == "bearer" else None,
            if_none_match=self.headers.get("If-None-Match"),
            body=body,
        )

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        if answer.status != 304:
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
        if answer.etag is not None:
            self.send_header("ETag", answer.etag)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the client closed it first
        connection.shutdown(socket.SHUT_RDWR)
