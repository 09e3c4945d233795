"""A machine that keysync looks after: its key file, configuration, API key and state, all real."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.cli.main import main
from sandbox.users import current_user

REPOSITORY = Path(__file__).parents[2]
API_KEY = "MARKEDAPIKEY" + "0123456789abcdef" * 3 + "wxyz"
TAG = "keysync:managed"
_OURS = ("VAST_", "KEYSYNC_", "CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "NO_COLOR", "SSL_CERT_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def key_line(name: str) -> str:
    """A well-formed Ed25519 line (RFC 8709 section 4) whose key and comment follow from `name`."""
    fields = (b"ssh-ed25519", hashlib.sha256(name.encode()).digest())
    blob = b"".join(struct.pack(">I", len(part)) + part for part in fields)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {name}"


def fingerprint(line: str) -> str:
    """What `ssh-keygen -lf` prints for the key of a plain line."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode()


def entry(key_id: int, text: str, user_id: int = 4711) -> dict[str, object]:
    """An entry of the console's list."""
    return {
        "id": key_id,
        "user_id": user_id,
        "key": text,
        "created_at": "2024-05-01T10:00:00Z",
        "deleted_at": None,
    }


def listing(*texts: str, user_id: int = 4711) -> bytes:
    """The body of a good answer."""
    return json.dumps([entry(at, text, user_id) for at, text in enumerate(texts, 1)]).encode()


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log lines on standard error; all of them must be JSON."""
        return [json.loads(line) for line in self.stderr.splitlines()]

    def event(self, name: str) -> dict[str, Any]:
        """The one event of this name."""
        [found] = [event for event in self.events if event["event"] == name]
        return found


@dataclass
class Machine:
    """Everything in one folder. `options` is what the configuration says beside the usual."""

    folder: Path
    url: str = "http://127.0.0.1:9"
    options: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key_file.touch(mode=0o600)
        self.set_api_key(API_KEY)
        self.configure()

    @property
    def key_file(self) -> Path:
        return self.folder / "authorized_keys"

    @property
    def api_key_file(self) -> Path:
        return self.folder / "api_key"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def set_api_key(self, value: str) -> None:
        """Replaces the API key on disk."""
        self.api_key_file.touch(mode=0o600)
        self.api_key_file.write_text(value + "\n")

    def configure(self, targets: str | None = None, **api: str) -> None:
        """Writes the configuration anew; `api` holds more options of that section."""
        own = f"  - {{user: {current_user()}, path: {json.dumps(str(self.key_file))}}}"
        more = "".join(f"  {name}: {value}\n" for name, value in api.items())
        self.config.touch(mode=0o600)
        self.config.write_text(
            f"api:\n  url: {self.url}\n  key_file: {json.dumps(str(self.api_key_file))}\n{more}"
            f"targets:\n{own if targets is None else targets}\n"
            f"state_dir: {json.dumps(str(self.state))}\n{self.options}"
        )

    @property
    def lines(self) -> list[str]:
        return self.key_file.read_text().splitlines()

    @property
    def fixed(self) -> tuple[int, int, int, bytes]:
        """What must stay the same of the key file: inode, time, mode and bytes."""
        status = self.key_file.stat()
        return status.st_ino, status.st_mtime_ns, status.st_mode, self.key_file.read_bytes()

    def everything(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Every path below the folder with inode, time, mode and bytes."""
        found = {}
        for path in [self.folder, *self.folder.rglob("*")]:
            status = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_mode, data)
        return found

    def later(self, seconds: float) -> None:
        """Lets so much time pass for the holds (G3): they are remembered as of earlier."""
        path = self.state / "state.json"
        state = json.loads(path.read_bytes())
        for hold in state["holds"].values():
            hold["last"]["seconds"] -= seconds
        path.write_text(json.dumps(state))

    def here(self, *arguments: str, **environment: str) -> Done:
        """Runs a command in this process, through the same entry as the real one."""
        desired = self._environment(environment)
        out, err = _text_stream(), _text_stream()
        with (
            _environment(desired),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = main(["--config", str(self.config), *arguments])
            except SystemExit as leaving:  # argparse's own way out
                code = int(leaving.code or 0)
        return Done(code, _text_of(out), _text_of(err))

    def process(self, *arguments: str, **environment: str) -> Done:
        """Runs a command as a process of its own."""
        done = run(self._command(arguments), self._environment(environment))
        return Done(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command as a process that runs beside the block, and is killed at its end."""
        with subprocess.Popen(
            self._command(arguments),
            cwd=REPOSITORY,
            env=self._environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "agent", "--config", str(self.config), *arguments]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        # HOME is the folder, so that nobody's own API key is found.
        return clean_environment() | {"HOME": str(self.folder)} | self.environment | dict(more)


def clean_environment() -> dict[str, str]:
    """The environment without anything that keysync or its libraries would heed."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and name.upper() not in _PROXIES
    }


def run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a program with this environment and nothing on its standard input."""
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def _text_stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _environment(desired: Mapping[str, str]) -> Iterator[None]:
    earlier = dict(os.environ)
    os.environ.clear()
    os.environ.update(desired)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(earlier)
