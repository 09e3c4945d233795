"""The demo's stage: the console, the instance, the agent's configuration and the keys."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from sandbox.console import Console
from sandbox.instance import Instance, KeyPair
from sandbox.story import Story

_KEYS = "/api/v0/ssh/"
_AGENT_SECONDS = 60
_MEANINGS = {0: "all is well", 3: "held by a guard", 75: "API not reachable"}
_REPOSITORY = Path(__file__).resolve().parent.parent
FORCED = "the backup command, whatever was asked for"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who changes the account's keys through the console's HTTP API."""

    client: httpx.Client

    def add(self, text: str) -> int:
        """Add a key and return its id (`POST /ssh/`)."""
        answer = self.client.post(_KEYS, json={"ssh_key": text}).raise_for_status()
        return int(answer.json()["key"]["id"])

    def edit(self, old: str, new: str) -> None:
        """Change the entry that holds a text (`PUT /ssh/{id}/`)."""
        key_id = self._id_of(old)
        body = {"id": key_id, "ssh_key": new}
        self.client.put(f"{_KEYS}{key_id}/", json=body).raise_for_status()

    def delete(self, text: str) -> None:
        """Delete the entry that holds a text (`DELETE /ssh/{id}/`)."""
        self.client.delete(f"{_KEYS}{self._id_of(text)}/").raise_for_status()

    def _id_of(self, text: str) -> int:
        entries = self.client.get(_KEYS).raise_for_status().json()
        return int(next(entry["id"] for entry in entries if entry["key"] == text))


@contextmanager
def person_at(console: Console) -> Iterator[Person]:
    """Let a person with the account's API key sit down at the console."""
    headers = {"Authorization": f"Bearer {console.api_key}"}
    with httpx.Client(base_url=console.url, headers=headers, trust_env=False) as client:
        yield Person(client)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a step of the demo acts on, and the claims it can make about logins."""

    story: Story
    console: Console
    instance: Instance
    person: Person
    directory: Path
    keys: dict[str, KeyPair]

    def new_key(self, name: str) -> KeyPair:
        """Make a key on the person's machine."""
        self.keys[name] = self.instance.keygen(name)
        return self.keys[name]

    def key_file(self) -> bytes:
        """The bytes that sshd reads at each login."""
        return self.instance.authorized_keys.read_bytes()

    def show_key_file(self) -> None:
        """Show the file's lines, the keys in the middle of them shortened."""
        text = self.key_file().decode(errors="replace")
        shortened = re.sub(r"(AAAA\S{4})\S+(\S{8})", r"\1...\2", text)
        self.story.command(f"cat {self.instance.authorized_keys}", shortened)

    def write_configuration(self) -> None:
        """Write the agent's configuration and its API key, the latter closed to others."""
        secret = self.directory / "api_key"
        secret.touch(mode=0o600)
        secret.write_text(f"{self.console.api_key}\n")
        self.configuration.write_text(
            f"api:\n"
            f"  url: {self.console.url}\n"
            f"  key_file: {json.dumps(str(secret))}\n"
            f"targets:\n"
            f"  - user: {json.dumps(self.instance.user)}\n"
            f"    path: {json.dumps(str(self.instance.authorized_keys))}\n"
            f"state_dir: {json.dumps(str(self.directory / 'state'))}\n"
        )

    @property
    def configuration(self) -> Path:
        """The file that `--config` names."""
        return self.directory / "config.yaml"

    def agent(self, command: str, *, exits: int = 0) -> str:
        """Run a command of the real agent, show its result and claim its exit code.

        The result is on standard output; the log, on standard error, is shown only with a
        wrong exit code.
        """
        arguments = [sys.executable, "-m", "agent", "--config", str(self.configuration), command]
        done = _run(arguments)
        right = done.returncode == exits
        shown = done.stdout if right else done.stdout + done.stderr
        self.story.command(shlex.join(["python", *arguments[1:]]), shown)
        claim = f"exit code {exits}: {_MEANINGS[exits]}"
        self.story.claim(claim, right, f"it was {done.returncode}")
        return done.stdout

    def gets_in(self, name: str, why: str) -> None:
        """Claim that a real `ssh` login with this key works."""
        works = self.instance.can_log_in(self.keys[name].private_path)
        self.story.claim(f"ssh with {name}: gets in ({why})", works, "it was refused")

    def is_refused(self, name: str, why: str) -> None:
        """Claim that sshd refuses this key."""
        works = self.instance.can_log_in(self.keys[name].private_path)
        self.story.claim(f"ssh with {name}: refused ({why})", not works, "it got in")

    def is_forced(self, name: str) -> None:
        """Claim that this key logs in and still gets nothing but its forced command (sshd(8))."""
        output = self.instance.run(self.keys[name].private_path, "id")
        text = f"ssh with {name}: gets in, and gets its forced command only"
        self.story.claim(text, output == f"{FORCED}\n", f"it got {output!r}")


def _run(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments,
        cwd=_REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_AGENT_SECONDS,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """The environment without what would override the written configuration."""
    ours = ("KEYSYNC_", "VAST_", "CREDENTIALS_DIRECTORY", "COLUMNS")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and name.upper() not in proxies
    }
