"""One key file while others write it, and while its owner attacks (G7, G8): real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.files.key_file import KeyFile, Patience, Snapshot
from agent.errors import TargetFailed
from sandbox.console import Console
from sandbox.users import current_user
from tests.adapters.support import (
    KEY,
    MANAGED,
    SECRET,
    User,
    adding,
    finish,
    leftovers,
    needs_root,
    needs_strace,
    new_machine,
    python,
    target,
    update,
    without,
)
from tests.support.machine import REPOSITORY, Done, Machine, key_line

ME = Owner(os.geteuid(), os.getegid())
OURS = b"ssh-ed25519 AAAA ours"
ATTACK_SECONDS = 0.3  # at least; each attack goes on until some rounds met it and some got through
BRIEF = Patience(writers_seconds=0.4, update_seconds=0.6)


def rounds(path: Path, seconds: float) -> None:
    """Updates that add and take out a line of ours in turn, ending with it in."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        update(path, ME, without(OURS))
        update(path, ME, adding(OURS))


def brief_rounds(path: Path, seconds: float) -> None:
    """The same beside somebody who may be faster every time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for transform in (without(OURS), adding(OURS)):
            try:
                with KeyFile.opened(str(path), ME, for_writing=True, patience=BRIEF) as file:
                    file.update(transform)
            except TargetFailed as failure:
                if failure.kind != "keeps_changing":
                    raise


def check(path: Path, edits: int) -> None:
    """Every edit is there once, and so is our line; the file and its directory are tidy."""
    lines = path.read_bytes().split(b"\n")
    assert sorted(lines) == sorted(
        [*(b"line %d" % number for number in range(1, edits + 1)), OURS, b""]
    )
    assert path.stat().st_mode & 0o7777 == 0o600
    assert leftovers(path.parent) == []


# ---- others write the file ----

_SHELL = """
echo begun
number=0
while [ ! -e "$1.stop" ] && [ $number -lt 100000 ]; do
    number=$((number + 1))
    echo "line $number" >> "$1"
    {pause}
done
echo $number
"""


@pytest.mark.parametrize(
    ("pause", "update_rounds"),
    [("", brief_rounds), ("sleep 0.001", rounds), ("sleep 0.01", rounds)],
    ids=["without a pause", "busy", "calm"],
)
def test_no_line_appended_by_a_shell_is_lost(
    tmp_path: Path, pause: str, update_rounds: Callable[[Path, float], None]
) -> None:
    """G7: a shell that appends as fast as it can, a busy one and a calm one."""
    path = tmp_path / "ssh" / "authorized_keys"
    path.parent.mkdir()
    path.touch(mode=0o600)
    command = ["sh", "-c", _SHELL.format(pause=pause), "sh", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shell:
        try:
            assert shell.stdout is not None
            assert shell.stdout.readline() == "begun\n"
            update_rounds(path, 0.4)
        finally:
            (path.with_name("authorized_keys.stop")).touch()
            out, _ = shell.communicate(timeout=30)
    update(path, ME, adding(OURS))
    check(path, int(out))


_EDITOR = """
path, pause = sys.argv[1], float(sys.argv[2])
{save}
print("begun")
for number in itertools.count(1):
    with open(path, "rb") as file:
        data = file.read()
    save(data + b"line %d\\n" % number)
    if os.path.exists(path + ".stop"):
        break
    time.sleep(pause)
print(number)
"""
_BY_RENAME = """
def save(data):
    with open(path + ".swp", "wb") as file:
        file.write(data)
    os.chmod(path + ".swp", 0o600)
    os.rename(path + ".swp", path)
