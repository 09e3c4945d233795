"""Which files are served, as sshd really reads them: moved, retired, found by `targets: auto`."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance, KeyPair
from sandbox.users import temporary_user
from tests.e2e.support import TAG, MachinesSshd, World, make_world
from tests.support.own_mounts import in_own_mounts, mount

_ROOT = "needs root: it makes users, mounts and key files of theirs"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=_ROOT)


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as running:
        yield running


@pytest.fixture
def user() -> Iterator[str]:
    with temporary_user() as name:
        yield name


@pytest.fixture
def keys() -> Iterator[Path]:
    """As /etc/ssh/keys: on a path that StrictModes accepts, outside of every home."""
    with tempfile.TemporaryDirectory(prefix="keysync-test-", dir="/etc") as made:
        Path(made).chmod(0o755)
        yield Path(made)


# ---- before the first login since the boot (incident 13) ----


@needs_root
def test_a_key_gets_in_before_the_first_login_since_the_boot(
    user: str, console: Console, tmp_path: Path
) -> None:
    """Incident 13: sshd is started by a socket, so nobody has made /run/sshd, without which
    `sshd -T` fails. The key goes into the file that sshd reads, and out of it again.
    """
    home = Path(pwd.getpwnam(user).pw_dir)
    reads = home / "elsewhere" / "keys"
    reads.parent.mkdir(mode=0o700)
    shutil.chown(reads.parent, user, user)

    def work() -> None:
        MachinesSshd(tmp_path).reads("elsewhere/keys")
        mount("-t", "tmpfs", "tmpfs", "/run")
        world = make_world(instance, console, tmp_path, targets=f"[{{user: {user}}}]")
        stays, goes = (instance.keygen(name) for name in ("stays", "goes"))
        console.add_key(stays.public_line)
        key_id = console.add_key(goes.public_line)
        world.sync()
        assert Path("/run/sshd").is_dir()
        assert len(reads.read_bytes().splitlines()) == 2
        assert world.lets_in(goes)
        console.delete_key(key_id)
        world.sync()
        assert not world.lets_in(goes)
        assert world.lets_in(stays)

    with Instance(user, str(reads)) as instance:  # its sshd needs the directory that is there
        in_own_mounts(work)


# ---- a path that is given, and the user's other files (incident 11) ----


@needs_root
def test_a_restriction_in_a_file_that_is_no_target_holds(
    user: str, console: Console, tmp_path: Path
) -> None:
    """R4, incident 11: the target names authorized_keys2, and the owner has restricted the key in
    authorized_keys. Where sshd reads that no more, it keeps no listed key out.
    """

    def work() -> None:
        sshd = MachinesSshd(tmp_path)
        sshd.reads(".ssh/authorized_keys .ssh/authorized_keys2")
        with Instance(user, ".ssh/authorized_keys2") as instance:
            named = f"{{user: {user}, path: {instance.authorized_keys}}}"
            world = make_world(instance, console, tmp_path, targets=f"[{named}]")
            stays, limited = (instance.keygen(name) for name in ("stays", "limited"))
            instance.authorize(f"{limited.public_line} {TAG.decode()}")
            own = instance.authorized_keys.with_name("authorized_keys")
            own.write_text(f'restrict,command="echo limited" {limited.public_line}\n')
            own.chmod(0o600)
            shutil.chown(own, user, user)
            before = own.read_bytes(), own.stat().st_ino
            for key in (stays, limited):
                console.add_key(key.public_line)
            for _ in range(2):
                world.sync()
                assert [world.lets_in(key) for key in (stays, limited)] == [True, False]
            assert (own.read_bytes(), own.stat().st_ino) == before
            sshd.reads(".ssh/authorized_keys2")
            world.sync()
            assert world.lets_in(limited)

    in_own_mounts(work)


# ---- the file that sshd reads (incident 7) ----


@needs_root
def test_an_sshd_that_cannot_be_asked_is_told_and_revocations_go_on(
    user: str, keys: Path, console: Console, tmp_path: Path
) -> None:
    """Incident 7: nobody calls a file right that sshd may not read; the one that it was known to
    read still loses deleted keys (R5), and gets the new ones once sshd answers again.
    """

    def work() -> None:
        sshd = MachinesSshd(tmp_path)
        sshd.reads(f"{keys}/%u")
        with Instance(user, str(keys / user)) as instance:
            world = make_world(instance, console, tmp_path, targets=f"[{{user: {user}}}]")
            stays, goes, new = (instance.keygen(name) for name in ("stays", "goes", "new"))
            console.add_key(stays.public_line)
            key_id = console.add_key(goes.public_line)
            world.sync()
            assert world.lets_in(goes)
            sshd.breaks(f"{keys}/%u")
            console.delete_key(key_id)
            console.add_key(new.public_line)
            _, events = world.sync_and_log(exits=74)
            assert [world.lets_in(key) for key in (stays, goes, new)] == [True, False, False]
            [told] = [event for event in events if event["event"] == "target.defaulted"]
            assert "sshd -T failed" in told["reason"]
            verdict = world.verdict(exits=74)
            assert f"It is uncertain which key file sshd reads for {user}" in verdict
            sshd.reads(f"{keys}/%u")
            world.sync()
            assert [world.lets_in(key) for key in (stays, goes, new)] == [True, False, True]
            world.status()

    in_own_mounts(work)


@needs_root
@pytest.mark.parametrize("change", ["breaks", "reads"])
def test_with_auto_a_deleted_key_is_out_of_the_file_that_sshd_goes_on_reading(
    user: str, keys: Path, console: Console, tmp_path: Path, change: str
) -> None:
    """R5, incident 7: while the configuration of sshd has an error, and when it names another file,
    an sshd that runs still lets in whoever stands in the old one. It is retired, and named.
    """
    files = [str(keys / "root"), str(keys / user)]

    def work() -> None:
        sshd = MachinesSshd(tmp_path)
        sshd.reads(f"{keys}/%u")
        with own_homes(tmp_path, user), Instance(user, files[1]) as instance:
            world = make_world(instance, console, tmp_path, targets="auto")
            stays, goes = (instance.keygen(name) for name in ("stays", "goes"))
            console.add_key(stays.public_line)
            key_id = console.add_key(goes.public_line)
            instance.authorize(goes.public_line)
            world.sync()
            assert [world.lets_in(key) for key in (stays, goes)] == [True, True]
            if change == "breaks":
                sshd.breaks(f"{keys}/%u")
            else:
                sshd.reads("elsewhere")
            console.delete_key(key_id)
            code = 74 if change == "breaks" else 0
            _, events = world.sync_and_log(exits=code)
            assert [world.lets_in(key) for key in (stays, goes)] == [True, False]
            assert goes.public_line.split()[1] not in Path(files[0]).read_text()
            assert [e["path"] for e in events if e["event"] == "target.retired"] == files
            assert [one["path"] for one in world.status(exits=code)["retired"]] == files
            sshd.reads(f"{keys}/%u")
            world.sync()
            assert not {*files} & {one["path"] for one in world.status()["retired"]}

    in_own_mounts(work)


@needs_root
def test_the_only_key_stays_where_sshd_was_known_to_read(
    user: str, keys: Path, console: Console, tmp_path: Path
) -> None:
    """G3, incident 7: a new key in a file that sshd perhaps does not read is no way in, so an edit
    of the only key is held, and applied once sshd answers again.
    """

    def work() -> None:
        sshd = MachinesSshd(tmp_path)
        sshd.reads(f"{keys}/%u")
        with Instance(user, str(keys / user)) as instance:
            world = make_world(instance, console, tmp_path, targets=f"[{{user: {user}}}]")
            old, new = (instance.keygen(name) for name in ("old", "new"))
            key_id = console.add_key(old.public_line)
            world.sync()
            sshd.breaks(f"{keys}/%u")
            console.edit_key(key_id, new.public_line)
            world.sync(exits=3)
            assert [world.lets_in(key) for key in (old, new)] == [True, False]
            sshd.reads(f"{keys}/%u")
            world.sync()
            assert [world.lets_in(key) for key in (old, new)] == [False, True]

    in_own_mounts(work)


@needs_root
def test_without_its_path_a_target_is_where_sshd_reads(
    user: str, keys: Path, console: Console, tmp_path: Path
) -> None:
    """Incident 7: a path that was taken out of the configuration is not remembered as sshd's."""

    def work() -> None:
        MachinesSshd(tmp_path).reads(f"{keys}/%u")
        with (
            Instance(user, ".ssh/authorized_keys") as earlier,
            Instance(user, str(keys / user)) as instance,
        ):
            path = earlier.authorized_keys
            targets = f"[{{user: {user}, path: {path}}}]"
            world = make_world(instance, console, tmp_path, targets=targets)
            stays, goes = (instance.keygen(name) for name in ("stays", "goes"))
            console.add_key(stays.public_line)
            key_id = console.add_key(goes.public_line)
            world.sync()
            assert earlier.can_log_in(goes.private_path)
            assert not world.lets_in(stays)
            make_world(instance, console, tmp_path, targets=f"[{{user: {user}}}]")
            world.sync()
            assert world.lets_in(stays)
            assert world.lets_in(goes)
            console.delete_key(key_id)
            world.sync()
            assert not world.lets_in(goes)
            assert not earlier.can_log_in(goes.private_path)  # R5: retired, not forgotten
            assert world.status()["retired"][0]["path"] == str(path)

    in_own_mounts(work)


