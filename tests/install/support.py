"""The verbs of these tests: keysync's commands on a machine, its key files, logins to its sshd."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sandbox.console import Console
from tests.support.own_machine import REPOSITORY, Done, OwnMachine

PROGRAM = "/opt/keysync/bin/keysync"
ROOTS_FILE = "/root/.ssh/authorized_keys"
CONFIG, API_KEY, STATE = "/etc/keysync/config.yaml", "/etc/keysync/api_key", "/var/lib/keysync"
TAG = b"keysync:managed"
ONSTART = REPOSITORY / "container/onstart.sh"
_SSH_FAILED = 255
_NONE: Mapping[str, str] = {}


def keysync(
    machine: OwnMachine,
    *words: str,
    exits: int | None = 0,
    user: str = "root",
    environment: Mapping[str, str] = _NONE,
) -> Done:
    """One command of the installed program."""
    return machine.run(PROGRAM, *words, exits=exits, user=user, environment=environment)


def variables(console: Console) -> dict[str, str]:
    """What the template of a rented machine would set."""
    return {"VAST_URL": console.url, "VAST_API_KEY": console.api_key}


def documented(document: str, words: str) -> str:
    """The code block of a document with these words: what installs the program, without apt."""
    text = (REPOSITORY / document).read_text()
    [block] = [code for code in re.findall(r"(?ms)^```\n(.*?)^```", text) if words in code]
    lines = block.partition("install -d ")[0].splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("apt-get "))


def write_release(machine: OwnMachine, wheelhouse: Path) -> dict[str, str]:
    """Puts a release into /tmp/release and the libraries beside it, where pip looks with the
    variables that this gives: it has no index.
    """
    sums = ""
    for wheel in wheelhouse.iterdir():
        is_own = wheel.name.startswith("keysync-")
        folder = "release" if is_own else "wheels"
        machine.write(f"/tmp/{folder}/{wheel.name}", wheel.read_bytes())
        sums += f"{sha256(wheel)}  {wheel.name}\n" if is_own else ""
    machine.write("/tmp/release/SHA256SUMS", sums)
    pip = {"NO_INDEX": "1", "FIND_LINKS": "/tmp/wheels", "NO_COMPILE": "1", "QUIET": "1"}
    return {f"PIP_{name}": value for name, value in pip.items()} | {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1"
    }


def release_variables(machine: OwnMachine) -> dict[str, str]:
    """What a template says of the release that is in /tmp/release."""
    [name] = machine.names("/tmp/release") - {"SHA256SUMS"}
    digest = machine.path("/tmp/release/SHA256SUMS").read_text().split()[0]
    return {"KEYSYNC_SOURCE": f"/tmp/release/{name}", "KEYSYNC_SHA256": digest}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def set_key_file(machine: OwnMachine, data: bytes, user: str = "root") -> None:
    """A key file as sshd wants it."""
    home = "/root" if user == "root" else f"/home/{user}"
    machine.run("install", "-d", "-m700", "-o", user, f"{home}/.ssh")
    machine.write(f"{home}/.ssh/authorized_keys", data, 0o600)
    machine.run("chown", user, f"{home}/.ssh/authorized_keys")


def key_file(machine: OwnMachine, user: str = "root") -> bytes:
    home = "/root" if user == "root" else f"/home/{user}"
    return machine.path(f"{home}/.ssh/authorized_keys").read_bytes()


def tree(machine: OwnMachine, *folders: str) -> dict[str, tuple[int, int, int, bytes]]:
    """Every path below these folders with inode, time of change, mode and bytes."""
    found = {}
    for folder in folders:
        top = machine.path(folder)
        for path in [top, *top.rglob("*")] if top.exists() else []:
            status = path.lstat()
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_mode, data)
    return found


def eventually(holds: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Waits until the condition holds; fails when it does not within so long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class Door:
    """A real sshd in a machine, which reads root's own key file, and real logins from outside."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def keygen(self, name: str) -> str:
        """A new key pair; gives the public line."""
        path = self._folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        return path.with_name(f"{name}.pub").read_text().strip()

    def lets_in(self, name: str) -> bool:
        """Whether a login as root with this key works; anything but a refused key is an error."""
        options = ("IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes")
        hosts = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        flags = [part for option in options + hosts for part in ("-o", option)]
        where = ["-i", str(self._folder / name), "-p", str(self._port), "root@127.0.0.1"]
        done = subprocess.run(
            ["ssh", "-F", "none", "-T", *flags, *where, "echo in"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        refused = done.returncode == _SSH_FAILED and "Permission denied (publickey" in done.stderr
        assert refused or done.stdout == "in\n", done.stdout + done.stderr
        return not refused


@contextlib.contextmanager
def open_door(machine: OwnMachine, folder: Path) -> Iterator[Door]:
    """Starts sshd inside; it answers when this returns."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    machine.path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    machine.run("usermod", "-p", "*", "root")  # without PAM, sshd refuses a locked account
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/door_key")
    lines = (
        f"ListenAddress 127.0.0.1:{port}",
        "HostKey /etc/ssh/door_key",
        "PermitRootLogin prohibit-password",
        "AuthenticationMethods publickey",
        "StrictModes yes",
        "UsePAM no",
        "PidFile none",
        "LogLevel VERBOSE",
    )
    machine.write("/etc/ssh/door_config", "".join(f"{line}\n" for line in lines))
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/door_config"]
    process = machine.start(*command, log=folder / "sshd.log")
    try:
        eventually(lambda: _answers(port), f"sshd: {(folder / 'sshd.log').read_text()}")
        yield Door(folder, port)
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as there:
        return there.recv(4) == b"SSH-"
    return False
