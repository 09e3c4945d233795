"""What kind of machine this is, and the few things that are done to it besides key files.

Only install and uninstall use this: commands of the service manager, files below /etc.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent.adapters.command import find_program, succeeds
from agent.adapters.disk import naming
from agent.adapters.users import SERVICE_ACCOUNT, find_user, is_ordinary
from agent.errors import TargetFailed

BOOT_HOOKS = "/etc/vast_boot.d"
SUPERVISOR_PROGRAMS = "/etc/supervisor/conf.d"
_SYSTEMD = "/run/systemd/system"  # sd_booted(3)
_END_SECONDS = 10.0
_PAUSE_SECONDS = 0.05
_PACKAGE = Path(__file__).resolve().parent.parent
_PLACEHOLDER = b"/opt/keysync/bin/keysync"
_PLAIN_PATH = re.compile(r"/[\w./+@-]+", re.ASCII)


class Manager(Enum):
    """Who keeps the agent running."""

    SYSTEMD = "systemd"
    SUPERVISOR = "supervisor"
    NONE = "no service manager"


@dataclass(frozen=True, slots=True)
class Host:
    """What was found; `manager_runs` is false for a supervisor that is yet to be started."""

    manager: Manager
    manager_runs: bool
    is_root: bool
    boot_hooks: bool
    program: str

    def describe(self) -> str:
        """For the first line of what install and uninstall print."""
        words = [self.manager.value, "root" if self.is_root else "ordinary user"]
        if self.boot_hooks:
            words.insert(1, "the platform's base image")
        return ", ".join(words)


def find_host() -> Host:
    """Looks at the machine; nothing is changed. Raises TargetFailed without a `keysync` program."""
    manager, runs = _find_manager()
    return Host(manager, runs, os.geteuid() == 0, os.path.isdir(BOOT_HOOKS), _find_program())


def _find_manager() -> tuple[Manager, bool]:
    if os.geteuid() != 0:
        return Manager.NONE, False
    if os.path.isdir(_SYSTEMD):
        return Manager.SYSTEMD, True
    if os.path.isdir(SUPERVISOR_PROGRAMS) and find_program("supervisorctl"):
        runs = succeeds("supervisorctl", "pid")
        if runs or os.path.isdir(BOOT_HOOKS):  # the base image starts it at the end of its boot
            return Manager.SUPERVISOR, runs
    return Manager.NONE, False


def _find_program() -> str:
    """The `keysync` of this installation, by an absolute path for units and scripts."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "keysync")
    program = beside if os.path.exists(beside) else shutil.which("keysync")
    if program is None:
        raise TargetFailed(
            "program_missing",
            f"There is no program `keysync` beside {sys.executable} for a service to start.",
            "Install keysync with pip into a virtual environment, and run it from there.",
        )
    if not _PLAIN_PATH.fullmatch(program) or program.startswith(("/tmp/", "/var/tmp/")):  # noqa: S108  # reason: nothing is written there
        raise TargetFailed(
            "program_misplaced",
            f"A service cannot start {program}: its path is temporary or has unusual characters.",
            "Install keysync into a folder such as /opt/keysync.",
        )
    return program


def shipped(name: str, program: str) -> bytes:
    """A unit or script that comes with keysync (`systemd/...`, `container/...`), for `program`."""
    path = _PACKAGE / "share" / name
    if not path.exists():  # an editable installation
        path = _PACKAGE.parent / name
    return path.read_bytes().replace(_PLACEHOLDER, os.fsencode(program))


# ---- files ----


def write_file(path: str, data: bytes, mode: int) -> None:
    """Replaces a file whole, with exactly this mode, and makes its folder when missing (0755)."""
    folder, name = os.path.split(path)
    with naming("write", path):
        make_folder(folder, 0o755)
        fd, temp = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, mode)
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.replace(temp, path)
        except BaseException:
            os.unlink(temp)
            raise


def make_folder(path: str, mode: int) -> None:
    """Makes a folder and those above it; only new ones get the mode, whatever the umask."""
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path), mode)
    with naming("make the folder", path):
        os.mkdir(path, 0o700)
        os.chmod(path, mode)


# ---- processes ----


def running_agents(program: str) -> list[int]:
    """The processes `program run` and `python -m agent run`: one's own, for root the service's too.

    What others run by these words is theirs, and is neither ended nor waited for.
    """
    users = {os.geteuid()}
    service = find_user(SERVICE_ACCOUNT) if os.geteuid() == 0 else None
    if service and not is_ordinary(service):
        users.add(service.pw_uid)
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError, IndexError):  # it ends meanwhile
                if _real_user(process) in users and _is_agent(process, program):
                    found.append(int(process.name))
    return found


def _real_user(process: Path) -> int:
    """Who started it: the owner of its folder is another one for a program with set-user-ID."""
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
    if "/" not in interpreter:  # found by the PATH of its shell
        variables = os.fsdecode((process / "environ").read_bytes()).split("\0")
        search = next((v[5:] for v in variables if v.startswith("PATH=")), None)
        interpreter = shutil.which(interpreter, path=search) or interpreter
    folder = os.path.realpath(os.path.dirname(os.path.join(here, interpreter)))
    return folder in map(os.path.realpath, map(os.path.dirname, (program, sys.executable)))


def end_process(pid: int) -> None:
    """Asks a process to finish (SIGTERM) and waits for it. Raises TargetFailed when it stays."""
    with contextlib.suppress(ProcessLookupError), naming("end the process", str(pid)):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_SECONDS
    while _is_alive(pid):
        if time.monotonic() >= deadline:
            raise TargetFailed(
                "agent_stays",
                f"The running agent (process {pid}) did not end within {_END_SECONDS:g} s.",
                f"Look at it (ps {pid}), end it with kill -9 {pid}, and run this again.",
            )
        time.sleep(_PAUSE_SECONDS)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != b"Z"


def closed_folder(path: str) -> str | None:
    """The first folder on the way to `path` that other users may not pass, None if there is none.

    `path` is absolute and leads through no links.
    """
    folder = "/"
    for name in path.split("/")[1:]:
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return folder
        folder = os.path.join(folder, name)
    return None
