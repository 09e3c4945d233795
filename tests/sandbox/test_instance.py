"""The local instance is a real sshd: what it accepts and refuses is sshd's own word."""

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.daemon import SshdError
from sandbox.instance import Instance, InstanceError, KeyPair, LoginRefused
from sandbox.users import UserError, current_user, is_locked, temporary_user

AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as running:
        yield running


@pytest.fixture(scope="module")
def key(instance: Instance) -> KeyPair:
    return instance.keygen("key")


@pytest.fixture(scope="module")
def other(instance: Instance) -> KeyPair:
    return instance.keygen("other")


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


# Logging in


def test_an_authorized_key_gets_in_and_another_does_not(
    instance: Instance, key: KeyPair, other: KeyPair
) -> None:
    """The real sshd accepts exactly the keys of the file, and reads it anew at each login."""
    instance.authorize(key.public_line)
    assert instance.can_log_in(key.private_path)
    assert not instance.can_log_in(other.private_path)
    instance.authorize(other.public_line)
    assert not instance.can_log_in(key.private_path)
    assert instance.can_log_in(other.private_path)


def test_no_file_refuses_everybody(instance: Instance, key: KeyPair) -> None:
    """Without a keys file a login is refused, which is no error."""
    instance.authorized_keys.unlink(missing_ok=True)
    assert not instance.can_log_in(key.private_path)


def test_the_login_is_the_users(instance: Instance, key: KeyPair) -> None:
    """A command runs as the user, and its output comes back whole."""
    instance.authorize(key.public_line)
    assert instance.run(key.private_path, "id -un; echo two").split() == [instance.user, "two"]


def test_a_refused_command(instance: Instance, key: KeyPair) -> None:
    """`run` with a key that sshd refuses raises an error of its own."""
    instance.authorize()
    with pytest.raises(LoginRefused, match="Permission denied"):
        instance.run(key.private_path, "true")


def test_a_failing_command_is_no_refusal(instance: Instance, key: KeyPair) -> None:
    """A command's own failure is an error with its status, never a refused login."""
    instance.authorize(key.public_line)
    with pytest.raises(InstanceError, match="ended with 3") as caught:
        instance.run(key.private_path, "exit 3")
    assert not isinstance(caught.value, LoginRefused)


def test_a_forced_command_answers_instead(instance: Instance, key: KeyPair) -> None:
    """`command=` replaces what was asked for; `can_log_in` says so instead of yes or no."""
    instance.authorize(f'restrict,command="echo only this" {key.public_line}')
    assert instance.run(key.private_path, "id") == "only this\n"
    with pytest.raises(InstanceError, match="only this"):
        instance.can_log_in(key.private_path)


def test_a_from_option_refuses(instance: Instance, key: KeyPair) -> None:
    """A line whose `from=` does not match the client is a refusal like any other."""
    instance.authorize(f'from="192.0.2.1" {key.public_line}')
    assert not instance.can_log_in(key.private_path)
    instance.authorize(f'from="127.0.0.1" {key.public_line}')
    assert instance.can_log_in(key.private_path)


@pytest.mark.parametrize(
    ("key_type", "bits"), [("ed25519", None), ("ecdsa", 256), ("ecdsa", 521), ("rsa", 2048)]
)
def test_key_types(instance: Instance, key_type: str, bits: int | None) -> None:
    """Keys of every sort that ssh-keygen makes without hardware log in; sshd logs the same
    fingerprint that the pair carries.
    """
    pair = instance.keygen(f"{key_type}-{bits}", key_type=key_type, bits=bits, comment="a comment")
    assert pair.public_line.endswith(" a comment")
    assert pair.fingerprint.startswith("SHA256:")
    instance.authorize(pair.public_line)
    assert instance.can_log_in(pair.private_path)
    assert pair.fingerprint in instance.log()


def test_a_name_is_used_once(instance: Instance, key: KeyPair) -> None:
    """A second key with the same name is an error, the first stays as it was."""
    with pytest.raises(InstanceError, match="exists already"):
        instance.keygen("key")
    assert instance.keygen("plain", comment="").public_line.count(" ") == 1


# What says nothing about a key


def spoil_mode(path: Path) -> None:
    path.chmod(0o666)


def spoil_directory(path: Path) -> None:
    path.parent.chmod(0o777)


def spoil_kind(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_directory, spoil_kind])
def test_what_refuses_every_key_is_an_error(spoil: Callable[[Path], None]) -> None:
    """Where StrictModes or a strange file would refuse every key, a refusal proves nothing."""
    with Instance() as instance:
        key = instance.keygen("key")
        instance.authorize(key.public_line)
        assert instance.can_log_in(key.private_path)
        spoil(instance.authorized_keys)
        with pytest.raises(InstanceError, match="refuse every key") as caught:
            instance.can_log_in(key.private_path)
        assert not isinstance(caught.value, LoginRefused)


@pytest.mark.parametrize("content", [None, "", "no key at all"])
def test_a_bad_private_key_is_an_error(
    instance: Instance, key: KeyPair, tmp_path: Path, content: str | None
) -> None:
    """A private key that is missing or unreadable is an error: sshd was never asked."""
    instance.authorize(key.public_line)
    private = tmp_path / "private"
    if content is not None:
        private.write_text(content)
        private.chmod(0o600)
    with pytest.raises(InstanceError, match="ssh failed") as caught:
        instance.can_log_in(private)
    assert not isinstance(caught.value, LoginRefused)


