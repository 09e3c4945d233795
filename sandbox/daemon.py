"""One sshd process on loopback: its configuration, its start, its end with all its sessions."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_SSHD = "/usr/sbin/sshd"
_START_SECONDS = 10.0
_END_SECONDS = 5.0
_PAUSE = 0.01
_ATTEMPTS = 5


class SshdError(RuntimeError):
    """sshd is missing or did not start; the message holds what it said."""


class SshDaemon:
    """A context manager for `sshd -D` (it must be started by its absolute path, sshd(8)).

    `directory` gets the host key, the configuration, the pid and the log; it must exist. `options`
    are more lines of sshd_config(5).
    """

    def __init__(
        self, directory: Path, user: str, authorized_keys: Path, options: tuple[str, ...] = ()
    ) -> None:
        self.port = 0
        self.known_hosts = directory / "known_hosts"
        self._directory = directory
        self._user = user
        self._authorized_keys = authorized_keys
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "SshDaemon":
        """Start sshd on a free port and wait for its banner (RFC 4253 §4.2)."""
        _prepare_machine()
        self._make_host_key()
        for _ in range(_ATTEMPTS):
            if self._started():
                return self
        raise SshdError(f"no free port in {_ATTEMPTS} attempts:\n{self.log()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the listener and every session it left."""
        self._stop()

    def log(self) -> str:
        """Everything sshd said so far."""
        path = self._directory / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _started(self) -> bool:
        """Start once; False when somebody else took the port in the meantime."""
        self.port = _free_port()
        self._write_configuration()
        with (self._directory / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [_SSHD, "-D", "-e", "-f", str(self._configuration), *self._newer_options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            return self._banner_seen(self._process)
        except BaseException:
            self._stop()
            raise

    @property
    def _configuration(self) -> Path:
        return self._directory / "sshd_config"

    @property
    def _host_key(self) -> Path:
        return self._directory / "host_key"

    def _write_configuration(self) -> None:
        lines = (
            f"ListenAddress 127.0.0.1:{self.port}",
            f"HostKey {_quoted(self._host_key)}",
            f"PidFile {_quoted(self._directory / 'sshd.pid')}",
            f"AuthorizedKeysFile {_quoted(self._authorized_keys).replace('%', '%%')}",
            f"AllowUsers {self._user}",
            "AuthenticationMethods publickey",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "StrictModes yes",
            "UsePAM no",
            "UseDNS no",
            "PrintMotd no",
            "MaxStartups 200",
            "LogLevel VERBOSE",
            *self._options,
        )
        self._configuration.write_text("".join(f"{line}\n" for line in lines))
        host_key = " ".join(self._host_key.with_suffix(".pub").read_text().split()[:2])
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host_key}\n")

    def _newer_options(self) -> list[str]:
        """Exempt loopback from the penalties of OpenSSH 9.8 where they exist (sshd_config(5)).

        Every refused login of a test would count as an attack, and the fourth find a shut door.
        """
        option = ["-o", "PerSourcePenaltyExemptList=127.0.0.1"]
        tried = subprocess.run(
            [_SSHD, "-t", "-f", str(self._configuration), *option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return option if tried.returncode == 0 else []

    def _make_host_key(self) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._host_key)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)

    def _banner_seen(self, process: "subprocess.Popen[bytes]") -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None:
            if _answers(self.port):
                return True
            if time.monotonic() >= deadline:
                raise SshdError(f"sshd did not answer in {_START_SECONDS:g} s:\n{self.log()}")
            time.sleep(_PAUSE)
        if "Address already in use" in self.log():
            return False
        raise SshdError(f"sshd ended with {process.returncode}:\n{self.log()}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        sessions = _descendants(process.pid)
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end(sessions)


def _prepare_machine() -> None:
    if not Path(_SSHD).exists():
        raise SshdError(
            f"{_SSHD} is missing: apt-get install --no-install-recommends openssh-server"
        )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)


def _quoted(path: Path) -> str:
    """A path as one argument of sshd_config(5), which takes no quotes or newlines inside."""
    if any(character in str(path) for character in '"\n\r'):
        raise SshdError(f"sshd_config cannot hold this path: {str(path)!r}")
    return f'"{path}"'


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    parents = {int(path.name): _stat(int(path.name))[1] for path in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == str(known)]
    return found[1:]


def _end(pids: list[int]) -> None:
    deadline = time.monotonic() + _END_SECONDS
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for pid in filter(_runs, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        while time.monotonic() < deadline and any(map(_runs, pids)):
            time.sleep(_PAUSE)


def _runs(pid: int) -> bool:
    return _stat(pid)[0] not in ("", "Z")


def _stat(pid: int) -> tuple[str, str]:
    """State and parent of a process, empty when it is gone (proc(5), /proc/pid/stat)."""
    with suppress(OSError):
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return state, parent
    return "", ""
