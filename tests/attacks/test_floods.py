"""Nobody floods keysync: not with a key file, and not with a console's list (G12).

A real `keysync run` under a real watchdog socket, with real files. A plain run takes files of a
tenth of the size, and polls as much more often; what a reader may cost is counted in tests/core.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import pwd
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.core.authorized_keys import MAX_OPTIONS_BYTES
from sandbox.console import Console
from sandbox.users import current_user
from tests.adapters.support import needs_root
from tests.service.support import Agent, ServiceManager
from tests.support.bad_server import BadServer, answer, eventually
from tests.support.machine import TAG, Machine, entry, key_line

pytestmark = pytest.mark.attack

WATCHDOG_SECONDS = 60.0
MOST_GROWTH_BYTES = 100_000
_PATIENCE_SECONDS = 90.0
# Of a first cycle, in which nothing has been read before, on a machine that others use too.
FIRST_CYCLE_SECONDS = 60.0


def forged_lines(count: int) -> bytes:
    """So many managed lines with Ed25519 keys (RFC 8709 section 4) that nobody ever listed.

    The blob's first 18 bytes are the same for all, and make 24 characters; so the other 33 can be
    encoded for all lines in one go.
    """
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
    rest = bytearray(os.urandom(33 * count))
    rest[::33] = blob[18:] * count
    text = base64.b64encode(rest)
    front = b"ssh-ed25519 " + base64.b64encode(blob[:18])
    back = f" x {TAG}\n".encode()
    return b"".join([front + text[at : at + 44] + back for at in range(0, len(text), 44)])


@dataclass(frozen=True)
class Target:
    """A key file below a folder of the test, and whose it is."""

    user: str
    path: Path

    def write(self, data: bytes) -> None:
        """Replaces the file in one step, as its user could at any moment."""
        new = self.path.with_name("new")
        new.touch(mode=0o600)
        new.write_bytes(data)
        owner = pwd.getpwnam(self.user)
        os.chown(new, owner.pw_uid, owner.pw_gid)
        new.rename(self.path)

    def holds(self, name: str) -> bool:
        return f"{key_line(name)} {TAG}\n".encode() in self.path.read_bytes()


def target(folder: Path, user: str) -> Target:
    owner = pwd.getpwnam(user)
    folder.mkdir(mode=0o700)
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    made = Target(user, folder / "authorized_keys")
    made.write(f"{key_line('by hand')}\n".encode())
    return made


class Watchdog:
    """The service manager's end of sd_notify(3), read all the time: when it was fed."""

    def __init__(self, manager: ServiceManager) -> None:
        self._manager = manager
        self._fed: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="watchdog")

    def __enter__(self) -> Watchdog:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._ended.wait(0.05):
            known, told = len(self._fed), len(self._manager.told("WATCHDOG=1"))
            self._fed += [time.monotonic()] * (told - known)

    @property
    def longest_hunger(self) -> float:
        """The most seconds between two feedings, from the beginning to now."""
        moments = [self._began, *self._fed, time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


def size_of(path: Path) -> int:
    """In bytes; 0 for a temporary file that the daemon has just renamed."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


@dataclass(frozen=True)
class Kept:
    """What a daemon has written: its log, its state, and the originals, which may be large (G5)."""

    log: int
    state: int
    originals: int

    @classmethod
    def of(cls, machine: Machine) -> Kept:
        """Now; before the daemon's first start there is no log."""
        files = [path for path in machine.state.rglob("*") if path.is_file()]
        originals = [path for path in files if path.name.startswith("original-")]
        return cls(
            log=size_of(machine.folder / "log"),
            state=sum(size_of(path) for path in files if path not in originals),
            originals=sum(map(size_of, originals)),
        )

    def growth_since(self, earlier: Kept) -> int:
        """Bytes of log and state, without the originals."""
        return self.log + self.state - earlier.log - earlier.state


@contextmanager
def flooding(flooded: Target, lines: int) -> Iterator[list[float]]:
    """Somebody restores a flood, with other keys each time, as soon as less than one is there."""
    ended, restored = threading.Event(), list[float]()

    def restore() -> None:
        while not ended.wait(0.1):
            if flooded.path.stat().st_size < lines * 50:
                flooded.write(forged_lines(lines))
                restored.append(time.monotonic())

    thread = threading.Thread(target=restore, name="attacker")
    thread.start()
    try:
        yield restored
    finally:
        ended.set()
        thread.join()


@needs_root
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("lines", "interval"), [(24_000, 1.0), pytest.param(240_000, 10.0, marks=pytest.mark.sweep)]
)
def test_a_flood_of_forged_lines(tmp_path: Path, lines: int, interval: float) -> None:
    """G12, incident 17: forged managed lines in one user's file, restored with other keys after
    each cycle, hold up nobody else's keys, do not starve the watchdog, and fill neither the log
    nor the state.
    """
    flooded = target(tmp_path / "flooded", "nobody")
    honest = [target(tmp_path / name, current_user()) for name in ("one", "two")]
    with ExitStack() as stack:
        console = stack.enter_context(Console())
        machine = Machine(tmp_path, console.url)
        machine.set_api_key(console.api_key)
        console.add_key(key_line("laptop"))
        _configure(machine, honest, interval)
        assert machine.here("sync").code == 0
        before = Kept.of(machine)
        flooded.write(forged_lines(lines))
        _configure(
            machine, [flooded, *honest], interval
        )  # in this order it could hold up the others
        manager = stack.enter_context(ServiceManager(tmp_path, watchdog=WATCHDOG_SECONDS))
        watchdog = stack.enter_context(Watchdog(manager))
        stack.enter_context(Agent(machine, manager.environment))
        assert eventually(lambda: flooded.holds("laptop"), FIRST_CYCLE_SECONDS)
        _check_served(console, honest, "first")
        after_one = Kept.of(machine)
        restored = stack.enter_context(flooding(flooded, lines))
        _check_served(console, honest, "second")
        _check_served(console, honest, "third")
        assert eventually(lambda: len(restored) >= 3, _PATIENCE_SECONDS), restored
        assert watchdog.longest_hunger < WATCHDOG_SECONDS / 2
        after = Kept.of(machine)
        assert after.growth_since(before) < MOST_GROWTH_BYTES, (before, after)
        assert after.originals == after_one.originals  # saved once, not at each flood
        assert after.originals < lines * 150


