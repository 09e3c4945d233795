"""The provider's own client and the agent at the rate limit that they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from starlette.types import Message, Receive, Scope, Send

from sandbox.app import create_app
from sandbox.server import Server
from sandbox.world import World
from tests.clients.support import KEYS, Client, Setting

_LONG = 3600.0


class _Waited:
    """The console, where the wait is over after the first refusal."""

    def __init__(self, world: World) -> None:
        self._switches = world.switches
        self._app = create_app(world)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def heard(message: Message) -> None:
            if message.get("status") == 429:
                self._switches.min_interval = 0.0
            await send(message)

        await self._app(scope, receive, heard)


@contextmanager
def _serving(world: World) -> Iterator[str]:
    try:
        with Server(_Waited(world)) as server:
            yield server.url
    finally:
        world.close()


def test_the_client_tries_again(home: Path, tmp_path: Path) -> None:
    """Refused with 429 right after another request of the same identity, it asks again without
    being told to; the key is there once.
    """
    world = World.open(tmp_path)
    world.switches.min_interval = _LONG
    api_key = world.credentials.api_key
    with _serving(world) as url:
        first = httpx.post(
            f"{url}{KEYS}",
            json={"ssh_key": "first"},
            headers={"Authorization": f"Bearer {api_key}"},
            trust_env=False,
        )
        assert first.status_code == 200
        Client(home, url, api_key).run("create", "ssh-key", "second")
    assert [request for request in world.requests if request[1] == KEYS] == [("POST", KEYS)] * 3
    assert [key.text for key in world.account.stored()] == ["first", "second"]


def test_a_limit_that_lasts(setting: Setting) -> None:
    """The client gives up after three tries. The agent, the same identity with the same key on the
    same address, is refused too: 75, and whoever was in stays in; then it goes on.
    """
    key = setting.listed_key()
    setting.console.switches.min_interval = _LONG
    setting.client.run("show", "ssh-keys")
    before = len(setting.console.requests)
    assert "Failed with error 429" in setting.client.tries("show", "ssh-keys").err
    assert setting.console.requests[before:] == [("GET", KEYS)] * 3
    error = setting.world.sync(exits=75)["error"]
    assert error["kind"] == "rate_limited"
    assert setting.in_(key)
    setting.console.switches.min_interval = 0.0
    setting.world.sync()
    assert setting.in_(key)
