"""`python -m sandbox`: what it tells, what it starts, and that nothing of it is left."""

import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.faults import strangers_key
from sandbox.instance import Instance, KeyPair
from sandbox.users import current_user
from tests.sandbox.support import KEYS
from tests.support.bad_server import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
CONSOLE = {"console_url", "api_key", "login", "password"}
INSTANCE = {"ssh_host", "ssh_port", "ssh_user"}


class Sandbox:
    """A running `python -m sandbox` with directories for what it makes."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.ready_file = folder / "ready.json"
        self.log = folder / "log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "--ready-file", self.ready_file, *arguments],
                cwd=REPOSITORY,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def ready(self) -> dict[str, Any]:
        """What the file says as soon as it is there."""
        assert eventually(lambda: self.ready_file.exists() or self.process.poll() is not None, 60)
        assert self.ready_file.exists(), self.log.read_text()
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def children(self) -> list[int]:
        """Every process below it."""
        found = [self.process.pid]
        for pid in found:
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in tasks.read_text().split()]
        return found[1:]

    def keys_folder(self) -> Path:
        """Where the instance's keys are: in its user's home, as sshd wants it."""
        [configuration] = self.temporary.glob("*/sshd_config")
        found = re.search(r'^AuthorizedKeysFile "(.+)"$', configuration.read_text(), re.MULTILINE)
        assert found is not None
        return Path(found[1]).parent


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Sandbox]:
    sandbox = Sandbox(folder, *arguments)
    try:
        yield sandbox
    finally:
        if sandbox.process.poll() is None:
            sandbox.end()


def client(ready: dict[str, Any]) -> httpx.Client:
    headers = {"Authorization": f"Bearer {ready['api_key']}"}
    return httpx.Client(base_url=ready["console_url"], headers=headers, trust_env=False)


@pytest.fixture(scope="module")
def key() -> Iterator[KeyPair]:
    with Instance() as elsewhere:
        yield elsewhere.keygen("key")


def logs_in(ready: dict[str, Any], key: KeyPair) -> bool:
    options = [f"-o{option}" for option in SSH_OPTIONS]
    where = ["-p", str(ready["ssh_port"]), f"{ready['ssh_user']}@{ready['ssh_host']}"]
    done = subprocess.run(
        ["ssh", "-F", "none", "-T", "-i", str(key.private_path), *options, *where, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0


SSH_OPTIONS = (
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
)


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_everything(tmp_path: Path, key: KeyPair, number: signal.Signals) -> None:
    """The file names what answers: a key added at the console logs in to the instance, one deleted
    does not. A signal ends it with 0 and leaves no process, no file and no directory.
    """
    with running(tmp_path) as sandbox:
        ready = sandbox.ready()
        assert set(ready) == CONSOLE | INSTANCE
        folder = sandbox.keys_folder()
        assert folder.exists()
        with client(ready) as console:
            made = console.post(KEYS, json={"ssh_key": key.public_line}).json()["key"]
            other = console.post(KEYS, json={"ssh_key": strangers_key()}).json()["key"]
            assert eventually(lambda: logs_in(ready, key), 30)
            console.delete(f"{KEYS}{made['id']}/")
            assert eventually(lambda: not logs_in(ready, key), 30)
            assert [entry["id"] for entry in console.get(KEYS).json()] == [other["id"]]
        children = sandbox.children()
        assert len(children) >= 2  # sshd and the agent
        assert sandbox.end(number) == 0, sandbox.log.read_text()
        # What was just ending when it was looked at is taken from the table by process 1.
        assert eventually(lambda: not any(map(_runs, children)), 10)
        assert list(sandbox.temporary.iterdir()) == []
        assert not folder.exists()
        users = {entry.pw_name for entry in pwd.getpwall()}
        assert ready["ssh_user"] == current_user() or ready["ssh_user"] not in users
        assert not sandbox.ready_file.exists()


def test_console_only(tmp_path: Path) -> None:
    """Without an instance there is the console alone: the page, the API, and no process beside."""
    with running(tmp_path, "--console-only") as sandbox:
        ready = sandbox.ready()
        assert set(ready) == CONSOLE
        assert stat.S_IMODE(sandbox.ready_file.stat().st_mode) == 0o600
        with client(ready) as console:
            assert console.get(KEYS).json() == []
            assert console.get("/login").status_code == 200
        assert sandbox.children() == []
        assert sandbox.end() == 0
        assert list(sandbox.temporary.iterdir()) == []


def test_a_directory_is_found_again(tmp_path: Path) -> None:
    """With a directory the account, its keys and its credentials survive a restart, also a kill."""
    kept = tmp_path / "kept"
    options = ("--console-only", "--directory", str(kept))
    with running(tmp_path, *options) as sandbox:
        first = sandbox.ready()
        with client(first) as console:
            console.post(KEYS, json={"ssh_key": "kept"})
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700
        sandbox.end(signal.SIGKILL)
    sandbox.ready_file.unlink()
    with running(tmp_path, *options) as sandbox:
        second = sandbox.ready()
        assert {**second, "console_url": ""} == {**first, "console_url": ""}
        with client(second) as console:
            assert [entry["key"] for entry in console.get(KEYS).json()] == ["kept"]


def test_a_signal_during_the_start(tmp_path: Path) -> None:
    """A signal before anything answers tears nothing: it ends as soon as it has begun."""
    with running(tmp_path) as sandbox:
        assert eventually(lambda: any(sandbox.temporary.iterdir()), 30)
        assert sandbox.end() == 0, sandbox.log.read_text()
        assert list(sandbox.temporary.iterdir()) == []
        assert sandbox.children() == []


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """What cannot be started is one line and exit code 1, with nothing left."""
    with running(tmp_path, "--console-only") as sandbox:
        port = httpx.URL(sandbox.ready()["console_url"]).port
        (tmp_path / "second").mkdir()
        second = Sandbox(tmp_path / "second", "--console-only", "--port", str(port))
        assert second.process.wait(30) == 1
        assert "is taken; leave --port out" in second.log.read_text()
        assert "Traceback" not in second.log.read_text()
        assert list(second.temporary.iterdir()) == []


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    """Wrong usage is said before anything starts."""
    sandbox = Sandbox(tmp_path, "--console-only", "--port", port)
    assert sandbox.process.wait(30) == 2
    assert "0 (any) to 65535" in sandbox.log.read_text()


def test_a_ready_file_that_is_a_folder(tmp_path: Path) -> None:
    """It is named before anything starts, and no credentials are left beside it."""
    (tmp_path / "folder").mkdir()
    sandbox = Sandbox(tmp_path, "--console-only", "--ready-file", str(tmp_path / "folder"))
    assert sandbox.process.wait(30) == 1
    assert "is a folder; name a file in it" in sandbox.log.read_text()
    assert list(sandbox.temporary.iterdir()) == []


def test_a_directory_that_is_in_use(tmp_path: Path) -> None:
    """A second console on a directory is one line and exit code 1, and the first goes on."""
    kept = tmp_path / "kept"
    options = ("--console-only", "--directory", str(kept))
    with running(tmp_path, *options) as sandbox:
        ready = sandbox.ready()
        (tmp_path / "second").mkdir()
        second = Sandbox(tmp_path / "second", *options)
        assert second.process.wait(30) == 1
        [line] = second.log.read_text().splitlines()
        assert line.startswith(f"python -m sandbox: another console runs on {kept}: ")
        with client(ready) as console:
            assert console.get(KEYS).status_code == 200


def test_a_directory_that_others_write_to(tmp_path: Path) -> None:
    """What somebody planted is one line and exit code 1."""
    planted = tmp_path / "planted"
    planted.mkdir()
    planted.chmod(0o777)
    refused = Sandbox(tmp_path, "--console-only", "--directory", str(planted))
    assert refused.process.wait(30) == 1
    [line] = refused.log.read_text().splitlines()
    assert line.startswith(f"python -m sandbox: others may write to {planted}: ")
    assert list(planted.iterdir()) == []
