"""A real unprivileged process that swaps what keysync looks at, while real commands run (G8).

Many targets are attacked at once, so that each command is many chances. A race counts when it had
both ends: some targets were refused since something else was there, and some were served honestly.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.adapters.support import SECRET, User, finish, needs_root, target, until
from tests.attacks.bounded import Commands, Ran, commands, prepare, start
from tests.attacks.plants import GOOD_LINE, OTHER_UID, Victims
from tests.support.machine import Machine, key_line

pytestmark = [pytest.mark.attack, needs_root]
PASSING = key_line("comes and goes").encode()
_CELLS = 16
_SECONDS = 2.0
_ROUNDS = 3  # and at least so many
_PATIENCE = 40.0

# The user has `cells` folders with home/.ssh/authorized_keys in each, and root's hard links to
# victims beside them. Each attack prepares once and then works on one cell at a time, for ever.
_ATTACKER = """
libc = ctypes.CDLL(None)
cells, victim, folder = json.loads(sys.argv[1])
def swap(one, other):
    # RENAME_EXCHANGE (renameat2(2)): there is never nothing under the name.
    return libc.renameat2(-100, one.encode(), -100, other.encode(), 2) == 0
class Watch:
    def __init__(self, paths):
        self.fd = libc.inotify_init1(0)
        self.paths = {libc.inotify_add_watch(self.fd, p.encode(), 0x180): p for p in paths}
    def made(self):
        if not select.select([self.fd], [], [], 0.05)[0]:
            return []
        data, found = os.read(self.fd, 65536), []
        while data:
            wd, mask, _, size = struct.unpack("iIII", data[:16])
            found.append((self.paths[wd], data[16:16 + size].rstrip(b"\\0").decode()))
            data = data[16 + size:]
        return found
flips = 0
%s
print("begun")
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        flips += attack()
    except OSError:
        pass
print(flips)
"""

_TURNS = """
{prepare}
turn = itertools.cycle(cells)
def attack():
    cell = next(turn)
    swap(cell + "{one}", cell + "{trap}")
    time.sleep(flips % 5 * 0.0001)
    swap(cell + "{one}", cell + "{trap}")
    return 2
"""


def _turns(one: str, prepare: str, trap: str = "/trap") -> str:
    """Exchanges `one` with a trap that lies ready, one cell after another."""
    return _TURNS.format(prepare=f"for cell in cells:\n    {prepare or 'pass'}", one=one, trap=trap)


_WATCHING = """
watch = Watch([cell + "{where}" for cell in cells])
names = itertools.count()
def attack():
    done = 0
    for parent, name in watch.made():
        here, number = parent + "/" + name, next(names)
        aside = parent + "/aside%d" % number
        {act}
    return done
"""
# The new key file, as soon as it has its temporary name, becomes a link or a victim's hard link;
# what then has the key file's own name is taken away again, for the next round.
_TEMPORARY_FILE = """
        if "keysync-" in name:
            cell = os.path.dirname(os.path.dirname(parent))
            os.link(cell + "/hard", aside) if number % 2 else os.symlink(victim, aside)
            done += swap(aside, here)
        elif name == "authorized_keys":
            status = os.lstat(here)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                os.rename(here, aside)
"""
_TEMPORARY_FOLDER = """
        if "keysync-" in name:
            os.symlink(folder, aside)
            done += swap(aside, here) if number % 2 else os.rename(aside, here) is None
        elif name == ".ssh":  # it has just got its name, and is about to be opened
            os.symlink(folder, aside)
            done += swap(aside, here)
            time.sleep(number % 5 * 0.0005)
            os.unlink(here)