@needs_root
def test_a_home_that_moved_is_followed(user: str, console: Console, tmp_path: Path) -> None:
    """Incident 7: after `usermod -d` the file in the new home gets the keys."""
    earlier = Path(pwd.getpwnam(user).pw_dir)
    home = earlier.with_name(f"{user}-moved")
    with Instance(user, ".ssh/authorized_keys") as instance:
        world = make_world(instance, console, tmp_path, targets=f"[{{user: {user}}}]")
        key = instance.keygen("key")
        console.add_key(key.public_line)
        world.sync()
        assert world.lets_in(key)
        secret = shutil.copy(key.private_path, tmp_path / "key")
    shutil.copytree(earlier, home, ignore=lambda *_: [".ssh"])
    home.chmod(0o700)
    shutil.chown(home, user, user)
    subprocess.run(["usermod", "-d", str(home), user], check=True)
    try:
        with Instance(user, ".ssh/authorized_keys") as instance:
            assert instance.authorized_keys.is_relative_to(home)
            instance.authorize()
            assert not instance.can_log_in(Path(secret))
            world.sync()
            assert instance.can_log_in(Path(secret))
    finally:
        subprocess.run(["usermod", "-d", str(earlier), user], check=True)
        shutil.rmtree(home)


# ---- a target that is taken out of the configuration (incident 9) ----


