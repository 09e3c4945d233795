"""Runs other programs: without API keys in their environment, without stdin, with a timeout."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from agent.errors import TargetFailed
from agent.providers import provider

SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
_SECONDS = 200.0  # `systemctl restart` waits for the first sync


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a child process: without the API keys (G10) and without PYTHON* variables.

    The latter could make a program written in Python, such as supervisorctl, run other code (G13).
    """
    return {
        name: value
        for name, value in environment.items()
        if name not in provider.SECRET_VARIABLES and not name.startswith("PYTHON")
    }


def find_program(name: str) -> str | None:
    """The path of a program, searched in PATH and then in the system directories, or None."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


def run(*command: str) -> None:
    """Runs a command that must succeed within 200 seconds.

    Raises TargetFailed, with the last line of the command's output, if it does not.
    """
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
        "Run it by hand to see the cause, then repeat this command; repeating it is safe.",
    )


def output_of(*command: str) -> str:
    """What a command prints on stdout, whatever its exit code.

    Empty if it cannot be started or does not end in time.
    """
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
