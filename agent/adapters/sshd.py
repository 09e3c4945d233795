"""Where sshd reads the keys of a user: its effective configuration, asked from sshd itself.

The source is AuthorizedKeysFile and TOKENS in sshd_config(5). sshd's configuration is only read.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass

from agent.adapters.credential import without_secrets

SEARCH = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
_TIMEOUT_SECONDS = 5.0
_FALLBACK = (".ssh/authorized_keys",)
_TOKEN = re.compile("%([%hUu])")


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The paths in sshd's order (none when it reads no file), and how they were found out."""

    paths: tuple[str, ...]
    source: str
    problem: str | None = None  # why the default had to be taken instead of sshd's own answer


def key_files(user: pwd.struct_passwd, search: str = SEARCH) -> KeyFiles:
    """The files that sshd reads for `user`; sshd's default where sshd cannot be asked.

    `search` are the directories in which sshd is looked for, as in PATH.
    """
    try:
        patterns = _ask_sshd(user.pw_name, search)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return KeyFiles(_expand(_FALLBACK, user), "default", _why(error))
    return KeyFiles(_expand(patterns, user), "sshd")


def _ask_sshd(name: str, search: str) -> tuple[str, ...]:
    binary = shutil.which("sshd", path=search)
    if binary is None:
        raise FileNotFoundError("no sshd is installed")
    where = f"user={name},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
    answer = subprocess.run(
        [binary, "-T", "-C", where],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=without_secrets(os.environ),
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )
    for line in answer.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        if keyword == "authorizedkeysfile":
            return tuple(path for path in value.split() if path.lower() != "none")
    raise ValueError("sshd -T names no authorizedkeysfile")


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        words = (error.stderr or "").strip().splitlines()
        return f"sshd -T failed: {words[-1] if words else error.returncode}"
    return str(error)


def _expand(patterns: tuple[str, ...], user: pwd.struct_passwd) -> tuple[str, ...]:
    """The tokens of AuthorizedKeysFile; what is relative then is relative to the home."""
    values = {"%": "%", "h": user.pw_dir, "u": user.pw_name, "U": str(user.pw_uid)}
    expanded = (_TOKEN.sub(lambda found: values[found[1]], pattern) for pattern in patterns)
    return tuple(dict.fromkeys(os.path.join(user.pw_dir, path) for path in expanded))