def test_a_retired_target_loses_deleted_keys_until_it_is_forgotten(
    instance: Instance, console: Console, tmp_path: Path
) -> None:
    """R5, incident 9: nothing new enters, deleted keys go, and `forget` ends that."""
    with Instance(instance.user) as retired:
        instance.authorize()
        own = f"{{user: {instance.user}, path: {instance.authorized_keys}}}"
        other = f"{{user: {instance.user}, path: {retired.authorized_keys}}}"
        world = make_world(instance, console, tmp_path, targets=f"[{own}, {other}]")
        stays, first, second, new = (instance.keygen(f"retired-{name}") for name in "sabn")
        ids = [console.add_key(key.public_line) for key in (stays, first, second)]
        world.sync()
        assert retired.can_log_in(first.private_path)
        make_world(instance, console, tmp_path, targets=f"[{own}]")
        console.delete_key(ids[1])
        console.add_key(new.public_line)
        _, events = world.sync_and_log()
        assert [e["path"] for e in events if e["event"] == "target.retired"] == [
            str(retired.authorized_keys)
        ]
        assert world.lets_in(new)
        lets_in = [retired.can_log_in(key.private_path) for key in (stays, first, second, new)]
        assert lets_in == [True, False, True, False]
        assert "is no longer a target" in world.verdict(exits=0)
        world.keysync("forget", str(retired.authorized_keys))
        console.delete_key(ids[2])
        world.sync()
        assert not world.lets_in(second)
        assert retired.can_log_in(second.private_path)
        assert TAG not in retired.authorized_keys.read_bytes()
        assert world.status()["retired"] == []


def own_etc(scratch: Path) -> None:
    """/etc as only this test changes it: what is written there goes elsewhere."""
    upper = scratch / "etc"
    upper.mkdir()
    mount("-t", "tmpfs", "-o", "mode=755", "keysync-test", str(upper))
    for name in ("upper", "work"):
        (upper / name).mkdir(mode=0o755)
    layers = f"lowerdir=/etc,upperdir={upper}/upper,workdir={upper}/work"
    mount("-t", "overlay", "-o", layers, "keysync-test", "/etc")


