"""Which key files sshd reads for a user, and which key types it accepts.

The source is AuthorizedKeysFile, Match, PubkeyAcceptedAlgorithms and TOKENS in sshd_config(5).
sshd itself is asked for its effective configuration, which is never changed.
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

from agent.adapters.command import SYSTEM_PATH
from agent.adapters.sshd_clients import ANYBODY, Client, possible_clients, unchecked_addresses
from agent.adapters.sshd_test_mode import SshdOutput, SshdUnavailable, query_sshd

_DEFAULT = (".ssh/authorized_keys", ".ssh/authorized_keys2")  # sshd's own
_TOKEN = re.compile("%([%hUu])")
_SETTING = re.compile(r"\s*authorizedkeysfile(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)
_KEY_TYPES = {  # by the signature algorithm (RFC 8332; PROTOCOL.u2f); others have the same name
    "rsa-sha2-256": "ssh-rsa",
    "rsa-sha2-512": "ssh-rsa",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256@openssh.com",
}


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The key files of one user, in sshd's order, and how certain they are.

    `paths` is empty when sshd reads no file; the first path is the one for a client on another
    machine. `problem` says why the paths are uncertain. `disagreement` says that sshd reads
    different files for different connections, or may do so for connections that were not checked.
    The paths in `common` are the same for all users.
    """

    paths: tuple[str, ...]
    problem: str | None = None
    disagreement: str | None = None
    common: frozenset[str] = frozenset()


class Sshd:
    """The machine's sshd during one cycle; answers are cached.

    `search` are the directories to search for sshd, in the form of PATH. If no Match block depends
    on the user, sshd is run once for all users (10-20 ms).
    """

    def __init__(self, search: str = SYSTEM_PATH) -> None:
        self._search = search
        self._answers: dict[tuple[str, Client], SshdOutput | SshdUnavailable] = {}
        self._depends_on_user = True  # until an answer shows otherwise
        self._unavailable: SshdUnavailable | None = None

    def key_files(self, user: pwd.struct_passwd) -> KeyFiles:
        """The files that sshd reads for `user`; sshd's default where sshd cannot be asked."""
        try:
            answers = self._answers_for(user.pw_name)
            found = {client: _patterns(answer) for client, answer in answers.items()}
        except SshdUnavailable as error:
            return KeyFiles(default_files(user), str(error))
        paths = {client: _expand(patterns, user) for client, (patterns, _) in found.items()}
        problem = next((problem for _, problem in found.values() if problem), None)
        every = tuple(dict.fromkeys(path for own in paths.values() for path in own))
        common = frozenset(path for answer in answers.values() for path in _common(answer))
        first = next(iter(answers.values()))
        doubts = _disagreement(paths), unchecked_addresses(first.address_lists)
        disagreement = " ".join(filter(None, doubts)) or None
        return KeyFiles(every, problem, disagreement, common)

    def accepts(self, key_type: str) -> bool | None:
        """Whether sshd accepts keys of this type; None when it cannot be asked.

        The answer is that for root and a client on another machine.
        """
        try:
            answer = next(iter(self._answers_for(pwd.getpwuid(0).pw_name).values()))
        except SshdUnavailable:
            return None
        value = answer.first("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes")
        if value is None:
            return None
        algorithms = map(str.strip, value.split(","))
        patterns = (_KEY_TYPES.get(algorithm, algorithm) for algorithm in algorithms)
        return any(fnmatch.fnmatchcase(key_type, pattern) for pattern in patterns)

    def _answers_for(self, user: str) -> dict[Client, SshdOutput]:
        """The answer for each kind of client, those on other machines first.

        There is only one answer unless a Match block depends on the connection.
        """
        answer = self._ask(user, ANYBODY)
        if not answer.depends_on_connection:
            return {ANYBODY: answer}
        clients = possible_clients(answer.settings, answer.address_lists)
        return {client: self._ask(user, client) for client in clients}

    def _ask(self, user: str, client: Client) -> SshdOutput:
        if self._unavailable:
            raise self._unavailable
        answer = self._answers.get((user if self._depends_on_user else "", client))
        if answer is None:
            answer = self._query(user, client)
            if isinstance(answer, SshdOutput):
                self._depends_on_user = answer.depends_on_user
            self._answers[user if self._depends_on_user else "", client] = answer
        if isinstance(answer, SshdUnavailable):
            raise answer
        return answer

    def _query(self, user: str, client: Client) -> SshdOutput | SshdUnavailable:
        binary = shutil.which("sshd", path=self._search)
        if binary is None:
            self._unavailable = SshdUnavailable("no sshd is installed")
            return self._unavailable
        try:
            return query_sshd(binary, client.specification(user))
        except SshdUnavailable as error:
            return error
        except (OSError, subprocess.SubprocessError) as error:  # would hang for every user
            self._unavailable = SshdUnavailable(str(error))
            return self._unavailable


