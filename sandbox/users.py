"""Local users for the sandbox: who may log in, and a temporary one that leaves nothing behind."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE = 10.0
_PAUSE = 0.05


class UserError(RuntimeError):
    """A local user could not be made or removed."""


def current_user() -> str:
    """The login name of the effective user."""
    return pwd.getpwuid(os.geteuid()).pw_name


def is_locked(user: str) -> bool:
    """Whether sshd refuses the user because the password field starts with `!` (sshd(8), LOGIN).

    Only root can read the field; for everybody else the answer is no, as it is for their sshd.
    """
    with suppress(OSError):
        for line in Path("/etc/shadow").read_text("utf-8", "surrogateescape").split("\n"):
            name, _, rest = line.partition(":")
            if name == user:
                return rest.startswith("!")
    return False


@contextmanager
def temporary_user() -> Iterator[str]:
    """Make a user with a home, without a password but not locked, and remove both at the end."""
    if os.geteuid() != 0:
        raise UserError("only root can make a temporary user")
    name = f"keysync-{secrets.token_hex(4)}"
    _retry(lambda: _made(name), f"useradd {name}")
    try:
        Path(pwd.getpwnam(name).pw_dir).chmod(0o700)
        yield name
    finally:
        _remove(name)


def _made(name: str) -> str:
    return _failure("useradd", "-m", "-U", "-p", "*", "-s", "/bin/sh", name)


def _remove(name: str) -> None:
    home = Path(pwd.getpwnam(name).pw_dir)
    _retry(lambda: _removed(name), f"userdel {name}")
    if home.exists():
        shutil.rmtree(home)


def _removed(name: str) -> str:
    try:
        _end_processes(pwd.getpwnam(name).pw_uid)
    except KeyError:
        return ""  # gone, and its number may be somebody else's by now
    return _failure("userdel", "-r", name)


def _end_processes(uid: int) -> None:
    """Kill what still runs as a user that this module made, so that userdel(8) may remove it."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if f"\nUid:\t{uid}\t" in status.read_text():
                os.kill(int(status.parent.name), signal.SIGKILL)


def _failure(*command: str) -> str:
    # The PATH of a cron job or a plain `su` does not lead to useradd(8).
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()}"


def _retry(failure: Callable[[], str], what: str) -> None:
    """Repeat until there is no failure: another useradd may hold the lock, a process linger."""
    deadline = time.monotonic() + _PATIENCE
    while message := failure():
        if time.monotonic() >= deadline:
            raise UserError(f"{what}: {message}")
        time.sleep(_PAUSE)
