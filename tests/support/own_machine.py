"""A machine of its own without booting one: private mounts, processes and an overlay of this host's
root, so that what happens in it stays in it. Only the network is shared.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_NONE: Mapping[str, str] = {}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MINE = ("/etc/keysync", "/opt/keysync", "/var/lib/keysync", "/etc/vast_boot.d", "/etc/supervisor")
_FOREIGN = ("/root/.ssh", "/root/.config", "/root/.vast_api_key", "/usr/local/bin/keysync")

# $1 the folder of this machine, $2 the lower folders of its root, $3 what is also to be seen there.
_SET_UP = r"""
set -eu
mkdir -p "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
for fresh in run tmp; do mount -t tmpfs -o mode=1777 tmpfs "$fresh"; done
chmod 755 run
mkdir -p ".$3"
mount --bind "$3" ".$3"
mount -o remount,bind,ro ".$3"
# The accounts are its own from now on: users that other tests make meanwhile on the host are none.
for name in passwd shadow group gshadow subuid subgid; do
    if [ -e "etc/$name" ]; then sed -i '/^keysync-[0-9a-f]\{8\}:/d' "etc/$name"; fi
    rm -f "etc/$name.lock"
done
# With this signal ignored, the kernel reaps what its parent left behind.
exec env --ignore-signal=CHLD chroot . sh -c 'echo ready; exec sleep infinity'
"""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Both streams, for an assertion's message."""
        return self.stdout + self.stderr


class OwnMachine:
    """A running one; `pid` is the host's number of its first process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.environment = {"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}

    def path(self, inside: str) -> Path:
        """A file of the machine, as seen from outside; absolute links on the way mislead."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def command(
        self, *words: str, user: str = "root", environment: Mapping[str, str] = _NONE
    ) -> list[str]:
        """A command line for the host that runs `words` inside."""
        variables = {**self.environment, **environment}
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-r", "-w"]
        enter += ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        if user != "root":
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            enter += ["env", f"HOME=/home/{user}"]
        return [*enter, *words]

    def run(
        self,
        *words: str,
        exits: int | None = 0,
        user: str = "root",
        environment: Mapping[str, str] = _NONE,
    ) -> Done:
        """Runs a command inside; its exit code must be `exits` unless that is None."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            # Files, not pipes: what the command starts and leaves running would keep a pipe open.
            code = subprocess.run(
                self.command(*words, user=user, environment=environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=100,
                check=False,
            ).returncode
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode(errors="surrogateescape"))
        done = Done(code, *texts)
        assert exits in (None, code), f"exit code {code}\n{done.text}"
        return done

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """Starts a command inside; it ends with the machine at the latest."""
        with log.open("wb") as out:
            return subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def write(self, inside: str, data: str | bytes, mode: int = 0o644) -> None:
        """Makes a file with its folders."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)

    def install_checkout(self) -> None:
        """Makes /opt/keysync a virtual environment with the checkout's libraries and keysync.

        A service refuses to start a program below /tmp, where the checkout may be.
        """
        libraries = str(REPOSITORY / ".venv" / "lib")
        self.write("/opt/keysync/pyvenv.cfg", (REPOSITORY / ".venv/pyvenv.cfg").read_bytes())
        self.path("/opt/keysync/lib").symlink_to(libraries)
        self.path("/opt/keysync/bin").mkdir()
        self.path("/opt/keysync/bin/python").symlink_to(os.path.realpath(sys.executable))
        launcher = (REPOSITORY / "bin/keysync").read_bytes()
        self.write("/opt/keysync/bin/keysync", launcher, 0o755)

    def names(self, inside: str) -> set[str]:
        """What is in a folder; nothing when there is none."""
        path = self.path(inside)
        return set(os.listdir(path)) if path.is_dir() else set()


class Workshop:
    """Keeps the disks of the machines in memory; `base` is what all machines start from."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self._made = 0
        self.base = "/"

    @contextlib.contextmanager
    def machine(self) -> Iterator[OwnMachine]:
        """A machine that is gone, with every process in it, at the end."""
        self._made += 1
        folder = str(self._folder / str(self._made))
        enter = ["nsenter", "-t", str(self._pid), "-m", "--", "unshare", "-m", "-p", "-f"]
        shell = ["--kill-child", "sh", "-c", _SET_UP, "machine"]
        with _holding([*enter, *shell, folder, self.base, str(REPOSITORY)]) as pid:
            machine = OwnMachine(pid)
            if self.base == "/":
                machine.run("rm", "-rf", *_MINE, *_FOREIGN)
            yield machine

    def make_base(self) -> None:
        """What was done to the machine that was made last is what later ones start from."""
        self.base = f"{self._folder / str(self._made)}/upper:{self.base}"


@contextlib.contextmanager
def open_workshop() -> Iterator[Workshop]:
    """Raises RuntimeError where this needs rights or a kernel that are not there."""
    if os.geteuid() != 0:
        raise RuntimeError("needs root: it makes mounts in a namespace of its own")
    with tempfile.TemporaryDirectory(prefix="keysync-workshop-") as folder:
        script = 'mount -t tmpfs -o mode=755 tmpfs "$1" && echo ready && exec sleep infinity'
        command = ["unshare", "-m", "-f", "--kill-child", "sh", "-c", script, "workshop", folder]
        with _holding(command) as pid:
            yield Workshop(pid, Path(folder))


@contextlib.contextmanager
def _holding(command: Sequence[str]) -> Iterator[int]:
    """Runs `unshare ... --kill-child` until the end; gives the number of its innermost process."""
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err
        )
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                err.seek(0)
                raise RuntimeError(f"no machine: {err.read().decode(errors='replace').strip()}")
            yield _child(process.pid)
        finally:
            process.kill()  # unshare ignores SIGTERM; --kill-child takes the rest along
            process.wait()
            process.stdout.close()


def _child(pid: int) -> int:
    """The last of a line of only children."""
    deadline = time.monotonic() + 10
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return pid
        assert len(children) == 1, children
        assert time.monotonic() < deadline
        pid = int(children[0])
