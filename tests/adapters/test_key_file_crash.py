"""A sync that is killed, or whose disk fails, at each of its steps (G7): strace does both."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from sandbox.console import Console
from tests.adapters.support import leftovers, needs_root, needs_strace, new_machine, target, until
from tests.support.machine import REPOSITORY, TAG, Machine, clean_environment, key_line

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


@dataclass(frozen=True)
class End:
    """How a sync ended: its exit code (minus the signal when killed), and what it printed."""

    code: int
    stdout: str
    stderr: str


class Crasher:
    """Runs whole syncs, each in a process of its own, quickly; strace may interfere.

    `missing` is a system call that this kernel shall not have.
    """

    missing: str | None = None

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
                if str(self._scene.machine.folder) in line and name != self.missing:
                    found.append(Call(name, counted[name], arguments))
        return found

    def _filter(self, names: str) -> list[str]:
        """What is traced and counted; of the many files that are opened only those of the scene."""
        scene = self._scene
        ours = (scene.ssh, scene.ssh.parent, scene.machine.state, scene.machine.folder)
        paths = [word for path in ours for word in ("-P", str(path))] if names == "openat" else []
        without = ["-e", f"inject={self.missing}:error=ENOSYS"] if self.missing else []
        traced = f"{names},{self.missing}" if self.missing else names
        return ["-e", f"trace={traced}", *paths, *without]

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
        return End(code, out.read_text(), err.read_text())

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


# ---- what a sync meets ----

STAYS = b"# by hand, \xff\r\n" + key_line("foreign").encode() + b"\n"
GONE = f"{key_line('gone')} {TAG}\n".encode()
NEW = f"{key_line('new')} {TAG}\n".encode()


@dataclass
class Scene:
    """A machine with a file of before and after; `reset` puts everything back to before."""

    machine: Machine
    before: bytes | None
    after: bytes
    original: bytes | None
    pristine: Path

    @property
    def ssh(self) -> Path:
        return self.machine.folder / "home" / ".ssh"

    @property
    def keys(self) -> Path:
        return self.ssh / "authorized_keys"

    def reset(self) -> None:
        for name in ("home", "state"):
            shutil.rmtree(self.machine.folder / name, ignore_errors=True)
            if (self.pristine / name).exists():
                shutil.copytree(self.pristine / name, self.machine.folder / name)

    def save(self) -> None:
        for name in ("home", "state"):
            if (self.machine.folder / name).exists():
                shutil.copytree(self.machine.folder / name, self.pristine / name)

    @property
    def on_disk(self) -> bytes | None:
        return self.keys.read_bytes() if self.keys.exists() else None

    def check_whole(self) -> None:
        """The file is the old or the new one; nothing of it is open to others, or not saved."""
        assert self.on_disk in (self.before, self.after)
        if self.ssh.exists():
            assert stat.S_IMODE(self.ssh.stat().st_mode) == 0o700
        if self.keys.exists():
            assert stat.S_IMODE(self.keys.stat().st_mode) == 0o600
        if self.on_disk != self.before:
            assert self.saved_original == self.original
            if self.before is not None and GONE in self.before:
                assert key_line("gone").split()[1] in self.journal
        if self._state_says_done:
            assert self.on_disk == self.after, "the state is ahead of the disk"

    def check_done(self, end: End) -> None:
        """The next sync succeeded, and left nothing of an earlier one lying about."""
        assert end.code == 0, end.stdout + end.stderr
        assert self.on_disk == self.after
        assert self._state_says_done
        assert os.listdir(self.ssh) == ["authorized_keys"]
        assert leftovers(self.machine.state) == []
        assert leftovers(self.ssh.parent) == [".ssh"]
        assert self.saved_original == self.original
        for path in self.machine.state.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    @property
    def _state_says_done(self) -> bool:
        path = self.machine.state / "state.json"
        if not path.exists():
            return False
        state = json.loads(path.read_bytes())
        known = any(key["comment"] == "new" for key in state["keys"])
        return known and [found["result"] for found in state["targets"]] != ["failed"]

    @property
    def saved_original(self) -> bytes | None:
        """What could be given back; no file at all counts as None."""
        [about] = self.machine.state.glob("original-*.json")
        existed = json.loads(about.read_bytes())["existed"]
        return about.with_suffix(".bytes").read_bytes() if existed else None

    @property
    def journal(self) -> str:
        text = (self.machine.state / "journal.jsonl").read_text()
        removed = [json.loads(line)["removed"] for line in text.splitlines()]
        return "\n".join(base64.b64decode(line).decode() for line in removed)


def _first_sync(scene: Scene, console: Console) -> None:
    """The file is there, keysync has never run: the original must be saved."""
    scene.before = scene.original = STAYS
    scene.after = STAYS + NEW
    scene.ssh.mkdir(parents=True, mode=0o700)
    scene.keys.touch(mode=0o600)
    scene.keys.write_bytes(STAYS)
    console.add_key(key_line("new"))


def _nothing_there(scene: Scene, console: Console) -> None:
    """Neither the directory nor the state folder exists."""
    scene.before = scene.original = None
    scene.after = NEW
    scene.ssh.parent.mkdir()
    console.add_key(key_line("new"))


def _revocation(scene: Scene, console: Console) -> None:
    """A key that an earlier sync wrote was deleted on the console, and another one added."""
    _first_sync(scene, console)
    [new] = console.account.stored()
    console.edit_key(new.id, key_line("gone"))
    assert scene.machine.here("sync").code == 0
    scene.before = scene.keys.read_bytes()
    assert scene.before == STAYS + GONE
    console.edit_key(new.id, key_line("new"))


_SCENES: list[Callable[[Scene, Console], None]] = [_first_sync, _nothing_there, _revocation]


@pytest.fixture(params=_SCENES, ids=lambda scene: scene.__name__.strip("_"))
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with Console() as console:
        machine = new_machine(tmp_path / "machine", console)
        made = Scene(machine, None, b"", None, tmp_path / "pristine")
        made.pristine.mkdir()
        machine.configure(targets=target("root", made.keys))
        request.param(made, console)
        made.save()
        yield made


@pytest.fixture
def crasher(scene: Scene, tmp_path: Path) -> Iterator[Crasher]:
    folder = tmp_path / "crasher"
    folder.mkdir()
    with Crasher(scene, folder).running() as running:
        yield running


@needs_root
@needs_strace
def test_killed_at_each_step(scene: Scene, crasher: Crasher) -> None:
    """G7: kill -9 before any call that changes the disk; the next sync finishes the work."""
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
    """G7, power loss: the file is synced, then renamed, then the directory is; state comes last."""
    steps = [f"{call.name} {call.text}" for call in crasher.calls()]

    def at(*words: str) -> int:
        [first, *_] = [n for n, step in enumerate(steps) if all(word in step for word in words)]
        return first

    order = [
        at("fsync", "original-") if scene.before == scene.original else at("fsync", "journal"),
        at("fsync", ".authorized_keys.keysync-"),
        at("renameat2", ".authorized_keys.keysync-"),
        at("fsync", "/.ssh>"),
        at("fsync", ".state.json."),
        at("renameat", "state.json"),
    ]
    assert order == sorted(order)


_FAULTS = {
    "openat": ("ENOSPC", "EROFS", "EDQUOT"),
    "mkdirat": ("ENOSPC", "EROFS"),
    "fchown": ("EPERM",),
    "fchmod": ("EIO", "EPERM"),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "fsync": ("EIO", "ENOSPC"),
    "renameat": ("EIO", "EROFS", "EPERM"),
    "renameat2": ("EIO", "ENOSPC", "EPERM"),
    "unlinkat": ("EIO", "EROFS"),
}
_SAID = {
    "ENOSPC": "the disk is full",
    "EROFS": "the file system is read-only",
    "EDQUOT": "the disk quota is used up",
    "EIO": "the disk reported an I/O error",
    "EPERM": "the operation is not permitted",
}


@needs_root
@needs_strace
def test_a_disk_that_fails_at_each_step(scene: Scene, crasher: Crasher) -> None:
    """G7, exit code 74: the old file stays or the new one is complete; path, reason and advice."""
    cases = [
        (call, fault)
        for at, call in enumerate(crasher.calls())
        for fault in _some(
            _FAULTS.get(call.name, ("EIO",)), at, every=scene.before != scene.original
        )
    ]
    assert len(cases) >= 20
    for call, fault in cases:
        scene.reset()
        end = crasher.sync(call, f"error={fault}")
        try:
            _check_failure(scene, end, call, fault)
            scene.check_done(crasher.sync())
        except AssertionError as failure:
            raise AssertionError(f"{fault} at {call}: {failure}\n{end}") from failure


def _some(faults: tuple[str, ...], at: int, *, every: bool) -> tuple[str, ...]:
    """Every fault in one scene, and one at a time in the others, which differ little from it."""
    return faults if every else (faults[at % len(faults)],)


@needs_root
@needs_strace
@pytest.mark.parametrize("scene", [_revocation], indirect=True)
def test_a_disk_that_cannot_be_read_at_each_step(scene: Scene, crasher: Crasher) -> None:
    """G7, R11: an error where nobody expects one is a failure by name too, never a traceback."""
    kinds = {"getdents64", "pread64", "flock", "openat"}
    calls = list({(call.name, call.text): call for call in crasher.calls(*sorted(kinds))}.values())
    assert {call.name for call in calls} == kinds
    for call in calls:
        scene.reset()
        end = crasher.sync(call, "error=EIO")
        try:
            scene.check_whole()
            assert end.code in (0, 74)
            assert "Traceback" not in end.stderr
            scene.check_done(crasher.sync())
        except AssertionError as failure:
            raise AssertionError(f"EIO at {call}: {failure}\n{end}") from failure


def _check_failure(scene: Scene, end: End, call: Call, fault: str) -> None:
    scene.check_whole()
    if call.name != "unlinkat":
        folders = (scene.machine.state, scene.ssh)
        assert [
            leftovers(folder) for folder in folders if folder.exists() and leftovers(folder)
        ] == []
    if (call.name, fault) == ("renameat2", "EPERM"):  # as where it is forbidden: rename(2) does it
        assert (end.code, scene.on_disk) == (0, scene.after)
        return
    assert end.code == 74
    error = json.loads(end.stdout)["error"]
    assert str(scene.machine.folder) in error["message"]
    assert _SAID[fault] in error["message"]
    assert error["hint"]


@needs_root
@needs_strace
@pytest.mark.parametrize("scene", [_revocation], indirect=True)
def test_a_disk_that_lies_is_found_out(scene: Scene, crasher: Crasher) -> None:
    """G7: what was written is read before it takes the name; here the write does nothing."""
    [write] = [call for call in crasher.calls() if call.name == "write" and ".ssh/" in call.text]
    scene.reset()
    end = crasher.sync(write, f"retval={len(scene.after)}")
    assert (end.code, scene.on_disk) == (74, scene.before), end
    scene.check_done(crasher.sync())


@needs_root
@needs_strace
@pytest.mark.parametrize("scene", [_nothing_there, _revocation], indirect=True)
def test_killed_where_renameat2_is_not_to_be_had(scene: Scene, crasher: Crasher) -> None:
    """G7: the older calls, link and rename, leave nothing behind either that blocks a sync."""
    crasher.missing = "renameat2"
    calls = crasher.calls("linkat", "renameat", "unlinkat")
    assert [call.text for call in calls if call.name == ("renameat" if scene.before else "linkat")]
    for call in calls:
        scene.reset()
        end = crasher.sync(call, "signal=SIGKILL")
        assert end.code == -9, f"{call} was not reached: {end}"
        try:
            scene.check_whole()
            scene.check_done(crasher.sync())
        except AssertionError as failure:
            raise AssertionError(f"killed at {call}: {failure}") from failure
