"""A machine that keysync looks after, its console, and logins to it with a real `ssh`."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sandbox.console import Console
from tests.systemd.container import Container, disk_over, eventually
from tests.systemd.network import Network

REPOSITORY = Path(__file__).parents[2]
SERVICE, BOOT = "keysync.service", "keysync-boot.service"
CONSOLE_PORT = 8080
USER = "renter"
API_KEY = "/etc/keysync/api_key"
UNITS = "/etc/systemd/system"
SSHD_CONFIG = "/etc/ssh/sshd_config.d/keysync-test.conf"
# As in syslog(3), by the names that the log uses.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
CONFIG = f"""\
api: {{url: "http://127.0.0.1:{CONSOLE_PORT}", key_file: {API_KEY}}}
poll: {{interval: 1s, jitter: 0s, max_backoff: 2s}}
targets: [{{user: root}}, {{user: {USER}}}]
"""


class Machine(Container):
    """Two people have accounts on it, root and `USER`; the console is reachable when it serves."""

    def __init__(self, root: Path, network: Network, binds: Sequence[str], keys: Path) -> None:
        super().__init__(root, network, binds)
        self._network = network
        self._keys = keys
        self._secrets: set[str] = set()
        self.console = Console(port=CONSOLE_PORT)

    # ---- the disk, also while the machine is off ----

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Replaces a file whole, with root as owner."""
        where = self.path(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        new = where.with_name(where.name + ".new")
        new.touch(mode=0o600)
        new.write_text(text)
        new.chmod(mode)
        new.rename(where)

    def path(self, path: str) -> Path:
        """Where a path of the machine is on the disk; links are the machine's and not followed."""
        return self.root / path.lstrip("/")

    def drop_in(self, unit: str, text: str) -> None:
        """Settings of a unit that only a test wants, such as shorter times."""
        self.write(f"{UNITS}/{unit}.d/test.conf", text)

    def set_api_key(self, value: str) -> None:
        """Replaces the API key on disk."""
        self._secrets.add(value)
        self.write(API_KEY, value + "\n", 0o600)

    def configure(self, text: str = CONFIG) -> None:
        self.write("/etc/keysync/config.yaml", text)

    def place_keysync(self) -> None:
        """Account, units and configuration, as `keysync install` leaves them."""
        nobody = ("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
        self.chroot("useradd", "--system", "--user-group", "--no-create-home", *nobody, "keysync")
        for unit in (SERVICE, BOOT):
            self.write(f"{UNITS}/{unit}", (REPOSITORY / "systemd" / unit).read_text())
            self.enable(unit, "multi-user.target")
        self.configure()
        self.set_api_key(self.console.api_key)

    def enable(self, unit: str, target: str) -> None:
        """Lets a target start the unit, as `systemctl enable` does."""
        wants = self.path(f"{UNITS}/{target}.wants")
        wants.mkdir(exist_ok=True)
        (wants / unit).symlink_to(f"{UNITS}/{unit}")

    def chroot(self, *command: str) -> None:
        """Runs a program of the machine while it is off."""
        subprocess.run(["chroot", str(self.root), *command], check=True)

    # ---- the console ----

    @contextlib.contextmanager
    def serving(self) -> Iterator[Console]:
        """The console can be reached from the machine in this block."""
        with contextlib.ExitStack() as stack:
            with self._network.entered():
                stack.enter_context(self.console)
            yield self.console

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Connections to the console are accepted in this block, and never answered."""
        with self._network.entered():
            listener = socket.create_server(("127.0.0.1", CONSOLE_PORT))
        with listener:
            yield

    # ---- logins ----

    def new_key(self, name: str) -> Path:
        """The private half of a new key; the public half is beside it."""
        private = self._keys / name
        words = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(private)]
        subprocess.run(["ssh-keygen", *words], check=True, stdin=subprocess.DEVNULL)
        return private

    def logs_in(self, key: Path, user: str = "root") -> bool:
        """Whether `ssh` gets in with this key alone; any other failure than a refusal fails."""
        options = (
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "PreferredAuthentications=publickey",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ConnectTimeout=10",
            "LogLevel=ERROR",
        )
        flags = [part for option in options for part in ("-o", option)]
        with self._network.entered():
            done = subprocess.run(
                ["ssh", "-F", "none", "-T", *flags, "-i", str(key), f"{user}@127.0.0.1", "echo in"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        if done.returncode == 0:
            assert done.stdout == "in\n", done.stdout
            return True
        assert "Permission denied (" in done.stderr, done.stderr
        return False

    def await_login(self, key: Path, user: str = "root") -> None:
        """Returns when the key gets in."""
        eventually(lambda: self.logs_in(key, user), f"{user} is let in with {key.name}", 40)

    def await_refusal(self, key: Path, user: str = "root") -> None:
        """Returns when the key is refused."""
        eventually(lambda: not self.logs_in(key, user), f"{user} is refused with {key.name}", 40)

    def await_sshd(self, seconds: float) -> None:
        """Returns the moment sshd says its first word (RFC 4253 section 4.2)."""
        eventually(self._has_banner, "sshd's banner", seconds)

    def _has_banner(self) -> bool:
        try:
            with self.connect(22) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def connect(self, port: int) -> socket.socket:
        """A connection to the machine. Raises OSError."""
        with self._network.entered():
            return socket.create_connection(("127.0.0.1", port), timeout=30)

    # ---- what the agent says ----

    def events(self, name: str, unit: str = SERVICE) -> list[dict[str, Any]]:
        """The agent's events of this name in this boot's journal, oldest first."""
        messages = [str(record["MESSAGE"]) for record in self.journal(f"--unit={unit}")]
        found = [json.loads(message) for message in messages if message.startswith("{")]
        return [event for event in found if event["event"] == name]

    def check_journal(self) -> None:
        """G10 and the priorities of the log: what must hold of every journal of a boot."""
        text = self.run("journalctl", "--boot", "--output=export", "--all", "--no-pager")
        for secret in self._secrets:
            assert secret not in text
        blobs = re.findall(r"AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{8}", text)
        assert blobs == [], "whole keys in the journal"
        for record in self.journal("_COMM=keysync"):
            message = str(record["MESSAGE"])
            level = json.loads(message)["level"] if message.startswith("{") else "info"
            assert int(record["PRIORITY"]) == _PRIORITIES[level], message


def public_line(key: Path) -> str:
    """The public half of a key as one line."""
    return key.with_suffix(".pub").read_text().rstrip()


@contextlib.contextmanager
def new_machine(
    rootfs: Path, binds: Sequence[str], keys: Path, *, keysync: bool = True
) -> Iterator[Machine]:
    """A fresh machine that is off; what it was given and what runs in it is gone at the end."""
    keys.mkdir()
    with disk_over(rootfs) as root, contextlib.closing(Network()) as network:
        machine = Machine(root, network, binds, keys)
        machine.chroot("useradd", "-m", "-p", "*", "-s", "/bin/bash", USER)
        # The platform's way (a link that root made), and one that only sshd knows.
        machine.path("/home_ssh/root/.ssh").mkdir(parents=True, mode=0o700)
        machine.chroot("rm", "-rf", "/root/.ssh")
        machine.path("/root/.ssh").symlink_to("/home_ssh/root/.ssh")
        own_place = f"Match User {USER}\n    AuthorizedKeysFile .config/keys\n"
        machine.write(SSHD_CONFIG, own_place)
        if keysync:
            machine.place_keysync()
        try:
            yield machine
        except BaseException:
            sys.stderr.write(machine.last_words())  # pytest shows it with the failure
            raise
        finally:
            machine.power_off()