"""
_IN_PLACE = """
def save(data):
    with open(path, "wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        time.sleep(pause)
        file.write(data[len(data) // 2 :])
"""


@pytest.mark.parametrize(
    ("save", "pause"),
    [(_BY_RENAME, 0.02), (_BY_RENAME, 0.1), (_IN_PLACE, 0.02), (_IN_PLACE, 0.3)],
    ids=["rename, busy", "rename, calm", "in place, busy", "in place, slow"],
)
def test_no_edit_of_an_editor_is_lost(tmp_path: Path, save: str, pause: float) -> None:
    """G7: an editor that saves by rename, and one that truncates the file and writes it."""
    path = tmp_path / "ssh" / "authorized_keys"
    path.parent.mkdir()
    path.touch(mode=0o600)
    with python(_EDITOR.format(save=save), str(path), str(pause)) as editor:
        rounds(path, 0.3 + pause)
        path.with_name("authorized_keys.stop").touch()
        [edits] = finish(editor)
    update(path, ME, adding(OURS))  # the editor may have saved last, without having seen our line
    check(path, int(edits))


def test_a_writer_that_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    """G7: `curl … > authorized_keys` empties the file first and fills it when the answer comes."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"line 1\n")
    slow = (
        "file = open(sys.argv[1], 'wb'); print('open'); time.sleep(0.5); file.write(b'line 1\\n')"
    )
    with python(slow, str(path)) as writer:
        update(path, ME, adding(OURS))
        finish(writer)
    check(path, 1)


def test_a_writer_that_never_ends_is_waited_for_no_longer_than_some_seconds(tmp_path: Path) -> None:
    """G7 has a bound: who holds the file open for ever does not keep a revoked key alive."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"revoked\nline 1\n")
    with python(
        "file = open(sys.argv[1], 'ab'); print('open'); sys.stdin.read()", str(path)
    ) as writer:
        start = time.monotonic()
        with KeyFile.opened(str(path), ME, for_writing=True, patience=BRIEF) as file:
            file.update(without(b"revoked"), lambda _: None)
        assert BRIEF.writers_seconds <= time.monotonic() - start < 4
        assert path.read_bytes() == b"line 1\n"
        finish(writer)


def test_real_syncs_beside_a_shell_that_appends(machine: Machine, console: Console) -> None:
    """G7, R1, R2: whole `keysync` processes: keys follow the console, no line is lost."""
    path = machine.key_file
    command = ["sh", "-c", _SHELL.format(pause="sleep 0.002"), "sh", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shell:
        try:
            for number in range(2):
                key_id = console.add_key(key_line(f"passing {number}"))
                added = machine.process("sync", "--json")
                console.delete_key(key_id)
                removed = machine.process("sync", "--json")
                assert (added.code, removed.code) == (0, 0), added.stderr + removed.stderr
                assert b"passing" not in path.read_bytes()
        finally:
            path.with_name("authorized_keys.stop").touch()
            out, _ = shell.communicate(timeout=30)
    assert out.startswith("begun\n")
    lines = path.read_bytes().split(b"\n")
    expected = [b"line %d" % number for number in range(1, int(out.split()[1]) + 1)]
    assert sorted(lines) == sorted([*expected, MANAGED.rstrip(), b""])


def test_two_syncs_at_once(tmp_path: Path, console: Console) -> None:
    """G7: two agents with their own state on one file; it is whole and right after every round."""
    machines = [new_machine(tmp_path / name, console) for name in ("one", "two")]
    path = machines[0].key_file
    machines[1].configure(targets=target(current_user(), path))
    foreign = b"# by hand\n" + key_line("foreign").encode() + b"\n"
    path.write_bytes(foreign)
    for number in range(2):
        key_id = console.add_key(key_line(f"passing {number}"))
        passing = key_line(f"passing {number}").encode() + b" keysync:managed\n"
        for expected in (foreign + MANAGED + passing, foreign + MANAGED):
            found = _both(machines)
            assert [done.code for done in found] == [0, 0], found
            assert path.read_bytes() == expected
            if expected.endswith(passing):
                console.delete_key(key_id)
    assert leftovers(path.parent) == []


def _both(machines: list[Machine]) -> list[Done]:
    """One real `keysync` process for each, at the same time."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda machine: machine.process("sync", "--json"), machines))


_AGENT = """
from pathlib import Path
from agent.adapters.files.atomic import Owner
from tests.adapters.support import adding, update, without
print("begun")
path, name = Path(sys.argv[1]), sys.argv[2].encode()
for number in range(15):
    update(path, Owner(os.geteuid(), os.getegid()), adding(name + b" %d" % number))
"""


def test_two_agents_without_a_common_lock(tmp_path: Path) -> None:
    """G7: several processes that replace the same file lose nothing of each other's."""
    path = tmp_path / "authorized_keys"
    names = ["a", "b", "c"]
    command = f"sys.path[:0] = {[str(Path(__file__).parents[2])]!r}\n" + _AGENT
    with (
        python(command, str(path), "a") as one,
        python(command, str(path), "b") as two,
        python(command, str(path), "c") as three,
    ):
        for process in (one, two, three):
            finish(process)
    expected = [b"%b %d" % (name.encode(), number) for name in names for number in range(15)]
    assert sorted(path.read_bytes().split(b"\n")) == sorted([*expected, b""])
    assert leftovers(tmp_path) == []


# ---- the worst moment, exactly ----


def at_the_worst_moment(
    path: Path, transform: Callable[[bytes], bytes], *moments: Callable[[], None]
) -> list[Snapshot]:
    """An update during which others act after the file was read and before it is replaced."""
    waiting = list(moments)
    seen: list[Snapshot] = []

    def before_write(replaced: Snapshot) -> None:
        seen.append(replaced)
        if waiting:
            waiting.pop(0)()

    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.update(transform, before_write)
    assert leftovers(path.parent) == []
    return seen


def _append(path: Path, line: bytes) -> None:
    with path.open("ab") as file:
        file.write(line + b"\n")


def _replace(path: Path, data: bytes) -> None:
    path.with_name("new").write_bytes(data)
    path.with_name("new").rename(path)


def test_an_append_between_reading_and_replacing(tmp_path: Path) -> None:
    """G7: what was planned on the old bytes is planned again."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"one\n")
    at_the_worst_moment(path, adding(OURS), lambda: _append(path, b"two"))
    assert path.read_bytes() == b"one\ntwo\n" + OURS + b"\n"


def test_a_replacement_between_reading_and_replacing(tmp_path: Path) -> None:
    """G7: a removed and a changed line too are an edit that must not be lost."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"one\ntwo\n")
    at_the_worst_moment(path, adding(OURS), lambda: _replace(path, b"TWO\n"))
    assert path.read_bytes() == b"TWO\n" + OURS + b"\n"


def test_the_file_is_removed_between_reading_and_replacing(tmp_path: Path) -> None:
    """G7: removing the file is an edit too: only keysync's own lines come back."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"one\n")
    at_the_worst_moment(path, adding(OURS), path.unlink)
    assert path.read_bytes() == OURS + b"\n"


def test_the_file_is_made_between_reading_and_writing(tmp_path: Path) -> None:
    """G5, G7: a file that appears at the last moment is neither overwritten nor taken for none."""
    path = tmp_path / "authorized_keys"
    seen = at_the_worst_moment(path, adding(OURS), lambda: _replace(path, b"one\n"))
    assert path.read_bytes() == b"one\n" + OURS + b"\n"
    assert [(old.exists, old.data) for old in seen] == [(False, b""), (True, b"one\n")]


def test_a_revoked_line_that_comes_back_at_the_last_moment_goes_too(tmp_path: Path) -> None:
    """R5, R10: an update ends only when a fresh read shows what was meant."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"revoked\none\n")
    at_the_worst_moment(path, without(b"revoked"), *[lambda: _append(path, b"revoked")] * 20)
    assert path.read_bytes() == b"one\n"


def test_an_update_that_others_never_let_finish_is_a_failure_by_name(tmp_path: Path) -> None:
    """G7: the work is bounded, the message says so, and no line of the others is lost."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"")
    lines: list[bytes] = []

    def disturb(_: Snapshot) -> None:
        lines.append(b"line %d" % len(lines))
        _append(path, lines[-1])

    def odd(data: bytes) -> bytes:  # never content: there is always something left to do
        return data + b"x\n"

    start = time.monotonic()
    with (
        KeyFile.opened(str(path), ME, for_writing=True, patience=BRIEF) as file,
        pytest.raises(TargetFailed, match=f"{path} was changed by others") as failure,
    ):
        file.update(odd, disturb)
    assert failure.value.kind == "keeps_changing"
    assert failure.value.hint
    assert BRIEF.update_seconds <= time.monotonic() - start < 10
    assert set(lines) <= set(path.read_bytes().split(b"\n"))


def test_only_what_was_written_is_told(tmp_path: Path) -> None:
    """R10, incident 24: the plan that somebody else's line overtook is not taken for done."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"one\n")
    told: list[str] = []

    def before_write(replaced: Snapshot) -> None:
        told.append(f"plan for {replaced.data!r}")
        if len(told) == 1:
            _append(path, b"pasted")

    def after_write() -> None:
        told.append(f"wrote {path.read_bytes()!r}")

    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.update(adding(b"pasted", OURS), before_write, after_write)
        file.update(adding(b"pasted", OURS), before_write, after_write)
    assert told == [
        "plan for b'one\\n'",
        "plan for b'one\\npasted\\n'",
        f"wrote {b'one' + bytes([10]) + b'pasted' + bytes([10]) + OURS + bytes([10])!r}",
    ]


def test_a_new_file_that_somebody_else_makes_first_is_not_told(tmp_path: Path) -> None:
    """R10: the same where there was no file."""
    path = tmp_path / "authorized_keys"
    written: list[bytes] = []
    moments = [lambda: _replace(path, b"one\n")]
    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.update(
            adding(OURS),
            lambda _: moments.pop()() if moments else None,
            lambda: written.append(path.read_bytes()),
        )
    assert written == [b"one\n" + OURS + b"\n"]


class _Refused(Exception):
    pass


@pytest.mark.parametrize("error", [_Refused, OSError, KeyboardInterrupt])
def test_who_is_asked_before_may_forbid_it(tmp_path: Path, error: type[BaseException]) -> None:
    """G7, G11: the file stays, nothing is left beside it, and the next update goes on."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"one\n")
    before = path.stat().st_ino
    written: list[None] = []

    def refuse(_: Snapshot) -> None:
        raise error

    with (
        KeyFile.opened(str(path), ME, for_writing=True) as file,
        pytest.raises(TargetFailed if error is OSError else error),
    ):
        file.update(adding(OURS), refuse, lambda: written.append(None))
    assert (path.read_bytes(), path.stat().st_ino, written) == (b"one\n", before, [])
    assert os.listdir(tmp_path) == ["authorized_keys"]
    start = time.monotonic()
    update(path, ME, adding(OURS))
    assert time.monotonic() - start < 2  # the lock is free
    assert path.read_bytes() == b"one\n" + OURS + b"\n"


def test_a_machine_too_slow_for_its_own_patience_writes_all_the_same(tmp_path: Path) -> None:
    """R5: nobody else wrote, so `keeps_changing` would be untrue, and a deleted key would stay."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"old\n")
    slow = Patience(update_seconds=0.0)
    with KeyFile.opened(str(path), ME, for_writing=True, patience=slow) as file:
        file.update(lambda _: b"new\n", lambda _: None)
    assert path.read_bytes() == b"new\n"


def test_a_writer_who_is_always_faster_is_reported(tmp_path: Path) -> None:
    """G7, R10: whoever never lets the file rest keeps every line, the deleted one too, and the
    update fails by name within its time. When they stop, it goes.
    """
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"revoked\n")
    lines: list[bytes] = []
    written: list[None] = []

    def disturb(_: Snapshot) -> None:
        lines.append(b"line %d" % len(lines))
        _append(path, lines[-1])

    start = time.monotonic()
    with (
        KeyFile.opened(str(path), ME, for_writing=True, patience=BRIEF) as file,
        pytest.raises(TargetFailed, match="deleted keys in it may still log in") as failure,
    ):
        file.update(without(b"revoked"), disturb, lambda: written.append(None))
    assert (failure.value.kind, failure.value.exit_code, written) == ("keeps_changing", 74, [])
    assert BRIEF.update_seconds <= time.monotonic() - start < 5
    assert path.read_bytes().split(b"\n") == [b"revoked", *lines, b""]
    update(path, ME, without(b"revoked"))
    assert path.read_bytes().split(b"\n") == [*lines, b""]
    assert leftovers(tmp_path) == []


def test_a_line_taken_out_by_a_busy_editor_stays_out(tmp_path: Path) -> None:
    """G7: taking a line out is an edit too, and none of them is undone; as soon as the editor
    pauses the deleted line goes.
    """
    path = tmp_path / "authorized_keys"
    lines = [b"line %d" % number for number in range(5000)]
    path.write_bytes(b"revoked\n" + b"\n".join(lines) + b"\n")
    deadline = time.monotonic() + 0.4

    def disturb(_: Snapshot) -> None:
        if time.monotonic() < deadline and lines:
            _replace(path, path.read_bytes().replace(lines.pop() + b"\n", b""))

    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.update(without(b"revoked"), disturb)
    assert len(lines) < 5000
    assert path.read_bytes() == b"\n".join(lines) + b"\n"


def test_removing_shows_every_byte_before(tmp_path: Path) -> None:
    """G5: also what somebody writes at the last moment is seen by who takes the file away."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"one\n")
    seen: list[bytes] = []

    def keep(old: Snapshot) -> None:
        seen.append(old.data)
        if len(seen) == 1:
            _append(path, b"two")

    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.remove(keep)
    assert not path.exists()
    assert seen == [b"one\n", b"one\ntwo\n"]
    assert leftovers(tmp_path) == []


# ---- the owner attacks ----

_ATTACK = """
libc = ctypes.CDLL(None)
directory, secret = sys.argv[1:]
def swap(one, other):
    libc.renameat2(-100, one.encode(), -100, other.encode(), 2)
def briefly(one, other):
    swap(one, other)
    time.sleep(number % 5 * 0.0001)
    swap(one, other)
    time.sleep(number % 7 * 0.0002)
os.chdir({where})
{prepare}
print("begun")
for number in itertools.count():
    try:
{body}
    except OSError:
        pass
"""


def _attack(prepare: str, body: str, where: str = "directory") -> str:
    indented = "".join(f"        {line}\n" for line in body.strip().split("\n"))
    return _ATTACK.format(where=where, prepare=prepare, body=indented)


_ATTACKS = {
    "file and symlink": _attack("os.symlink(secret, 'trap')", "briefly('authorized_keys', 'trap')"),
    "file and hard link": _attack("", "briefly('authorized_keys', 'stash0')"),
    "file and pipe": _attack("os.mkfifo('trap')", "briefly('authorized_keys', 'trap')"),
    "file and directory": _attack("os.mkdir('trap')", "briefly('authorized_keys', 'trap')"),
    "directory and symlink": _attack(
        "os.symlink(os.path.dirname(secret), 'trap')",
        "briefly('.ssh', 'trap')",
        where="os.path.dirname(directory)",
    ),
    "temporary files": _attack(
        "",
        """
for name in os.listdir('.'):
    if name.startswith('.authorized_keys.keysync-'):
        os.symlink(secret, f'trap{number}')
        swap(name, f'trap{number}' if number % 2 else f'stash{number % 200}')
status = os.lstat('authorized_keys')
if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
    os.rename('authorized_keys', f'used{number}')
""",
    ),
    "new directories": _attack(
        "",
        """
for name in os.listdir('.'):
    if name.startswith('.ssh'):
        os.rename(name, f'away{number}')
        os.symlink(os.path.dirname(secret), name)
        os.unlink(name)
""",
        where="os.path.dirname(directory)",
    ),
    "more links": _attack(
        "",
        """
os.link('authorized_keys', 'more')
os.unlink('more')
if number % 3 == 0:
    os.unlink('authorized_keys')
time.sleep(number % 7 * 0.0002)
""",
    ),
}


@contextlib.contextmanager
def _attacked(user: User, name: str) -> Iterator[None]:
    """The user swaps things all the time; in the end the victim is the same and still secret."""
    victim = user.home.parent / f"{user.name}-victim" / "authorized_keys"
    victim.parent.mkdir(mode=0o700)
    try:
        victim.write_bytes(SECRET)
        victim.chmod(0o600)
        user.write_keys(b"# mine\n")
        for number in range(200):  # as where fs.protected_hardlinks is off
            os.link(victim, user.ssh / f"stash{number}")
        before = _seen(victim)
        with user.python(_ATTACKS[name], str(user.ssh), str(victim)):
            yield
        assert _seen(victim) == before
        assert os.listdir(victim.parent) == ["authorized_keys"]
        assert _disclosed(user.home, victim) == []
    finally:
        for path in victim.parent.iterdir():
            path.unlink()
        victim.parent.rmdir()


@needs_root
@pytest.mark.parametrize("name", _ATTACKS)
def test_an_owner_who_swaps_what_lies_there_gains_nothing(user: User, name: str) -> None:
    """G8: what is exchanged between check and use is neither read nor written by root."""
    ends: dict[str, int] = {}
    with _attacked(user, name):
        start = time.monotonic()
        while time.monotonic() - start < ATTACK_SECONDS or not _both_met(ends):
            assert time.monotonic() - start < 30 * ATTACK_SECONDS, ends
            end = _one_round(user)
            ends[end] = ends.get(end, 0) + 1


@needs_root
@pytest.mark.attack
@pytest.mark.parametrize("name", ["file and symlink", "file and hard link", "file and directory"])
def test_an_owner_who_swaps_what_is_taken_away_gains_nothing(user: User, name: str) -> None:
    """G8: the same where an uninstall removes a file that was not there before keysync."""
    ends: dict[str, int] = {}
    with _attacked(user, name):
        start = time.monotonic()
        while time.monotonic() - start < ATTACK_SECONDS or not _both_met(ends):
            assert time.monotonic() - start < 30 * ATTACK_SECONDS, ends
            end = _one_removal(user)
            ends[end] = ends.get(end, 0) + 1


def _one_removal(user: User) -> str:
    try:
        with KeyFile.opened(str(user.keys), user.owner, for_writing=True) as file:
            file.remove(lambda _: None)
        update(user.keys, user.owner, adding(KEY))
    except TargetFailed as failure:
        return failure.kind
    return "done"


def _both_met(ends: dict[str, int]) -> bool:
    """Some rounds met the attack, and some got through."""
    return len(ends) > 1 and ends.get("done", 0) > 5


def _one_round(user: User) -> str:
    try:
        update(user.keys, user.owner, without(KEY))
        update(user.keys, user.owner, adding(KEY))
    except TargetFailed as failure:
        return failure.kind
    return "done"


def _seen(victim: Path) -> tuple[object, ...]:
    """Links and the time of the last status change are the attacker's to change; nothing else."""
    status = victim.stat()
    directory = victim.parent.stat()
    return (
        (victim.read_bytes(), status.st_uid, status.st_gid, status.st_mode, status.st_mtime_ns),
        (directory.st_uid, directory.st_gid, directory.st_mode, directory.st_mtime_ns),
    )


def _disclosed(home: Path, victim: Path) -> list[Path]:
    """Files other than the victim itself that hold its secret."""
    return [
        path
        for path in home.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not path.samefile(victim)
        and SECRET.strip() in path.read_bytes()
    ]


_STRETCHED = """
sys.path.insert(0, {repository!r})
from pathlib import Path
from agent.adapters.files.atomic import Owner
from agent.errors import TargetFailed
from tests.adapters.support import KEY, adding, update, without
print("begun")
ends = []
deadline = time.monotonic() + 10
while time.monotonic() < deadline and (len(set(ends)) < 2 or ends.count("done") < 10):
    for transform in (without(KEY), adding(KEY)):
        try:
            update(Path(sys.argv[1]), Owner({uid}, {gid}), transform)
            ends.append("done")
        except TargetFailed as failure:
            ends.append(failure.kind)
print(*ends, sep="\\n")
"""


@needs_root
@needs_strace
@pytest.mark.parametrize("name", ["file and symlink", "file and hard link", "file and pipe"])
def test_the_moment_between_check_and_use_is_of_no_use(user: User, name: str) -> None:
    """G8: the same where that moment is stretched, by a delay before the file is opened."""
    with _attacked(user, name):
        script = _STRETCHED.format(repository=str(REPOSITORY), uid=user.uid, gid=user.gid)
        delayed = f"-P {user.ssh} -e trace=openat -e inject=openat:delay_enter=2000".split()
        with python(
            script, str(user.keys), under=["strace", "-qq", "-o", "/dev/null", *delayed]
        ) as root:
            ends = finish(root)
        assert len(set(ends)) > 1, set(ends)
