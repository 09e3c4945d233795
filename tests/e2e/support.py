"""The verbs of the end-to-end tests: an instance that follows a local console."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.console import Console
from sandbox.instance import Instance

TAG = b"keysync:managed"


@dataclass(frozen=True)
class World:
    """An instance that follows a console, with the verbs of the tests."""

    instance: Instance
    console: Console
    config: Path

    def sync(self, *flags: str, exits: int = 0) -> dict[str, Any]:
        """One real `keysync sync --json`; its exit code must be `exits`."""
        done = self._keysync("sync", "--json", *flags)
        assert done.returncode == exits, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def status(self) -> dict[str, Any]:
        done = self._keysync("status", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def _keysync(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        ours = ("VAST_", "KEYSYNC_", "CREDENTIALS_DIRECTORY")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return subprocess.run(
            [sys.executable, "-m", "agent", "--config", str(self.config), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def lines(self) -> list[bytes]:
        return self.instance.authorized_keys.read_bytes().split(b"\n")[:-1]


def make_world(
    instance: Instance, console: Console, directory: Path, targets: str | None = None
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
