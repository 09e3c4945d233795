"""Finds the agents that run on this machine, and ends them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from agent.adapters.files.os_errors import translate_os_errors
from agent.adapters.heartbeat import process_start
from agent.adapters.users import SERVICE_ACCOUNT, find_user, is_ordinary
from agent.errors import TargetFailed

_END_SECONDS = 10.0
_PAUSE_SECONDS = 0.05


def running_agents(program: str) -> list[int]:
    """Process ids of `program run` and `python -m agent run`.

    Only the user's own, for root also the service's: another user's process is neither ended nor
    waited for.
    """
    users = {os.geteuid()}
    service = find_user(SERVICE_ACCOUNT) if os.geteuid() == 0 else None
    if service and not is_ordinary(service):
        users.add(service.pw_uid)
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError, IndexError):  # it has just ended
                if _real_user(process) in users and _is_agent(process, program):
                    found.append(int(process.name))
    return found


def _real_user(process: Path) -> int:
    """Who started it; the owner of its folder differs for a set-user-ID program."""
    return int((process / "status").read_bytes().split(b"\nUid:")[1].split()[0])


def _is_agent(process: Path, program: str) -> bool:
    words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
    if "run" not in words[2:]:
        return False
    here = os.readlink(process / "cwd")
    if os.path.realpath(program) in (os.path.realpath(os.path.join(here, w)) for w in words[:2]):
        return True
    if not any(pair == ("-m", "agent") for pair in itertools.pairwise(words)):
        return False
    interpreter = words[0]
    if "/" not in interpreter:  # found through the PATH of its shell
        variables = os.fsdecode((process / "environ").read_bytes()).split("\0")
        search = next((v[5:] for v in variables if v.startswith("PATH=")), None)
        interpreter = shutil.which(interpreter, path=search) or interpreter
    folder = os.path.realpath(os.path.dirname(os.path.join(here, interpreter)))
    return folder in map(os.path.realpath, map(os.path.dirname, (program, sys.executable)))


def end_process(pid: int) -> None:
    """Sends SIGTERM and waits up to 10 s for the end. Raises TargetFailed if the process stays."""
    with contextlib.suppress(ProcessLookupError), translate_os_errors("end the process", str(pid)):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_SECONDS
    while process_start(pid) is not None:
        if time.monotonic() >= deadline:
            raise TargetFailed(
                "agent_stays",
                f"The running agent (process {pid}) did not end within {_END_SECONDS:g} s.",
                f"See what it is (ps {pid}), end it with kill -9 {pid}, and run this again.",
            )
        time.sleep(_PAUSE_SECONDS)