def default_files(user: pwd.struct_passwd) -> tuple[str, ...]:
    """The files that sshd reads for `user` unless configured otherwise."""
    return _expand(_DEFAULT, user)


def _patterns(answer: SshdOutput) -> tuple[tuple[str, ...], str | None]:
    """The values of AuthorizedKeysFile, and why they are uncertain, if they are.

    sshd prints them without quotes, so a path with a blank looks like two paths. The quoted form is
    looked up in the configuration files that sshd read. If no setting there matches the printed
    text, or two different ones do, each blank counts as a separator. (No setting matches if it was
    given on sshd's command line or its file cannot be read.)
    """
    value = answer.first("authorizedkeysfile")
    if value is None:
        raise SshdUnavailable("sshd -T names no authorizedkeysfile")
    parts = tuple(value.split())
    problem = None
    if len(parts) > 1 and parts != _DEFAULT:
        written = {words for file in answer.files for words in _settings_in(file)}
        matching = [words for words in written if " ".join(words) == value]
        if len(matching) == 1:
            parts = matching[0]
        else:
            problem = (
                f"sshd prints AuthorizedKeysFile as {value!r}; its configuration files do not show "
                "whether the blanks separate paths or belong to one path"
            )
    return tuple(path for path in parts if path.lower() != "none"), problem


def _settings_in(file: str) -> Iterable[tuple[str, ...]]:
    """The values of each AuthorizedKeysFile in a configuration file, unquoted."""
    with contextlib.suppress(OSError):
        for line in os.fsdecode(Path(file).read_bytes()).split("\n"):
            found = _SETTING.match(line)
            if found:
                with contextlib.suppress(ValueError):  # an unclosed quote, which sshd refuses
                    yield tuple(shlex.split(found[1], comments=True))


def _expand(patterns: tuple[str, ...], user: pwd.struct_passwd) -> tuple[str, ...]:
    """The paths with TOKENS of sshd_config(5) replaced; relative ones are below the home."""
    values = {"%": "%", "h": user.pw_dir, "u": user.pw_name, "U": str(user.pw_uid)}
    expanded = (_TOKEN.sub(lambda found: values[found[1]], pattern) for pattern in patterns)
    return tuple(dict.fromkeys(os.path.join(user.pw_dir, path) for path in expanded))


def _common(answer: SshdOutput) -> list[str]:
    """The paths that are the same for all users; none if a Match block depends on the user."""
    if answer.depends_on_user:
        return []
    return [path for path in _patterns(answer)[0] if path.startswith("/") and "%" not in path]


def _disagreement(paths: Mapping[Client, tuple[str, ...]]) -> str | None:
    """A message when sshd reads different files for different connections."""
    kinds: dict[tuple[str, ...], Client] = {}
    for client, own in paths.items():
        kinds.setdefault(own, client)
    if len(kinds) < 2:
        return None
    each = "; ".join(f"{client}: {', '.join(own) or 'none'}" for own, client in kinds.items())
    return (
        f"sshd reads different key files for different connections ({each}). Keys are added only "
        "to the first file; make AuthorizedKeysFile the same in every Match block of sshd_config."
    )
