"""The API does what its OpenAPI document says, tried by schemathesis with every check it has."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from sandbox import permissions
from sandbox.api.mount import openapi
from sandbox.app import create_app
from sandbox.server import Server
from sandbox.world import World
from tests.clients.support import PROGRAMS

_HERE = Path(__file__).parent
_EXAMPLES = 20  # for each call and phase
_SPARE_KEYS = 40
_SECONDS = 400


class _Noted:
    """The console, with a note of what each call was answered."""

    def __init__(self, world: World) -> None:
        self._app = create_app(world)
        paths = openapi(self._app)["paths"].values()
        self.calls = {call["operationId"] for path in paths for call in path.values()}
        self.statuses: defaultdict[str, set[int]] = defaultdict(set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and "endpoint" in scope:
                self.statuses[scope["endpoint"].__name__].add(message["status"])
            await send(message)

        await self._app(scope, receive, note)


@pytest.mark.timeout(_SECONDS + 60)
def test_the_document_is_kept(tmp_path: Path) -> None:
    """Every answer to good and bad requests is one that the document promises: status, form,
    headers, authentication, methods. And every call came to answer a good request.
    """
    world = World.open(tmp_path)
    world.switches.bad_key_status = 401  # what the checks want, and the provider documents
    for number in range(_SPARE_KEYS):
        world.api_keys.create(f"spare {number}", permissions.everything())
        world.account.add_key(f"spare {number}")
    own, value = world.api_keys.create("schemathesis", permissions.everything())
    world.platform.add_instance("C.1", keys_file=tmp_path / "keys")
    console = _Noted(world)
    try:
        with Server(console) as server:
            done = _run(server.url, value, own.id, tmp_path)
    finally:
        world.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert own.id in {key.id for key in world.api_keys.stored()}
    unproven = {call for call in console.calls if 200 not in console.statuses[call]}
    assert unproven == set(), done.stdout


def _run(url: str, api_key: str, key_id: int, folder: Path) -> subprocess.CompletedProcess[str]:
    options = ["--checks", "all", "--max-examples", str(_EXAMPLES), "--seed", "1", "--no-color"]
    return subprocess.run(
        [
            *(PROGRAMS / "schemathesis", "--config-file", _HERE / "schemathesis.toml"),
            *("run", f"{url}/api/v0/openapi.json", *options),
        ],
        cwd=folder,
        env={
            "PATH": os.defpath,
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "CONSOLE_API_KEY": api_key,
            "CONSOLE_API_KEY_ID": str(key_id),
            "SCHEMATHESIS_HOOKS": str(_HERE / "schemathesis_hooks.py"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=_SECONDS,
        check=False,
    )