@contextlib.contextmanager
def unknown(user: str) -> Iterator[None]:
    """As when a directory service does not answer: nobody finds such a user."""
    accounts = Path("/etc/passwd")
    text = accounts.read_text()
    others = [line for line in text.splitlines(keepends=True) if not line.startswith(f"{user}:")]
    accounts.write_text("".join(others))
    try:
        yield
    finally:
        accounts.write_text(text)


@needs_root
def test_a_user_who_was_not_found_once_is_not_forgotten(
    user: str, console: Console, tmp_path: Path
) -> None:
    """R5, incident 9: when the user is taken out later, deleted keys still leave the file. While
    the user is not found that is a failure which says how to end it.
    """
    root = f"{{user: root, path: {tmp_path}/root}}"

    def work() -> None:
        own_etc(tmp_path)
        MachinesSshd(tmp_path).reads(".ssh/authorized_keys")
        with Instance(user, ".ssh/authorized_keys") as instance:
            world = make_world(instance, console, tmp_path, f"[{root}, {{user: {user}}}]")
            path = str(instance.authorized_keys)
            stays, first, second = (instance.keygen(name) for name in ("s", "a", "b"))
            console.add_key(stays.public_line)
            ids = [console.add_key(key.public_line) for key in (first, second)]
            world.sync()
            with unknown(user):
                _, events = world.sync_and_log(exits=74)
                assert "target.retired" not in [event["event"] for event in events]
                assert "is still a target" in world.keysync("forget", path, exits=2).stderr
            make_world(instance, console, tmp_path, f"[{root}]")
            console.delete_key(ids[0])
            _, events = world.sync_and_log()
            assert [e["path"] for e in events if e["event"] == "target.retired"] == [path]
            assert [world.lets_in(key) for key in (stays, first, second)] == [True, False, True]
            console.delete_key(ids[1])
            with unknown(user):
                error = world.sync(exits=74)["error"]
                assert error["kind"] == "unknown_user"
                assert error["hint"].endswith(f"keysync forget {path}")
                assert f"forget {path}" in world.verdict(exits=74)
            world.sync()
            assert [world.lets_in(key) for key in (stays, second)] == [True, False]
            with unknown(user):
                world.keysync("forget", path)
                world.sync()

    in_own_mounts(work)


# ---- the platform's own propagation (incident 33) ----


@contextlib.contextmanager
def own_homes(scratch: Path, user: str) -> Iterator[None]:
    """/root and /home as only this test sees them: an empty /root/.ssh, and one user's empty home.

    What is written into /root goes elsewhere; the rest of it may hold the Python that runs.
    """
    upper = scratch / "homes"
    upper.mkdir()
    mount("-t", "tmpfs", "-o", "mode=755", "keysync-test", str(upper))
    for name in ("upper", "work"):
        (upper / name).mkdir(mode=0o700)
    layers = f"lowerdir=/root,upperdir={upper}/upper,workdir={upper}/work"
    mount("-t", "overlay", "-o", layers, "keysync-test", "/root")
    Path("/root/.ssh").mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=700", "keysync-test", "/root/.ssh")
    mount("-t", "tmpfs", "-o", "mode=755", "keysync-test", "/home")
    home = Path(pwd.getpwnam(user).pw_dir)
    home.mkdir(mode=0o700)
    shutil.chown(home, user, user)
    yield


def propagate(root: Path, instance: Instance) -> None:
    """As the platform's boot script: each of root's lines, tag included, that is not there yet."""
    there = instance.authorized_keys.read_text().splitlines()
    instance.authorize(*there, *(x for x in root.read_text().splitlines() if x not in there))


@needs_root
@pytest.mark.parametrize("by", ["default", "auto"])
def test_a_deleted_key_is_out_of_the_accounts_that_the_platform_copied_it_to(
    user: str, console: Console, tmp_path: Path, by: str
) -> None:
    """R2, R5, incident 33: with the default configuration, also when it is copied once more."""
    real = Path("/root/.ssh").exists() and sorted(os.listdir("/root/.ssh"))

    def work() -> None:
        with own_homes(tmp_path, user), Instance(user, ".ssh/authorized_keys") as instance:
            world = make_world(instance, console, tmp_path, targets="auto")
            if by == "default":
                text = world.config.read_text().replace("targets: auto\n", "")
                world.config.write_text(text)
            follow(world, console)

    in_own_mounts(work)
    assert real == (Path("/root/.ssh").exists() and sorted(os.listdir("/root/.ssh")))


