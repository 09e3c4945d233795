"""A sync whose disk fails where nobody expects it, and the order of its steps (G7), by strace.

Every fault at every call that changes the disk: `tests/attacks/test_system_calls.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.adapters.support import needs_root, needs_strace, until
from tests.support.crash_scene import Scene, add_and_remove, first_sync, new_directory, staged
from tests.support.disk_faults import End
from tests.support.machine import REPOSITORY, clean_environment

pytestmark = pytest.mark.attack

# ---- a process that can be stopped anywhere ----

_SERVER = """
import os, sys
config, gate = sys.argv[1:]
from agent.cli.main import main
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
shown = os.dup(1)
os.dup2(2, 1)
main(["--config", config, "sync", "--dry-run"])  # loads everything, and changes nothing
os.write(shown, b"ready\\n")
for order in sys.stdin:
    out, err = order.split()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        os.close(os.open(gate, os.O_RDONLY))  # until somebody opens it for writing
        code = main(["--config", config, "sync", "--json"])
        sys.stdout.flush()
        os._exit(code)
    os.write(shown, b"%d\\n" % child)
    os.write(shown, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

_CALLS = (
    "mkdir,mkdirat,write,pwrite64,fsync,fdatasync,ftruncate,chmod,fchmod,fchmodat,"
    "chown,fchown,fchownat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,fsetxattr"
)
_LINE = re.compile(r"(\w+)\((.*)\) += (.*)")


@dataclass(frozen=True)
class Call:
    """The `nth` system call of this name in the main thread, as strace shows it."""

    name: str
    nth: int
    text: str

    def __str__(self) -> str:
        return f"{self.name} #{self.nth}: {self.text}"


class Crasher:
    """Runs whole syncs, each in a process of its own, quickly; strace may interfere."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._scene = scene
        self._folder = folder
        self._gate = folder / "gate"
        self._server: subprocess.Popen[str] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Crasher]:
        os.mkfifo(self._gate)
        environment = {**clean_environment(), "HOME": str(self._folder)}
        with subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(self._scene.machine.config), str(self._gate)],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as self._server:
            assert self._answer() == "ready"
            yield self
            self._pipe(self._server.stdin).close()

    def sync(self, call: Call | None = None, fault: str = "") -> End:
        """One sync; when it comes to `call`, this happens (what follows `inject=` in strace(1))."""
        if call is None:
            return self._run(None)
        expression = f"inject={call.name}:{fault}:when={call.nth}"
        return self._run([*self._filter(call.name), "-e", expression])

    def calls(self, *kinds: str) -> list[Call]:
        """The calls of one sync, by default those that change what is on the disk."""
        found = []
        for names in kinds or (_CALLS, "openat"):
            self._scene.reset()
            counted: dict[str, int] = {}
            assert self._run([*self._filter(names), "-y"]).code == 0
            for line in (self._folder / "trace").read_text().splitlines():
                match = _LINE.match(line)
                if match is None:
                    continue
                name, arguments = match[1], match[2]
                counted[name] = counted.get(name, 0) + 1
                if not kinds and name == "openat" and "O_CREAT" not in arguments:
                    continue
                if str(self._scene.machine.folder) in line:
                    found.append(Call(name, counted[name], arguments))
        return found

    def _filter(self, names: str) -> list[str]:
        """What is traced and counted; of the many files that are opened only those of the scene."""
        scene = self._scene
        ours = (scene.ssh, scene.ssh.parent, scene.machine.state, scene.machine.folder)
        paths = [word for path in ours for word in ("-P", str(path))] if names == "openat" else []
        return ["-e", f"trace={names}", *paths]

    def _run(self, strace: list[str] | None) -> End:
        server = self._server
        assert server is not None
        out, err = self._folder / "out", self._folder / "err"
        stdin = self._pipe(server.stdin)
        stdin.write(f"{out} {err}\n")
        stdin.flush()
        child = self._answer()
        with self._traced(child, strace) if strace else contextlib.nullcontext():
            with self._gate.open("w"):  # off it goes
                pass
            code = int(self._answer())
        return End(code, out.read_text(), err.read_text(), ())

    @contextlib.contextmanager
    def _traced(self, child: str, options: list[str]) -> Iterator[None]:
        trace = self._folder / "trace"
        said = self._folder / "strace"
        with said.open("w") as stream:
            command = ["strace", "-p", child, "-o", str(trace), *options]
            with subprocess.Popen(command, stderr=stream) as strace:
                attached = f"Process {child} attached"
                until(
                    lambda: attached in said.read_text() or strace.poll() is not None,
                    "strace attached itself",
                )
                assert strace.poll() is None, said.read_text()
                yield
                strace.wait(timeout=10)

    def _answer(self) -> str:
        assert self._server is not None
        return self._pipe(self._server.stdout).readline().strip()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@pytest.fixture(params=[first_sync, new_directory, add_and_remove], ids=lambda plot: plot.__name__)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with staged(request.param, tmp_path / "machine") as made:
        yield made


@pytest.fixture
def crasher(scene: Scene, tmp_path: Path) -> Iterator[Crasher]:
    folder = tmp_path / "crasher"
    folder.mkdir()
    with Crasher(scene, folder).running() as running:
        yield running


@needs_root
@needs_strace
@pytest.mark.parametrize("scene", [add_and_remove], indirect=True)
def test_killed_at_each_step(scene: Scene, crasher: Crasher) -> None:
    """G7: kill -9 before any call that changes the disk, here by the kernel's own tracing."""
    calls = crasher.calls()
    scene.check_whole()
    assert len(calls) >= 15
    for call in calls:
        scene.reset()
        end = crasher.sync(call, "signal=SIGKILL")
        assert end.code == -9, f"{call} was not reached: {end}"
        try:
            scene.check_whole()
            scene.check_done(crasher.sync())
        except AssertionError as failure:
            raise AssertionError(f"killed at {call}: {failure}") from failure


@needs_root
@needs_strace
def test_what_takes_the_name_is_on_the_disk_first(scene: Scene, crasher: Crasher) -> None:
    """G7, power loss: the file is synced, then renamed, then the directory is; what was done is
    remembered last. G11, R5: which keys are listed is recorded before any of them enters.
    """
    steps = [f"{call.name} {call.text}" for call in crasher.calls()]

    def all_at(*words: str) -> list[int]:
        return [n for n, step in enumerate(steps) if all(word in step for word in words)]

    def at(*words: str) -> int:
        return all_at(*words)[0]

    order = [
        at("fsync", ".state.json."),
        at("renameat", "state.json"),
        at("fsync", "original-")
        if scene.target.before == scene.target.original
        else at("fsync", "journal"),
        at("fsync", ".authorized_keys.keysync-"),
        at("renameat2", ".authorized_keys.keysync-"),
        at("fsync", "/.ssh>"),
        all_at("fsync", ".state.json.")[-1],
        all_at("renameat", "state.json")[-1],
    ]
    assert order == sorted(order)


READS = {"api_key": 77, "config.yaml": 78}  # the exit code when this file cannot be read


@needs_root
@needs_strace
@pytest.mark.parametrize("scene", [add_and_remove], indirect=True)
def test_a_disk_that_cannot_be_read_at_each_step(scene: Scene, crasher: Crasher) -> None:
    """G7, R11: an error where nobody expects one is a failure by name too, never a traceback."""
    kinds = {"getdents64", "pread64", "flock", "openat"}
    calls = list({(call.name, call.text): call for call in crasher.calls(*sorted(kinds))}.values())
    assert {call.name for call in calls} == kinds
    for call in calls:
        scene.reset()
        end = crasher.sync(call, "error=EIO")
        try:
            scene.check_whole(end)
            assert end.code in (0, next((READS[name] for name in READS if name in call.text), 74))
            assert "Traceback" not in end.stderr
            scene.check_done(crasher.sync())
        except AssertionError as failure:
            raise AssertionError(f"EIO at {call}: {failure}\n{end}") from failure


@needs_root
@needs_strace
@pytest.mark.parametrize("scene", [add_and_remove], indirect=True)
def test_a_disk_that_lies_is_found_out(scene: Scene, crasher: Crasher) -> None:
    """G7: what was written is read before it takes the name; here the write does nothing."""
    [write] = [call for call in crasher.calls() if call.name == "write" and ".ssh/" in call.text]
    scene.reset()
    end = crasher.sync(write, f"retval={len(scene.target.after or b'')}")
    assert (end.code, scene.target.on_disk) == (74, scene.target.before), end
    scene.check_done(crasher.sync())