def test_a_dead_sshd_is_an_error(key: KeyPair) -> None:
    """When nobody answers, `can_log_in` raises instead of saying no."""
    with Instance() as gone:
        assert accepts(gone.port)
    with pytest.raises(InstanceError, match="Connection refused") as caught:
        gone.can_log_in(key.private_path)
    assert not isinstance(caught.value, LoginRefused)


def test_only_its_own_key_is_offered(instance: Instance, key: KeyPair, other: KeyPair) -> None:
    """`ssh` offers the named key alone: one attempt per login in sshd's log."""
    instance.authorize(key.public_line)
    logged = len(instance.log())
    assert not instance.can_log_in(other.private_path)
    assert instance.log()[logged:].count("Failed publickey") == 1


# Users and files


def test_the_users_own_file_is_not_touched() -> None:
    """By default the keys file is a new one, away from the user's `.ssh`."""
    with Instance() as instance:
        home = Path(pwd.getpwnam(instance.user).pw_dir)
        assert instance.authorized_keys.is_relative_to(home)
        assert not instance.authorized_keys.is_relative_to(home / ".ssh")


@pytest.mark.skipif(not AS_ROOT, reason="only root makes users")
@pytest.mark.parametrize("absolute", [False, True])
def test_a_users_real_file(absolute: bool) -> None:
    """Another user's own `authorized_keys` can be the file, and is neither made nor removed."""
    with temporary_user() as user:
        real = Path(pwd.getpwnam(user).pw_dir) / ".ssh" / "authorized_keys"
        with Instance(user, str(real) if absolute else ".ssh/authorized_keys") as instance:
            assert instance.authorized_keys == real
            assert not real.parent.exists()
            key = instance.keygen("key")
            instance.authorize(key.public_line)
            assert instance.can_log_in(key.private_path)
            assert instance.run(key.private_path, "id -un").strip() == user
        assert (real.owner(), real.stat().st_mode & 0o777) == (user, 0o600)
        assert (real.parent.owner(), real.parent.stat().st_mode & 0o777) == (user, 0o700)


@pytest.mark.skipif(not AS_ROOT, reason="only root makes users")
def test_a_temporary_user_is_gone_with_its_processes() -> None:
    """A process that outlives its session does not keep the user, and its home is gone."""
    with temporary_user() as user:
        assert not is_locked(user)
        entry = pwd.getpwnam(user)
        with Instance(user) as instance:
            key = instance.keygen("key")
            instance.authorize(key.public_line)
            started = "setsid sleep 300 >/dev/null 2>&1 & echo $!"
            pid = int(instance.run(key.private_path, started))
        assert Path(f"/proc/{pid}").exists()
    with pytest.raises(KeyError):
        pwd.getpwnam(user)
    assert not Path(entry.pw_dir).exists()
    assert state_of(pid) in {"", "Z"}


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.skipif(not AS_ROOT, reason="only root may lock a user")
def test_a_locked_user_is_an_error() -> None:
    """As sshd without PAM refuses a user whose password is `!`, starting would be pointless."""
    with temporary_user() as user:
        subprocess.run(["/usr/sbin/usermod", "-L", user], check=True)
        assert is_locked(user)
        with pytest.raises(InstanceError, match="is locked"), Instance(user):
            pass


@pytest.mark.skipif(AS_ROOT, reason="root may let anybody log in")
def test_an_ordinary_user_serves_only_itself() -> None:
    """Without root there is no sshd for somebody else."""
    with pytest.raises(InstanceError, match="only root"), Instance("root"):
        pass


@pytest.mark.skipif(AS_ROOT, reason="root may make users")
def test_an_ordinary_user_makes_no_users() -> None:
    """Without root a temporary user is an error that says so."""
    with pytest.raises(UserError, match="only root"), temporary_user():
        pass


def test_the_default_user(instance: Instance) -> None:
    """The current user logs in, unless sshd would refuse it for being locked."""
    assert (instance.user == current_user()) is not is_locked(current_user())


# The end


def test_nothing_is_left() -> None:
    """After the end no listener, directory or key remains."""
    with Instance() as instance:
        assert accepts(instance.port)
        key = instance.keygen("key")
        instance.authorize(key.public_line)
        assert instance.can_log_in(key.private_path)
    assert_nothing_is_left(instance, key)


def test_nothing_is_left_when_the_body_raises() -> None:
    """A failing body leaves as little as a good one, and its error comes through."""
    made: list[tuple[Instance, KeyPair]] = []
    with pytest.raises(ZeroDivisionError):
        fail_inside(made)
    assert_nothing_is_left(*made[0])


def fail_inside(made: list[tuple[Instance, KeyPair]]) -> None:
    with Instance() as instance:
        made.append((instance, instance.keygen("key")))
        raise ZeroDivisionError


def assert_nothing_is_left(instance: Instance, key: KeyPair) -> None:
    assert not accepts(instance.port)
    assert not instance.authorized_keys.parent.exists()
    assert not key.private_path.parent.parent.exists()


@pytest.mark.parametrize("name", ['a "quoted" name', "a\nline: PermitRootLogin yes"])
def test_a_failed_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A path that sshd_config(5) cannot hold is an error, and the directories are gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SshdError, match="cannot hold"), Instance(None, name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_several_instances_at_once() -> None:
    """Two instances have their own ports, host keys and files."""
    with Instance() as one, Instance() as two:
        key = one.keygen("key")
        one.authorize(key.public_line)
        two.authorize()
        assert one.can_log_in(key.private_path)
        assert not two.can_log_in(key.private_path)
