"""Runs `sshd -T` and parses its output.

The source is the extended test mode (-T) in sshd(8). The debug messages on stderr say which files
sshd read and which Match blocks it found; they are undocumented, so their absence is handled.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from agent.adapters.command import without_secrets
from agent.adapters.match_address import address_lists

_TIMEOUT_SECONDS = 5.0
_PRIVSEP = "/run/sshd"  # the privilege separation directory of Debian and Ubuntu
_DEBUG = re.compile(r"debug[123]: ")
_FILE = re.compile(r"^debug2: load_server_config: filename (.+?)\r?$", re.MULTILINE)
_MATCH = re.compile(r"^debug3: checking syntax for 'Match (.*?)'?\r?$", re.MULTILINE)
_CONNECTION_CRITERIA = frozenset(("address", "host", "localaddress", "localport", "rdomain"))
_USER_CRITERIA = frozenset(("user", "group", "invalid-user"))


class SshdUnavailable(Exception):
    """sshd is missing, hangs or refuses its configuration; the message says which."""


@dataclass(frozen=True, slots=True)
class SshdOutput:
    """What `sshd -T` printed for one user and connection.

    `settings` has every value of each keyword, by the keyword in lower case. `files` are the
    configuration files that sshd read; none when the debug messages have an unknown form.
    `address_lists` are the values of Match Address.
    """

    settings: Mapping[str, tuple[str, ...]]
    files: tuple[str, ...]
    depends_on_connection: bool
    depends_on_user: bool
    address_lists: tuple[str, ...] = ()

    def first(self, *keywords: str) -> str | None:
        """The value of the first of these keywords that is set; some settings were renamed."""
        return next((self.settings[word][0] for word in keywords if word in self.settings), None)


def query_sshd(binary: str, connection: str) -> SshdOutput:
    """The effective configuration for `connection`, which has the form of -C in sshd(8).

    Raises SshdUnavailable when sshd exits with an error; OSError or subprocess.TimeoutExpired when
    it cannot be started or does not end within 5 seconds.
    """
    try:
        return _parse(_run(binary, "-T", "-ddd", "-C", connection))  # -ddd only adds messages
    except subprocess.CalledProcessError as error:
        raise SshdUnavailable(_failure(error)) from error


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return _run_once(command)
    except subprocess.CalledProcessError as error:
        if not _made_privsep_directory(error.stderr):
            raise
        return _run_once(command)


def _run_once(command: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=without_secrets(os.environ),
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )


def _made_privsep_directory(stderr: bytes) -> bool:
    """Whether sshd failed because its empty directory was missing, and the directory now exists.

    It is on a tmpfs, and ssh.service makes it when it starts; with ssh.socket (Ubuntu 24.04) that
    is at the first login. In keysync's own service, /run/sshd is private (TemporaryFileSystem=).
    """
    if os.geteuid() != 0 or b"Missing privilege separation directory" not in stderr:
        return False
    if not stderr.rstrip().endswith(_PRIVSEP.encode()):  # only its package knows another path
        return False
    try:
        os.mkdir(_PRIVSEP, 0o755)
        os.chmod(_PRIVSEP, 0o755)  # noqa: S103  # reason: as ssh.service makes it; umask may differ
    except OSError:
        return os.path.isdir(_PRIVSEP)  # another process made it first
    return True


def _parse(done: subprocess.CompletedProcess[bytes]) -> SshdOutput:
    settings: dict[str, tuple[str, ...]] = {}
    for line in os.fsdecode(done.stdout).splitlines():
        keyword, _, value = line.partition(" ")
        keyword = keyword.lower()  # OpenSSH 10.6 prints CamelCase
        settings[keyword] = (*settings.get(keyword, ()), value)
    messages = os.fsdecode(done.stderr)
    files = tuple(dict.fromkeys(_FILE.findall(messages)))
    if not files:  # an unknown form of messages: assume that the answer depends on everything
        return SshdOutput(settings, (), depends_on_connection=True, depends_on_user=True)
    matches = _MATCH.findall(messages)
    criteria = {word for text in matches for word in re.findall("[a-z-]+", text.lower())}
    return SshdOutput(
        settings,
        files,
        depends_on_connection=not criteria.isdisjoint(_CONNECTION_CRITERIA),
        depends_on_user=not criteria.isdisjoint(_USER_CRITERIA),
        address_lists=tuple(dict.fromkeys(one for text in matches for one in address_lists(text))),
    )


def _failure(error: subprocess.CalledProcessError) -> str:
    lines = error.stderr.decode(errors="replace").strip().splitlines()
    messages = [line for line in lines if not _DEBUG.match(line)]
    return f"sshd -T failed: {messages[-1].strip() if messages else error.returncode}"