def follow(world: World, console: Console) -> None:
    root, instance = Path("/root/.ssh/authorized_keys"), world.instance
    stays, goes, own = (instance.keygen(name) for name in ("stays", "goes", "own"))
    instance.authorize(own.public_line)
    console.add_key(stays.public_line)
    key_id = console.add_key(goes.public_line)
    world.sync()
    assert [world.lets_in(key) for key in (stays, goes, own)] == [False, False, True]
    as_of_then = root.read_text().splitlines()
    propagate(root, instance)
    assert [world.lets_in(key) for key in (stays, goes, own)] == [True, True, True]
    console.delete_key(key_id)
    _, events = world.sync_and_log()
    assert [world.lets_in(key) for key in (stays, goes, own)] == [True, False, True]
    assert [e["user"] for e in events if e["event"] == "target.discovered"] == [instance.user]
    targets = {(target["user"], target["origin"]) for target in world.status()["targets"]}
    assert targets == {("root", "auto"), (instance.user, "auto")}
    # An image or a second boot brings back what was there: with the tag, or without it.
    for line in (as_of_then[1], goes.public_line):
        instance.authorize(own.public_line, line)
        assert world.lets_in(goes)
        world.sync()
        assert [world.lets_in(key) for key in (goes, own)] == [False, True]


def with_two_listed_keys(
    user: str,
    console: Console,
    tmp_path: Path,
    story: Callable[[World, KeyPair, KeyPair, int], None],
) -> None:
    """Tells `story` of a world with targets: auto; its keys are listed, the second by this id."""

    def work() -> None:
        with own_homes(tmp_path, user), Instance(user, ".ssh/authorized_keys") as instance:
            world = make_world(instance, console, tmp_path, targets="auto")
            stays, goes = (instance.keygen(name) for name in ("stays", "goes"))
            console.add_key(stays.public_line)
            story(world, stays, goes, console.add_key(goes.public_line))

    in_own_mounts(work)


@needs_root
def test_a_deleted_key_in_another_spelling_is_out_of_every_account(
    user: str, console: Console, tmp_path: Path
) -> None:
    """R5: what a real sshd reads as the key finds its account, however it is written."""

    def story(world: World, stays: KeyPair, goes: KeyPair, key_id: int) -> None:
        instance = world.instance
        world.sync()
        console.delete_key(key_id)
        world.sync()
        instance.authorize()
        for byte in (b"\r", b"\v", b"\f"):
            line = goes.public_line.encode()
            instance.authorized_keys.write_bytes(line[:40] + byte + line[40:] + b"\n")
            assert world.lets_in(goes)
            world.sync()
            assert [world.lets_in(key) for key in (stays, goes)] == [True, False]
            instance.authorize()
            world.sync()  # its account is no longer a target

    with_two_listed_keys(user, console, tmp_path, story)


@needs_root
def test_an_account_whose_file_cannot_be_searched_is_named(
    user: str, console: Console, tmp_path: Path
) -> None:
    """R5, G12: a link may lead to a deleted key. It is a warning, logged once, and no failure."""

    def story(world: World, _: KeyPair, goes: KeyPair, key_id: int) -> None:
        instance = world.instance
        instance.authorize(goes.public_line)
        path = instance.authorized_keys
        path.rename(path.with_name("dotfile"))
        path.symlink_to("dotfile")
        assert world.lets_in(goes)
        skips = [world.sync_and_log()[1] for _ in range(2)]
        names = [[e["user"] for e in one if e["event"] == "account.skipped"] for one in skips]
        assert names == [[user], []]
        console.delete_key(key_id)
        world.sync()
        assert f"a file of {user}, who is no target, may hold a deleted key" in world.verdict(
            exits=0
        )
        [skipped] = world.status()["skipped"]
        assert (skipped["path"], skipped["error"]["kind"]) == (str(path), "not_a_file")
        path.with_name("dotfile").rename(path)
        world.sync()
        assert not world.lets_in(goes)
        assert world.status()["skipped"] == []

    with_two_listed_keys(user, console, tmp_path, story)
