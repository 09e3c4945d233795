"""The server: a connection that stays silent is closed, and no number in a path is too long."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from sandbox.app import create_app
from sandbox.console import Console
from sandbox.server import Server
from sandbox.world import World
from tests.sandbox.support import API_KEYS, KEYS, client_of

REQUEST = b"GET /api/v0/gpu_names/unique/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    """It is closed without a word when its time is over, and not before."""
    world = World.open(tmp_path)
    with Server(create_app(world), silent_seconds=0.3) as server:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent:
            assert silent.recv(1) == b""
        assert 0.25 < time.monotonic() - start < 5
    world.close()


def test_one_that_speaks_is_not(tmp_path: Path) -> None:
    """A connection that has asked in time stays open for the next request, however long after."""
    world = World.open(tmp_path)
    with Server(create_app(world), silent_seconds=0.3) as server:
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=10) as speaks:
            speaks.sendall(REQUEST)
            with socket.create_connection(address, timeout=10) as silent:
                assert silent.recv(1) == b""  # its time, which began later, is over
            speaks.sendall(REQUEST)
            found = b""
            while found.count(b"HTTP/1.1 200") < 2:
                found += (part := speaks.recv(65536))
                assert part, "closed"
    world.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{API_KEYS}{{}}/"),
        ("DELETE", f"{API_KEYS}{{}}/"),
        ("PUT", f"{KEYS}{{}}/"),
        ("DELETE", f"{KEYS}{{}}/"),
        ("GET", "/api/v0/instances/{}/ssh/"),
        ("POST", "/api/v0/instances/{}/ssh/"),
        ("DELETE", "/api/v0/instances/1/ssh/{}/"),
    ],
)
def test_a_number_of_many_digits(method: str, path: str) -> None:
    """A number that no database could hold leads to nothing: 404 in the platform's form."""
    with Console() as console, client_of(console) as client:
        for digits in (19, 30, 5000):
            answer = client.request(method, path.format("9" * digits), json={"ssh_key": "text"})
            assert (answer.status_code, answer.json()["success"]) == (404, False), digits
