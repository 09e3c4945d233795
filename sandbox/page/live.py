"""What is true on the instances right now: their key files, and what their agents say of them."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from sandbox.page.agent_status import AgentFiles, AgentKey, AgentStatus, ask
from sandbox.page.key_file import KeyFileText, read_key_file
from sandbox.page.key_text import read_key, shortened
from sandbox.platform import LiveInstance, Platform

_SHORTEST_PAUSE = 0.5  # seconds between two questions to one agent


@dataclass(frozen=True, slots=True)
class FileLine:
    """One line of an instance's key file, for people."""

    number: int
    access: str  # managed, pinned, restricted or foreign
    text: str
    is_key: bool
    note: str


@dataclass(frozen=True, slots=True)
class View:
    """An instance as it was when last looked at; `problem` says why there is no status."""

    instance: LiveInstance
    lines: tuple[FileLine, ...]
    keys: tuple[AgentKey, ...]
    status: AgentStatus | None = None
    problem: str = ""
    api_key_file: Path | None = None
    more: str = ""  # what of the file is not shown

    @property
    def ssh_command(self) -> str:
        """What to type to log in."""
        return f"ssh -p {self.instance.ssh_port} {self.instance.ssh_user}@{self.instance.ssh_host}"


_Mark = tuple[object, ...]


class Board:
    """Looks at every instance of the account, and asks its agent again only after a change."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._seen: dict[int, tuple[_Mark, float, View]] = {}
        self._turn = asyncio.Lock()

    async def views(self) -> list[View]:
        """All instances, as they are now or were half a second ago."""
        async with self._turn:
            running = self._platform.instances()
            ids = {instance.id for instance in running}
            self._seen = {at: seen for at, seen in self._seen.items() if at in ids}
            return [await self._view(instance) for instance in running]

    async def _view(self, instance: LiveInstance) -> View:
        mark = (instance, *map(_stamp, _watched(instance)))
        known = self._seen.get(instance.id)
        if known is not None:
            earlier, at, view = known
            if earlier == mark or time.monotonic() < at + _SHORTEST_PAUSE:
                return view
        view = await look(instance)
        self._seen[instance.id] = (mark, time.monotonic(), view)
        return view


async def look(instance: LiveInstance) -> View:
    """Read an instance's key file, and ask the agent there if one has run."""
    if instance.agent_config is None:
        return _view_of(instance, None, "no agent runs here")
    files = _files(instance.agent_config)
    if files is None:
        return _view_of(instance, None, "the agent's configuration cannot be read")
    if not files.state.exists():
        return _view_of(instance, None, "the agent has not run yet", files.api_key)
    answer = await ask(instance.agent_config, instance.keys_file)
    if isinstance(answer, str):
        return _view_of(instance, None, answer, files.api_key)
    return _view_of(instance, answer, "", files.api_key)


def _view_of(
    instance: LiveInstance, status: AgentStatus | None, problem: str, key_file: Path | None = None
) -> View:
    file = read_key_file(instance.keys_file, instance.ssh_user)
    keys = status.keys if status is not None else _own_reading(file)
    by_line = {key.line: key for key in keys}
    lines = tuple(_file_line(at, text, by_line.get(at)) for at, text in enumerate(file.lines, 1))
    return View(instance, lines, keys, status, problem, key_file, file.more)


def _file_line(number: int, text: str, key: AgentKey | None) -> FileLine:
    if key is None:
        note = "" if not text.strip() or text.lstrip().startswith("#") else "sshd ignores this line"
        return FileLine(number, "foreign", shortened(text), False, note)
    return FileLine(number, key.access, shortened(text), True, key.note)


def _own_reading(file: KeyFileText) -> tuple[AgentKey, ...]:
    """The plain keys in a file that no agent reports on."""
    found = []
    for at, text in enumerate(file.lines, 1):
        key = read_key(text)
        if key.fingerprint is not None:
            is_dsa = key.key_type == "ssh-dss"
            note, login = ("sshd accepts no DSA keys", "no") if is_dsa else ("", "yes")
            found.append(AgentKey(at, "foreign", key.fingerprint, key.comment, note, (), login))
    return tuple(found)


def _watched(instance: LiveInstance) -> list[Path]:
    if instance.agent_config is None:
        return [instance.keys_file]
    files = _files(instance.agent_config)
    state = [] if files is None else [files.state]
    return [instance.keys_file, instance.agent_config, *state]


def _files(configuration: Path) -> AgentFiles | None:
    try:
        return AgentFiles.of(configuration)
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError):
        return None


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)
