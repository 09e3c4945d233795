"""Starting other programs: without the API keys, without stdin, and not for ever."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from agent.errors import TargetFailed

SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
_SECONDS = 200.0  # `systemctl restart` waits for the first sync
_SECRET_VARIABLES = ("VAST_API_KEY", "CONTAINER_API_KEY")


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What a program that keysync starts is told: all but the API keys, and but what would choose
    the code of one that is written in Python, such as supervisorctl (G13).
    """
    return {
        name: value
        for name, value in environment.items()
        if name not in _SECRET_VARIABLES and not name.startswith("PYTHON")
    }


def find_program(name: str) -> str | None:
    """The path of a program by PATH, else in the system's own directories."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


def run(*command: str) -> None:
    """Runs a command that must succeed. Raises TargetFailed with its last line."""
    try:
        done = _run(*command)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    else:
        if done.returncode == 0:
            return
        lines = (done.stderr or done.stdout).strip().splitlines()
        why = lines[-1] if lines else f"exit code {done.returncode}"
    raise TargetFailed(
        "command_failed",
        f"The command `{' '.join(command)}` failed: {why.rstrip('.')}.",
        "Run it by hand to see more; then run this again, which is safe.",
    )


def output_of(*command: str) -> str:
    """What a command prints on stdout, whatever its exit code; empty when it cannot be run."""
    try:
        return _run(*command).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_program(command[0]) or command[0], *command[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=without_secrets(os.environ),
        timeout=_SECONDS,
        check=False,
    )
