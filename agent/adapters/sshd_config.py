"""What sshd reads and accepts: its effective configuration, asked from sshd itself.

The source is AuthorizedKeysFile, Match, PubkeyAcceptedAlgorithms and TOKENS in sshd_config(5), and
the extended test mode (-T) in sshd(8). sshd's configuration is only read.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.adapters.command import SYSTEM_PATH, without_secrets
from agent.adapters.match_address import address_lists
from agent.adapters.sshd_clients import ANYBODY, Client, not_asked_about, possible_clients

_TIMEOUT_SECONDS = 5.0
_FALLBACK = (".ssh/authorized_keys", ".ssh/authorized_keys2")  # sshd's own default
_TOKEN = re.compile("%([%hUu])")
_PRIVSEP = "/run/sshd"  # where Debian's and Ubuntu's sshd wants a directory


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The paths in sshd's order; none when it reads no file.

    `problem` says why the paths are not certain; `disagreement` that sshd reads different files
    for different connections, the first path being that of a client on another machine, or that it
    may, for connections it could not be asked about.
    The paths in `common` are the same for all users.
    """

    paths: tuple[str, ...]
    problem: str | None = None
    disagreement: str | None = None
    common: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What sshd printed: its settings, what its Match blocks depend on, and the files it read."""

    settings: Mapping[str, tuple[str, ...]]  # by the keyword in lower case
    criteria: frozenset[str]
    files: tuple[str, ...]
    address_lists: tuple[str, ...] = ()  # of Match Address

    def first(self, *keywords: str) -> str | None:
        """The value of the first keyword that is there; a setting has had several names."""
        return next((self.settings[word][0] for word in keywords if word in self.settings), None)


class _NotAnswered(Exception):
    """sshd cannot be asked, or refused its configuration; the message says why."""


class Sshd:
    """The machine's sshd, for one cycle: each question is asked once, and only when needed.

    `search` are the directories in which sshd is looked for, as in PATH. A machine whose
    configuration has no Match block for users is asked once (10-20 ms) for all users.
    """

    def __init__(self, search: str = SYSTEM_PATH) -> None:
        self._search = search
        self._answers: dict[tuple[str, Client], _Answer | _NotAnswered] = {}
        self._users_matter = True  # until an answer shows that no Match block names any
        self._unreachable: _NotAnswered | None = None

    def key_files(self, user: pwd.struct_passwd) -> KeyFiles:
        """The files that sshd reads for `user`; sshd's default where sshd cannot be asked."""
        try:
            answers = self._answers_for(user.pw_name)
            found = {client: _patterns(answer) for client, answer in answers.items()}
        except _NotAnswered as error:
            return KeyFiles(default_files(user), str(error))
        paths = {client: _expand(patterns, user) for client, (patterns, _) in found.items()}
        problem = next((problem for _, problem in found.values() if problem), None)
        every = tuple(dict.fromkeys(path for own in paths.values() for path in own))
        common = frozenset(path for answer in answers.values() for path in _common(answer))
        doubts = _disagreement(paths), not_asked_about(next(iter(answers.values())).address_lists)
        disagreement = " ".join(filter(None, doubts)) or None
        return KeyFiles(every, problem, disagreement, common)

    def accepts(self, key_type: str) -> bool | None:
        """Whether sshd accepts keys of this type from clients; None when it cannot be asked.

        Asked as for root and a client on another machine.
        """
        try:
            answer = next(iter(self._answers_for(pwd.getpwuid(0).pw_name).values()))
        except _NotAnswered:
            return None
        value = answer.first("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes")
        if value is None:
            return None
        patterns = map(_key_type, value.split(","))
        return any(fnmatch.fnmatchcase(key_type, pattern) for pattern in patterns)

    def _answers_for(self, user: str) -> dict[Client, _Answer]:
        """The answer for each kind of client, those on other machines first.

        There is one answer only unless a Match block tells connections apart.
        """
        answer = self._ask(user, ANYBODY)
        if not answer.criteria & _OF_CONNECTIONS:
            return {ANYBODY: answer}
        clients = possible_clients(answer.settings, answer.address_lists)
        return {client: self._ask(user, client) for client in clients}

    def _ask(self, user: str, client: Client) -> _Answer:
        if self._unreachable:
            raise self._unreachable
        answer = self._answers.get((user if self._users_matter else "", client))
        if answer is None:
            answer = self._ask_anew(user, client)
            if isinstance(answer, _Answer):
                self._users_matter = bool(answer.criteria & _OF_USERS)
            self._answers[user if self._users_matter else "", client] = answer
        if isinstance(answer, _NotAnswered):
            raise answer
        return answer

    def _ask_anew(self, user: str, client: Client) -> _Answer | _NotAnswered:
        """Three -d add what sshd reads and compares; they change nothing else."""
        binary = shutil.which("sshd", path=self._search)
        if binary is None:
            self._unreachable = _NotAnswered("no sshd is installed")
            return self._unreachable
        try:
            return _parse(_run(binary, "-T", "-ddd", "-C", client.words(user)))
        except subprocess.CalledProcessError as error:
            return _NotAnswered(_why(error))
        except (OSError, subprocess.SubprocessError) as error:  # the next one would hang too
            self._unreachable = _NotAnswered(str(error))
            return self._unreachable


# ---- asking ----


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    """Raises OSError and subprocess.SubprocessError."""
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


def _made_privsep_directory(words: bytes) -> bool:
    """Whether sshd missed its empty directory, and has it now.

    It is on a tmpfs, and ssh.service makes it when it starts; with ssh.socket (Ubuntu 24.04) that
    is at the first login. keysync's own service has one of its own (TemporaryFileSystem=).
    """
    if os.geteuid() != 0 or b"Missing privilege separation directory" not in words:
        return False
    if not words.rstrip().endswith(_PRIVSEP.encode()):  # another path is the package's to make
        return False
    try:
        os.mkdir(_PRIVSEP, 0o755)
        os.chmod(_PRIVSEP, 0o755)  # noqa: S103  # reason: as ssh.service makes it; umask may differ
    except OSError:
        return os.path.isdir(_PRIVSEP)  # somebody else was quicker
    return True