def _configure(machine: Machine, targets: list[Target], interval: float = 10.0) -> None:
    machine.options = f"poll: {{interval: {interval:g}s, jitter: 0s}}\n"
    entries = (f"  - {{user: {one.user}, path: {json.dumps(str(one.path))}}}\n" for one in targets)
    machine.configure(targets="".join(entries))


def _check_served(console: Console, honest: list[Target], name: str) -> None:
    """R1: a key that comes, and then goes, reaches them within two polls of each.

    Counted, not timed: how long a poll's cycle lasts depends on what else this machine does.
    """
    key_id = console.add_key(key_line(name))
    polls = _polls_until(console, lambda: all(one.holds(name) for one in honest))
    assert polls <= 2, f"{name} was added in poll {polls} only"
    console.delete_key(key_id)
    polls = _polls_until(console, lambda: not any(one.holds(name) for one in honest))
    assert polls <= 2, f"{name} was removed in poll {polls} only"


def _polls_until(console: Console, done: Callable[[], bool]) -> int:
    before = len(console.requests)
    assert eventually(done, _PATIENCE_SECONDS)
    return len(console.requests) - before


MOST_FLOOD_BYTES = 60 << 20  # a larger file is refused as such
FOREIGN = key_line("foreign").encode()
# What is repeated, and what stands around it.
FLOODS = {
    "blank lines": (b"", b"\n", b""),
    "comments": (b"", b"# words\n", b""),
    "short lines": (b"", b"x\n", b""),
    "one line of options": (b"", b'expiry-time="20991231",', b"pty " + FOREIGN),
    "one line of quotes": (b"", b'""', b" " + FOREIGN),
    "a quote that never closes": (b'command="', b"x", b""),
    "lines of options": (b"", b"pty," * 15_000 + b"pty " + FOREIGN + b"\n", b""),
}


