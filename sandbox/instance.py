"""An instance: a real sshd on loopback for one user, and real `ssh` logins to it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sandbox.daemon import SshDaemon
from sandbox.users import current_user, is_locked, temporary_user

_ECHOED = "in"
_SSH_FAILED = 255
_SSH_SECONDS = 30
# What sshd logs when no key at all could log in: a refusal for such a cause says nothing of a key.
_BROKEN = (
    "bad ownership or modes",
    "not allowed because",
    "Could not open",
    "is not a regular file",
)
_LOCKED_HINT = "sshd without PAM refuses every key for it; use temporary_user()"


class InstanceError(RuntimeError):
    """A login failed, or worked, in a way that says nothing about the key."""


class LoginRefused(InstanceError):
    """sshd answered and refused the key."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key made by ssh-keygen: where its private half is, and its public half as one line."""

    private_path: Path
    public_line: str
    fingerprint: str


class Instance:
    """A context manager for a real sshd on 127.0.0.1 that lets one user in by key only.

    `user` defaults to the current one, or to a temporary one when that is locked and we are root.
    `authorized_keys_file` defaults to a file in a fresh directory under the user's home (sshd's
    StrictModes refuses anything under /tmp); a given one may be relative to the home directory,
    is neither made nor removed, and is what a test passes to use a user's real file.
    `sshd_options` are more lines of sshd_config(5).
    """

    def __init__(
        self,
        user: str | None = None,
        authorized_keys_file: str | None = None,
        sshd_options: tuple[str, ...] = (),
    ) -> None:
        self._wanted_user = user
        self._wanted_file = authorized_keys_file
        self._sshd_options = sshd_options
        self._stack = ExitStack()

    def __enter__(self) -> "Instance":
        """Make the directories and start sshd, which answers when this returns."""
        with ExitStack() as stack:
            self.user = self._wanted_user or _default_user(stack)
            self._check_user()
            self._home = Path(pwd.getpwnam(self.user).pw_dir)
            self._directory = Path(stack.enter_context(_directory(None)))
            (self._directory / "keys").mkdir()
            self.authorized_keys = self._authorized_keys(stack)
            self._daemon = stack.enter_context(
                SshDaemon(self._directory, self.user, self.authorized_keys, self._sshd_options)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End sshd with its sessions, then remove the directories and the temporary user."""
        self._stack.close()

    @property
    def host(self) -> str:
        """The address sshd listens on."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port sshd listens on."""
        return self._daemon.port

    def log(self) -> str:
        """Everything sshd said so far (LogLevel VERBOSE)."""
        return self._daemon.log()

    def authorize(self, *lines: str) -> None:
        """Replace the keys file by these lines, owned and closed as StrictModes wants it.

        A missing directory of the file is made too (sshd(8), FILES: ~/.ssh and authorized_keys).
        """
        path = self.authorized_keys
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700)
            shutil.chown(path.parent, self.user)
        path.write_text("".join(f"{line}\n" for line in lines))
        path.chmod(0o600)
        shutil.chown(path, self.user)

    def keygen(
        self,
        name: str,
        *,
        key_type: str = "ed25519",
        bits: int | None = None,
        comment: str | None = None,
    ) -> KeyPair:
        """Make a key without a passphrase; the comment is the name unless given (ssh-keygen(1))."""
        private = self._directory / "keys" / name
        if private.exists():
            raise InstanceError(f"a key named {name!r} exists already")
        size = [] if bits is None else ["-b", str(bits)]
        label = name if comment is None else comment
        _keygen("-q", "-t", key_type, *size, "-N", "", "-C", label, "-f", str(private))
        public = private.with_name(f"{name}.pub")
        fingerprint = _keygen("-l", "-f", str(public)).split()[1]
        return KeyPair(private, public.read_text().rstrip(), fingerprint)

    def can_log_in(self, private_key_path: Path) -> bool:
        """Whether sshd lets the key in and a harmless command runs.

        Raises `InstanceError` when ssh failed for any other reason than a refused key, when sshd
        would have refused every key (modes, a locked account), or when a forced command answered.
        """
        try:
            output = self.run(private_key_path, f"echo {_ECHOED}")
        except LoginRefused:
            return False
        if _ECHOED not in output.split("\n"):
            raise InstanceError(f"logged in, but something else than `echo` answered: {output!r}")
        return True

    def run(self, private_key_path: Path, command: str) -> str:
        """Log in with this key only, run a command and return its standard output.

        Raises `LoginRefused` when sshd refuses the key, `InstanceError` for anything else.
        """
        logged = len(self.log())
        try:
            done = subprocess.run(
                self._ssh(private_key_path, command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=_SSH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InstanceError(f"ssh gave no answer in {_SSH_SECONDS} s") from None
        if done.returncode != 0:
            raise self._failure(done, self.log()[logged:])
        return done.stdout

    def _ssh(self, private_key_path: Path, command: str) -> list[str]:
        options = (
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "PreferredAuthentications=publickey",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self._daemon.known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "ConnectTimeout=10",
            "LogLevel=ERROR",
        )
        flags = [part for option in options for part in ("-o", option)]
        where = ["-i", str(private_key_path), "-p", str(self.port), f"{self.user}@{self.host}"]
        return ["ssh", "-F", "none", "-T", *flags, *where, "--", command]

    def _failure(self, done: "subprocess.CompletedProcess[str]", logged: str) -> InstanceError:
        said = done.stderr.strip()
        if done.returncode != _SSH_FAILED:
            return InstanceError(f"the command ended with {done.returncode}: {said}")
        if broken := [line for line in logged.split("\n") if any(why in line for why in _BROKEN)]:
            return InstanceError(f"sshd would refuse every key: {broken[0].strip()}")
        if "Permission denied (" not in said or "Failed publickey" not in logged:
            return InstanceError(f"ssh failed: {said or 'without a word'}; sshd said:\n{logged}")
        return LoginRefused(said)

    def _authorized_keys(self, stack: ExitStack) -> Path:
        if self._wanted_file is not None:
            return self._home / self._wanted_file
        directory = Path(stack.enter_context(_directory(self._home)))
        shutil.chown(directory, self.user)
        return directory / "authorized_keys"

    def _check_user(self) -> None:
        if os.geteuid() != 0 and self.user != current_user():
            raise InstanceError(f"only root can let {self.user} log in; this is {current_user()}")
        if is_locked(self.user):
            raise InstanceError(
                f"{self.user} is locked (`!` in the password field): {_LOCKED_HINT}"
            )


def _default_user(stack: ExitStack) -> str:
    user = current_user()
    if os.geteuid() == 0 and is_locked(user):
        return stack.enter_context(temporary_user())
    return user


def _directory(parent: Path | None) -> "tempfile.TemporaryDirectory[str]":
    prefix = ".keysync-sandbox-" if parent else "keysync-sandbox-"
    return tempfile.TemporaryDirectory(prefix=prefix, dir=parent)


def _keygen(*arguments: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise InstanceError(f"ssh-keygen failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape")