_DEBUG = re.compile(r"debug[123]: ")
_FILE = re.compile(r"^debug2: load_server_config: filename (.+?)\r?$", re.MULTILINE)
_MATCH = re.compile(r"^debug3: checking syntax for 'Match (.*?)'?\r?$", re.MULTILINE)
_OF_CONNECTIONS = frozenset(("address", "host", "localaddress", "localport", "rdomain"))
_OF_USERS = frozenset(("user", "group", "invalid-user"))
_CRITERIA = _OF_CONNECTIONS | _OF_USERS


def _parse(done: subprocess.CompletedProcess[bytes]) -> _Answer:
    settings: dict[str, tuple[str, ...]] = {}
    for line in os.fsdecode(done.stdout).splitlines():
        keyword, _, value = line.partition(" ")
        keyword = keyword.lower()  # OpenSSH 10.6 prints them as they are documented
        settings[keyword] = (*settings.get(keyword, ()), value)
    notes = os.fsdecode(done.stderr)
    files = tuple(dict.fromkeys(_FILE.findall(notes)))
    if not files:  # these notes cannot be understood, so anything may matter
        return _Answer(settings, _CRITERIA, ())
    matches = _MATCH.findall(notes)
    words = (word for text in matches for word in re.findall("[a-z-]+", text.lower()))
    lists = dict.fromkeys(found for text in matches for found in address_lists(text))
    return _Answer(settings, frozenset(words) & _CRITERIA, files, tuple(lists))


def _why(error: subprocess.CalledProcessError) -> str:
    notes = error.stderr.decode(errors="replace").strip().splitlines()
    words = [note for note in notes if not _DEBUG.match(note)]
    return f"sshd -T failed: {words[-1].strip() if words else error.returncode}"


_ALGORITHMS = {
    "rsa-sha2-256": "ssh-rsa",
    "rsa-sha2-512": "ssh-rsa",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256@openssh.com",
}


def _key_type(algorithm: str) -> str:
    """The type of the keys that sign by this algorithm (RFC 8332; PROTOCOL.u2f)."""
    return _ALGORITHMS.get(algorithm.strip(), algorithm.strip())


# ---- from the answer to paths ----


def _patterns(answer: _Answer) -> tuple[tuple[str, ...], str | None]:
    """The values of AuthorizedKeysFile, and what is not certain about them.

    sshd prints them unquoted, so that a path with a blank looks like two. They are looked up in
    the files that sshd says it read: what is written there, unquoted, must give the printed text.
    Where it is written in two ways that look alike, or nowhere (an option of the command line, a
    file that cannot be read), blanks are taken to separate, and the doubt is told.
    """
    value = answer.first("authorizedkeysfile")
    if value is None:
        raise _NotAnswered("sshd -T names no authorizedkeysfile")
    parts = tuple(value.split())
    problem = None
    if len(parts) > 1 and parts != _FALLBACK:
        written = {words for file in answer.files for words in _written(file)}
        alike = [words for words in written if " ".join(words) == value]
        if len(alike) == 1:
            parts = alike[0]
        else:
            problem = (
                f"sshd prints AuthorizedKeysFile as {value!r}, and whether its blanks separate "
                "paths or belong to one could not be read from its configuration"
            )
    return tuple(path for path in parts if path.lower() != "none"), problem


_KEYWORD = re.compile(r"\s*authorizedkeysfile(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)


def _written(file: str) -> Iterable[tuple[str, ...]]:
    """The words of each AuthorizedKeysFile in a configuration file, without their quotes."""
    with contextlib.suppress(OSError):
        for line in os.fsdecode(Path(file).read_bytes()).split("\n"):
            found = _KEYWORD.match(line)
            if found:
                with contextlib.suppress(ValueError):  # an open quote, which sshd refuses
                    yield tuple(shlex.split(found[1], comments=True))


def default_files(user: pwd.struct_passwd) -> tuple[str, ...]:
    """What sshd reads for `user` where it is not configured; sshd is not asked."""
    return _expand(_FALLBACK, user)


def _expand(patterns: tuple[str, ...], user: pwd.struct_passwd) -> tuple[str, ...]:
    """The tokens of AuthorizedKeysFile; what is relative then is relative to the home."""
    values = {"%": "%", "h": user.pw_dir, "u": user.pw_name, "U": str(user.pw_uid)}
    expanded = (_TOKEN.sub(lambda found: values[found[1]], pattern) for pattern in patterns)
    return tuple(dict.fromkeys(os.path.join(user.pw_dir, path) for path in expanded))


def _common(answer: _Answer) -> list[str]:
    """The paths that are the same for all users; none where a Match block tells users apart."""
    if answer.criteria & _OF_USERS:
        return []
    return [path for path in _patterns(answer)[0] if path.startswith("/") and "%" not in path]


def _disagreement(paths: Mapping[Client, tuple[str, ...]]) -> str | None:
    """That sshd reads different files for different connections, and what it means."""
    kinds: dict[tuple[str, ...], Client] = {}
    for client, own in paths.items():
        kinds.setdefault(own, client)
    if len(kinds) < 2:
        return None
    each = "; ".join(f"{client}: {', '.join(own) or 'none'}" for own, client in kinds.items())
    return (
        f"sshd reads other key files for other connections ({each}). Keys are added to the first "
        "file only; make AuthorizedKeysFile the same in every Match block of sshd_config."
    )