"""

ATTACKS = {
    "key file and link": _turns("/home/.ssh/authorized_keys", "os.symlink(victim, cell + '/trap')"),
    "key file and pipe": _turns("/home/.ssh/authorized_keys", "os.mkfifo(cell + '/trap')"),
    "key file and hard link": _turns(
        "/home/.ssh/authorized_keys", "os.rename(cell + '/hard', cell + '/trap')"
    ),
    "key file and directory": _turns(
        "/home/.ssh/authorized_keys", "os.mkdir(cell + '/trap', 0o700)"
    ),
    "key file and root's": _turns(
        "/home/.ssh/authorized_keys", "os.rename(cell + '/roots', cell + '/trap')"
    ),
    "folder and link": _turns("/home/.ssh", "os.symlink(folder + '/.ssh', cell + '/trap')"),
    "folder and another's": _turns("/home/.ssh", "", trap="/home/others"),
    "home and link": _turns("/home", "os.symlink(folder, cell + '/trap')"),
    "temporary file": _WATCHING.format(where="/home/.ssh", act=_TEMPORARY_FILE.strip()),
    "temporary folder": _WATCHING.format(where="/home", act=_TEMPORARY_FOLDER.strip()),
}


@dataclass
class Race:
    """One attack on many targets of one user."""

    machine: Machine
    console: Console
    user: User
    victims: Victims
    name: str
    key: int | None = None

    @property
    def cells(self) -> list[Path]:
        return [self.user.home / str(number) for number in range(_CELLS)]

    def prepare(self) -> None:
        """The targets as their user made them, with what lies ready for the attack."""
        for cell in self.cells:
            home = cell / "home"
            for folder in (cell, home, home / ".ssh"):
                folder.mkdir(mode=0o700)
                self.user.give(folder)
            keys = home / ".ssh" / "authorized_keys"
            keys.write_bytes(GOOD_LINE)
            keys.chmod(0o600)
            self.user.give(keys)
            if self.name == "temporary folder":
                (home / ".ssh").rename(cell / "real")
            os.link(self.victims.roots, cell / "hard")
            shutil.copy(self.victims.roots, cell / "roots")
            shutil.copytree(self.victims.others_folder / ".ssh", home / "others")
            for path in (home / "others", home / "others" / "authorized_keys"):
                os.chown(path, OTHER_UID, OTHER_UID)
        keys = Path("home", ".ssh", "authorized_keys")
        self.machine.configure(
            targets="".join(target(self.user.name, cell / keys) for cell in self.cells)
            + target("root", self.machine.key_file)
        )
        self.victims.begin()

    @contextlib.contextmanager
    def going_on(self) -> Iterator[list[int]]:
        """The attack; when it has ended, the list holds how often something was put in place."""
        paths = [str(self.victims.roots), str(self.victims.folder)]
        told = json.dumps([[str(cell) for cell in self.cells], *paths])
        flips: list[int] = []
        with self.user.python(_ATTACKER % ATTACKS[self.name], told) as attacker:
            yield flips
            flips += map(int, finish(attacker))

    def is_followed(self) -> bool:
        """Whether root's own file has the last change of the list."""
        return (PASSING in self.machine.key_file.read_bytes()) == (self.key is not None)

    def change_the_list(self) -> None:
        """So that the next sync has something to write."""
        if self.key is None:
            self.key = self.console.add_key(PASSING.decode())
        else:
            self.console.delete_key(self.key)
            self.key = None


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("who", ["root", "service"])
def test_what_is_swapped_between_check_and_use_is_of_no_use(
    running: dict[str, Commands],
    who: str,
    machine: Machine,
    console: Console,
    user: User,
    tmp_path: Path,
    name: str,
) -> None:
    """G8, R11: no victim is changed or shown, root's own target is always served, and the user
    gets an honest sync or a refusal by name.
    """
    prepare(who, machine)
    race = Race(machine, console, user, Victims(tmp_path / "somebodys"), name)
    race.prepare()
    copies = race.victims.disclosed(user.home)
    ends: Counter[str] = Counter()
    start = time.monotonic()
    rounds = 0
    with race.going_on() as flips:
        while time.monotonic() - start < _SECONDS or rounds < _ROUNDS or not _both_ends(ends):
            assert time.monotonic() - start < _PATIENCE, ends
            race.change_the_list()
            done = running[who].keysync(machine, "sync", "--json")
            rounds += 1
            ends += _ends(done)
            race.victims.check()
    assert flips[0] > rounds
    assert race.victims.disclosed(user.home, machine.state).keys() <= copies.keys()


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Commands]]:
    with commands("root") as root, commands("service") as service:
        yield {"root": root, "service": service}


def _both_ends(ends: Counter[str]) -> bool:
    """Some targets met the attack, and some got through."""
    return ends["served"] > 5 and ends.total() - ends["served"] > 5


def _ends(done: Ran) -> Counter[str]:
    assert done.code in (0, 74), done.stderr
    *attacked, root = done.json["targets"]
    assert root["result"] == "changed"
    ends: Counter[str] = Counter()
    for report in attacked:
        error = report["error"]
        ends["served" if error is None else error["kind"]] += 1
        assert error is None or (report["path"].rpartition("/home")[0] in error["message"])
    return ends


@pytest.mark.parametrize("who", ["root", "service"])
def test_the_daemon_under_attack(
    who: str, machine: Machine, console: Console, user: User, tmp_path: Path
) -> None:
    """G8, R11: the same for the agent that runs by itself: it goes on, and says what it met."""
    prepare(who, machine)
    machine.options = "poll: {interval: 1s, jitter: 0s}\n"
    race = Race(machine, console, user, Victims(tmp_path / "somebodys"), "key file and link")
    race.prepare()
    log = tmp_path / "log"
    with log.open("wb") as out, race.going_on() as flips:
        agent = start(who, machine, "run", out=out)
        try:
            for _ in range(4):
                race.change_the_list()
                until(race.is_followed, "the change in root's file", 40)
        finally:
            agent.terminate()
            assert agent.wait(20) == 0
    race.victims.check()
    assert flips[0] > 100
    events = [json.loads(line) for line in log.read_text().splitlines()]
    told = [event for event in events if event["event"] == "target.failed"]
    assert {event["kind"] for event in told} <= {"not_a_file", "symlink", "keeps_changing"}
    assert any("symbolic link" in event["message"] for event in told)
    assert any(event["event"] == "key.added" for event in events)
    assert SECRET.decode().strip() not in log.read_text()
