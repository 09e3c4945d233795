"""Whole syncs whose disk fails on demand, each in a process of its own, some milliseconds long.

A server has loaded keysync, with `disk_faults.c` preloaded; it forks one child for each sync. What
the C file calls a point is a system call that changes something below one folder.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.machine import REPOSITORY, clean_environment

_SOURCE = Path(__file__).with_name("disk_faults.c")
RANDOM_NAME = re.compile(r"(?<=[-.])[0-9a-f]{16}(?![0-9a-f])")  # a part of a temporary file's name

_SERVER = """
import ctypes, gc, json, os, sys
gc.disable()  # so that the children share this memory for longer
config = sys.argv[1]
from agent.cli.main import main
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
shown = os.dup(1)
os.dup2(2, 1)
main(["--config", config, "sync", "--dry-run"])  # loads everything, and changes nothing
faults = ctypes.CDLL(None)

def text(value):
    return value and ctypes.create_string_buffer(value.encode())

def child(order):
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(order["out"], flags, 0o600), 1)
    os.dup2(os.open(order["err"], flags, 0o600), 2)
    log = os.open(order["log"], flags, 0o600)
    edit = [text(value) for value in order["edit"][1:]]
    if order["limit"]:
        import resource
        log = -1  # it would be limited too
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"],) * 2)
    if edit:
        faults.faults_edit(ctypes.c_long(order["edit"][0]), *edit)
    if not order["exchange"]:
        faults.faults_without_exchange()
    below = order["below"].encode()
    faults.faults_arm(below, log, ctypes.c_long(order["at"]), order["kind"], order["code"])
    code = main(["--config", config, *order["command"]])
    sys.stdout.flush()
    os._exit(code)

os.write(shown, b"ready\\n")
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        child(json.loads(line))
    os.write(shown, b"%d\\n" % pid)
    os.write(shown, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


class Kind(enum.IntEnum):
    """What happens at a point; the numbers are those of the C file."""

    NONE = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    STOP_BEFORE = 3
    FAIL = 4
    HALF = 5
    HALF_THEN_KILL = 6
    HALF_THEN_FAIL = 7


@dataclass(frozen=True, slots=True)
class Point:
    """The `number`th call of a sync that changes the disk, and what it changes."""

    number: int
    call: str
    path: str

    @property
    def plain(self) -> str:
        """The same for every run: without the random parts of names."""
        return f"{self.call} {RANDOM_NAME.sub('*', self.path)}"

    def __str__(self) -> str:
        return f"{self.number}: {self.call} {self.path}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at which point; `code` is the errno of a failure."""

    point: Point
    kind: Kind
    code: int = 0

    def __str__(self) -> str:
        reason = f" ({errno.errorcode[self.code]})" if self.code else ""
        return f"{self.kind.name}{reason} at {self.point}"


@dataclass(frozen=True, slots=True)
class Edit:
    """What somebody else does before a point: `file` takes the place of `path`, or `text` is
    appended to it through a descriptor that was open all the time, without leases.
    """

    at: int
    path: Path
    file: Path | None = None
    text: str | None = None

    def as_json(self) -> list[object]:
        source = None if self.file is None else str(self.file)
        return [self.at, source, str(self.path), self.text]


@dataclass(frozen=True)
class End:
    """How a sync ended: its exit code (minus the signal when killed), and what it printed."""

    code: int
    stdout: str
    stderr: str
    points: tuple[Point, ...]

    @cached_property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


def library(folder: Path) -> Path:
    """The compiled C file, in `folder`."""
    compiler = shutil.which("gcc")
    if compiler is None:
        missing = "needs gcc and libc6-dev (tools/setup.sh faults): disk_faults.c is compiled"
        if os.geteuid() == 0:
            pytest.fail(missing)
        pytest.skip(reason=missing)
    made = folder / "disk_faults.so"
    options = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(made), str(_SOURCE)], check=True)
    return made


class Syncs:
    """Runs `keysync sync --json` with one configuration; points are what changes `below`."""

    exchange = True  # whether the kernel shall have renameat2(2)

    def __init__(self, server: subprocess.Popen[str], folder: Path, below: Path) -> None:
        self._server = server
        self._folder = folder
        self._below = below

    @classmethod
    @contextlib.contextmanager
    def serving(
        cls, preload: Path, config: Path, folder: Path, below: Path, *under: str
    ) -> Iterator[Syncs]:
        """With `under`, a command line that runs the server, as `nsenter … --`."""
        environment = clean_environment()
        environment |= {"HOME": str(folder), "LD_PRELOAD": str(preload), "LC_ALL": "C.UTF-8"}
        with subprocess.Popen(
            [*under, sys.executable, "-c", _SERVER, str(config)],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                syncs = cls(server, folder, below)
                assert syncs._answer() == "ready"
                yield syncs
                syncs._pipe(server.stdin).close()
            except BaseException:
                server.kill()
                raise

    def sync(self, fault: Fault | None = None, edit: Edit | None = None, limit: int = 0) -> End:
        """One sync and its end. With `limit`, no file may grow beyond so many bytes."""
        self.start(fault, edit, limit)
        return self.end()

    def start(self, fault: Fault | None = None, edit: Edit | None = None, limit: int = 0) -> int:
        """Begins one sync and gives the number of its process; `end` must follow."""
        order = {name: str(self._folder / name) for name in ("out", "err", "log")} | {
            "command": ["sync", "--json"],
            "edit": edit.as_json() if edit else [],
            "limit": limit,
            "exchange": self.exchange,
            "below": str(self._below),
            "at": fault.point.number if fault else 0,
            "kind": fault.kind if fault else 0,
            "code": fault.code if fault else 0,
        }
        stdin = self._pipe(self._server.stdin)
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        return int(self._answer())

    def end(self) -> End:
        """Waits for the sync that was begun."""
        code = int(self._answer())
        out, err, log = ((self._folder / name).read_text() for name in ("out", "err", "log"))
        calls = [line.split(" ", 1) for line in log.splitlines()]
        points = (Point(number, *call) for number, call in enumerate(calls, 1))
        return End(code, out, err, tuple(points))

    def _answer(self) -> str:
        return self._pipe(self._server.stdout).readline().strip()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
