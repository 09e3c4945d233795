"""The provider's own client as a process, and an account, its instance and the agent around it."""

from __future__ import annotations

import ast
import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.console import Console
from sandbox.instance import Instance, KeyPair
from tests.e2e.support import World

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = REPOSITORY / ".venv-clients" / "bin"
KEYS = "/api/v0/ssh/"
_SECONDS = 100
_names = (f"key{number}" for number in itertools.count())


@dataclass(frozen=True, slots=True)
class Said:
    """What the client printed; its exit code is 0 whatever happened."""

    out: str
    err: str

    @property
    def made(self) -> dict[str, Any]:
        """The answer that it prints, as Python writes it, behind `… created`."""
        found: dict[str, Any] = ast.literal_eval(self.out.partition(" created ")[2].split("\n")[0])
        return found


@dataclass(frozen=True, slots=True)
class Client:
    """`vastai` with an API key and a home of its own, against a console on this machine."""

    home: Path
    url: str
    api_key: str

    def run(self, *arguments: str) -> Said:
        """One command that must be done; whatever it complains of fails the test."""
        said = self.tries(*arguments)
        assert said.err == "", said
        return said

    def tries(self, *arguments: str) -> Said:
        """One command, whatever comes of it."""
        done = subprocess.run(
            [PROGRAMS / "vastai", *arguments],
            env={
                "PATH": os.defpath,
                "HOME": str(self.home),
                "LC_ALL": "C.UTF-8",
                "VAST_URL": self.url,
                "VAST_API_KEY": self.api_key,
                "VASTAI_NO_UPDATE_CHECK": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return Said(done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Setting:
    """An account whose owner uses the client, and its one instance, which the agent looks after."""

    home: Path
    world: World
    instance_id: int
    client: Client

    @property
    def console(self) -> Console:
        return self.world.console

    @property
    def instance(self) -> Instance:
        return self.world.instance

    def as_(self, api_key: str) -> Client:
        """The client with another API key."""
        return Client(self.home, self.console.url, api_key)

    def new_key(self) -> KeyPair:
        """A key of the owner, whose public half is a file with a newline at its end, as all are."""
        return self.instance.keygen(next(_names))

    def in_(self, key: KeyPair) -> bool:
        """Whether a real `ssh` login with it works."""
        return self.instance.can_log_in(key.private_path)

    def listed_key(self) -> KeyPair:
        """A key that is on the account and on the instance already."""
        key = self.new_key()
        self.console.add_key(key.public_line)
        self.world.sync()
        assert self.in_(key)
        return key

    def agents_api_key(self, value: str) -> Path:
        """Replace the file that the agent reads its API key from."""
        path = self.world.config.parent / "api_key"
        path.write_text(value)
        return path

    def stored(self) -> dict[int, str]:
        """The account's keys, each text as it was sent."""
        return {key.id: key.text for key in self.console.account.stored()}


def public_file(key: KeyPair) -> str:
    """The path of the public half."""
    return f"{key.private_path}.pub"


def fingerprints(entries: list[dict[str, Any]]) -> list[str]:
    """Those of the entries of a report."""
    return [entry["fingerprint"] for entry in entries]
