"""The verbs of the end-to-end tests: an instance that follows a local console."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.console import Console
from sandbox.instance import Instance, KeyPair
from tests.support.machine import clean_environment
from tests.support.own_mounts import mount

TAG = b"keysync:managed"
_PATIENCE = 30.0
_SSHD_CONFIG = Path("/etc/ssh/sshd_config")


@dataclass(frozen=True)
class World:
    """An instance that follows a console, with the verbs of the tests."""

    instance: Instance
    console: Console
    config: Path

    def sync(self, *flags: str, exits: int = 0) -> dict[str, Any]:
        """One real `keysync sync --json`; its exit code must be `exits`."""
        return self.sync_and_log(*flags, exits=exits)[0]

    def sync_and_log(
        self, *flags: str, exits: int = 0
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The same, with the events that it logged."""
        done = self.keysync("sync", "--json", *flags, exits=exits)
        return json.loads(done.stdout), [json.loads(line) for line in done.stderr.splitlines()]

    def status(self, *, exits: int = 0) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.keysync("status", "--json", exits=exits).stdout)
        return report

    def verdict(self, *, exits: int) -> str:
        """What `keysync status` tells a person."""
        return self.keysync("status", exits=exits).stdout

    def keysync(self, *arguments: str, exits: int | None = 0) -> subprocess.CompletedProcess[str]:
        """One command; its exit code must be `exits` unless that is None."""
        done = subprocess.run(
            self.command(*arguments),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert exits in (None, done.returncode), done.stdout + done.stderr
        return done

    def command(self, *arguments: str) -> list[str]:
        """The command line of `keysync` with this configuration."""
        return [sys.executable, "-m", "agent", "--config", str(self.config), *arguments]

    def lets_in(self, key: KeyPair) -> bool:
        """Whether a real login with this key works."""
        return self.instance.can_log_in(key.private_path)

    def configure(self, more: str) -> None:
        """Adds sections to the configuration."""
        with self.config.open("a") as file:
            file.write(f"{more}\n")

    @property
    def state(self) -> Path:
        return self.config.parent / "state"

    @property
    def lines(self) -> list[bytes]:
        return self.instance.authorized_keys.read_bytes().split(b"\n")[:-1]


def make_world(
    instance: Instance,
    console: Console,
    directory: Path,
    targets: str | None = None,
) -> World:
    """A configuration with a fresh state folder, and an account and key file without keys."""
    secret = directory / "api_key"
    secret.touch(mode=0o600)
    secret.write_text(console.api_key)
    path = json.dumps(str(instance.authorized_keys))
    config = directory / "config.yaml"
    config.write_text(
        f"api: {{url: {console.url}, key_file: {secret}}}\n"
        f"targets: {targets or f'[{{user: {instance.user}, path: {path}}}]'}\n"
        f"state_dir: {directory / 'state'}\n"
    )
    return World(instance, console, config)


class MachinesSshd:
    """What the machine's own sshd is configured to read, as only this test sees it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "sshd_config"
        self._file.touch(mode=0o644)
        mount("--bind", str(self._file), str(_SSHD_CONFIG))

    def reads(self, pattern: Path | str, *more: str) -> None:
        self._file.write_text("\n".join([f"AuthorizedKeysFile {pattern}", *more, ""]))

    def breaks(self, pattern: Path | str) -> None:
        """`sshd -T` fails, while an sshd that runs already goes on."""
        self.reads(pattern, "NoSuchKeyword yes")


@dataclass(frozen=True)
class Agent:
    """A `keysync run` at work, and the log it writes."""

    world: World
    log: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it logged under this name so far."""
        whole = self.log.read_bytes().rpartition(b"\n")[0]
        return [e for e in map(json.loads, whole.splitlines()) if e["event"] == name]

    def await_that(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def await_event(self, name: str) -> None:
        self.await_that(lambda: bool(self.events(name)))

    def await_polls(self, count: int) -> None:
        """The cycles of all but the last of them are over then."""
        desired = len(self.world.console.requests) + count
        self.await_that(lambda: len(self.world.console.requests) >= desired)


@contextlib.contextmanager
def running(world: World, log: Path) -> Iterator[Agent]:
    """`keysync run` until the end."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            world.command("run"),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        yield Agent(world, log)
    finally:
        process.terminate()
        process.wait(_PATIENCE)
