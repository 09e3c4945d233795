"""A container that boots a real systemd, and whose disk outlives its boots."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.systemd.network import Network

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_END_SECONDS = 15.0
_COMMAND_SECONDS = 60.0
_PAUSE_SECONDS = 0.02


def eventually(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Waits for a condition; fails by name when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def disk_over(rootfs: Path) -> Iterator[Path]:
    """The root file system with all changes in memory, gone at the end."""
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="keysync-machine-", dir="/var/tmp")
        stack.callback(os.rmdir, folder)
        _mounted(stack, folder, "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)
        upper, work, root = (Path(folder, name) for name in ("upper", "work", "root"))
        for path in (upper, work, root):
            path.mkdir(mode=0o755)
        options = f"lowerdir={rootfs},upperdir={upper},workdir={work}"
        _mounted(stack, str(root), "-t", "overlay", "-o", options, "overlay", str(root))
        yield root


def _mounted(stack: contextlib.ExitStack, where: str, *words: str) -> None:
    subprocess.run(["mount", *words], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", where], check=True)


class Container:
    """Boots what is on the disk at `root`, as often as wanted; `binds` are shown read-only."""

    def __init__(self, root: Path, network: Network, binds: Sequence[str]) -> None:
        self.root = root
        self._network = network
        self._binds = [f"--bind-ro={bind}" for bind in binds]
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        """Returns when the container's first process is there; its services start meanwhile."""
        assert self._process is None, "it is running"
        console = self.root.parent / "console.log"
        with console.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=TERM"),  # also when nobody is left to end it
                    *("systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot"),
                    *(f"--machine=keysync-test-{os.getpid()}", "--register=no", "--keep-unit"),
                    *("--console=read-only", f"--network-namespace-path={self._network.path}"),
                    *self._binds,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self._process

        def found() -> bool:
            assert process.poll() is None, console.read_text(errors="replace")[-2000:]
            self._leader = _leader_of(process.pid)
            return self._leader != 0

        eventually(found, "the container's first process")

    def power_off(self) -> None:
        """Ends it in order, and by force when that does not work; does nothing when it is off."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)  # all in it end with it (pid_namespaces(7))
            process.wait(_END_SECONDS)
            raise

    def run(self, *command: str, expect: int | None = 0, **environment: str) -> str:
        """What a command inside prints; it must end with the code `expect` (None: any)."""
        variables = [f"{name}={value}" for name, value in environment.items()]
        done = subprocess.run(
            [
                *("nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C"),
                *("env", "-i", f"PATH={_PATH}", "LC_ALL=C.UTF-8", "HOME=/root", *variables),
                *command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        text = done.stdout + done.stderr
        assert expect is None or done.returncode == expect, (
            f"{command} gave {done.returncode}: {text}"
        )
        return done.stdout

    def await_booted(self) -> None:
        """Returns when every job of the boot is done, whether it went well or not."""

        def state() -> str:
            return self.run("systemctl", "is-system-running", expect=None).strip()

        eventually(lambda: state() in ("running", "degraded"), "the end of the boot", 60)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def host_pid(self, pid: int) -> int:
        """What a process of the container is called outside it (NSpid in proc(5))."""
        here = os.readlink(f"/proc/{self._leader}/ns/pid")
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(process / "ns" / "pid") == here and _ids(process)[-1] == str(pid):
                    return int(process.name)
        raise ProcessLookupError(pid)

    def journal(self, *filters: str) -> list[dict[str, Any]]:
        """The records of this boot that match, oldest first."""
        text = self.run("journalctl", "--boot", "--output=json", "--no-pager", *filters)
        return [json.loads(line) for line in text.splitlines()]

    def last_words(self) -> str:
        """The end of this boot's journal, for a person."""
        if self._process is None:
            return "the machine is off"
        return self.run("journalctl", "--boot", "--lines=120", "--no-pager", expect=None)


def _leader_of(nspawn: int) -> int:
    """The child that is the first process of a pid namespace of its own; 0 when not there yet."""
    for task in Path(f"/proc/{nspawn}/task").glob("*/children"):
        for child in task.read_text().split():
            with contextlib.suppress(OSError):
                if len(_ids(Path("/proc", child))) == 2 and os.readlink(
                    f"/proc/{child}/exe"
                ).endswith("systemd"):
                    return int(child)
    return 0


def _ids(process: Path) -> list[str]:
    """What a process is called in each pid namespace that it is in, the outermost first."""
    lines = (process / "status").read_text().splitlines()
    [ids] = [line.split()[1:] for line in lines if line.startswith("NSpid:")]
    return ids