@needs_root
@pytest.mark.parametrize("flood", FLOODS)
def test_a_file_full_of_something_else(tmp_path: Path, flood: str, full_sweep: bool) -> None:
    """R5, R6, G12: megabytes around it hide no deleted key, are kept as they are, and come last.

    How much of them is read is counted in tests/core/test_authorized_keys.py.
    """
    before, repeated, behind = FLOODS[flood]
    # Twice as much as the options of a file that are read (MAX_OPTIONS_BYTES), or all there may be.
    size = MOST_FLOOD_BYTES if full_sweep else 2 * MAX_OPTIONS_BYTES
    data = before + repeated * (size // len(repeated)) + behind
    flooded = target(tmp_path / "flooded", "nobody")
    honest = target(tmp_path / "honest", current_user())
    with Console() as console:
        machine = Machine(tmp_path, console.url)
        machine.set_api_key(console.api_key)
        console.add_key(key_line("laptop"))
        goes = console.add_key(key_line("phone"))
        _configure(machine, [flooded, honest])
        assert machine.here("sync").code == 0
        kept_before = Kept.of(machine)
        console.delete_key(goes)
        phone = key_line("phone").encode() + b"\n"
        own = flooded.path.read_bytes()
        flooded.write(data + b"\n" + phone + own)
        done = machine.here("sync")
        assert done.code == 0, done.stderr
        assert honest.path.stat().st_ctime_ns < flooded.path.stat().st_ctime_ns  # served first
        kept = own.replace(f"{key_line('phone')} {TAG}\n".encode(), b"")
        assert flooded.path.read_bytes() == data + b"\n" + kept
        assert honest.holds("laptop")
        assert not honest.holds("phone")
        grown = len(done.stderr) + Kept.of(machine).growth_since(kept_before)
        assert grown < MOST_GROWTH_BYTES


BAD_ENTRIES = 5_000


def list_of_bad_entries(poll: int) -> bytes:
    """One key, beside entries that are refused; no entry and no id is that of another poll."""
    ids = range(poll * BAD_ENTRIES, (poll + 1) * BAD_ENTRIES)
    bad = [entry(key_id, f"no key {key_id}") for key_id in ids]
    return answer(json.dumps([entry(1, key_line("laptop")), *bad]).encode())


def test_a_console_with_other_bad_entries_at_each_poll(tmp_path: Path) -> None:
    """G2, G12, incident 18: refused entries that change with each poll make no log line each, and
    are not remembered for ever.
    """
    good = answer(json.dumps([entry(1, key_line("laptop"))]).encode())
    answers = [good, *(list_of_bad_entries(poll) for poll in range(1, 21))]
    with BadServer(*answers) as server:
        machine = Machine(tmp_path, server.url, "poll: {interval: 1s, jitter: 0s}\n")
        assert machine.here("sync").code == 0
        before = Kept.of(machine)
        with Agent(machine) as agent:
            _wait_for_polls(server, 7)  # the seventh begins when all of the sixth is written
            after = Kept.of(machine)
            assert after.growth_since(before) < MOST_GROWTH_BYTES, after
            assert TAG in machine.key_file.read_text()  # the good one is served all the same
            _wait_for_polls(server, 21)
            agent.stop()
        assert Kept.of(machine).growth_since(before) < 2 * MOST_GROWTH_BYTES
        assert (machine.state / "state.json").stat().st_size < MOST_GROWTH_BYTES


def _wait_for_polls(server: BadServer, count: int) -> None:
    assert eventually(lambda: len(server.heads) >= count, 5.0 * count), len(server.heads)
