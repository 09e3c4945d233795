"""Row 1 and 2 of what others got wrong: things planted in every place that keysync touches (G8).

Each real command meets all of them at once, every one under a target of its own, with honest
targets in between (R11). Each runs as root and as the service's account with its capabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.adapters.support import MANAGED, SECRET, User, finish, needs_root, target
from tests.attacks.bounded import Ran, keysync, prepare
from tests.attacks.plants import GOOD_LINE, PLANTS, Planted, Victims
from tests.support.machine import Machine

pytestmark = [pytest.mark.attack, needs_root]
HEX = "0123456789abcdef"
_MOST_SECONDS = 90.0  # for all targets together, on a busy machine
_MOST_BYTES = 400 << 20


@dataclass(frozen=True)
class KeyFileLocation:
    """Where something is planted, below the folder of one target: relative to its home's parent."""

    path: str
    folder: bool  # whether keysync expects a folder there
    refused: bool = True  # whether it fails the target, as opposed to being cleared away


PLACES = {
    "key file": KeyFileLocation("home/.ssh/authorized_keys", folder=False),
    "folder": KeyFileLocation("home/.ssh", folder=True),
    "home": KeyFileLocation("home", folder=True),
    "temporary file": KeyFileLocation(
        f"home/.ssh/.authorized_keys.keysync-{HEX}", folder=False, refused=False
    ),
    "temporary folder": KeyFileLocation(f"home/..ssh.keysync-{HEX}", folder=True, refused=False),
}
_CLEARED = {"temporary file"}
_NO_FOLDER = {"pipe", "socket", "character device", "block device", "huge file"}
_KINDS_AS_FILE = {
    "hard link": "hard_link",
    "hard link to another's": "hard_link",
    "hard link to a readable file": "hard_link",
    "huge file": "key_file_too_large",
    "root's own": "wrong_owner",
    "another's own": "wrong_owner",
}
_KINDS_AS_FOLDER = {
    **dict.fromkeys(_NO_FOLDER, "not_a_directory"),
    "hard link": "not_a_directory",
    "hard link to another's": "not_a_directory",
    "hard link to a readable file": "not_a_directory",
    "root's own": "wrong_owner",
    "another's own": "wrong_owner",
    "link of root's": "wrong_owner",
}


@dataclass(frozen=True)
class Cell:
    """One target with one thing planted in one place."""

    location: str
    plant: str
    base: Path

    @property
    def planted(self) -> Path:
        return self.base / PLACES[self.location].path

    @property
    def keys(self) -> Path:
        return self.base / "home" / ".ssh" / "authorized_keys"

    @property
    def refused_as(self) -> str | None:
        """The kind of the failure; None when the target is served all the same."""
        location = PLACES[self.location]
        if not location.refused or (location.folder and self.plant == "directory"):
            return None
        if location.folder:
            return _KINDS_AS_FOLDER.get(self.plant, "symlink")
        return _KINDS_AS_FILE.get(self.plant, "not_a_file")

    def make(self, planted: Planted) -> None:
        """The folders on the way as the user makes them, and what is planted."""
        planted.folder(self.planted.parent)
        PLANTS[self.plant](planted, self.planted, PLACES[self.location].folder)


@pytest.fixture
def victims(tmp_path: Path) -> Iterator[Victims]:
    made = Victims(tmp_path / "somebodys")
    made.begin()
    yield made
    made.check()


def _cells(user: User) -> list[Cell]:
    return [
        Cell(location, plant, user.home / str(number))
        for number, (location, plant) in enumerate(
            (location, plant) for location in PLACES for plant in PLANTS
        )
    ]


def _plant(user: User, victims: Victims, cells: list[Cell]) -> None:
    planted = Planted(user, victims)
    for cell in cells:
        cell.make(planted)
    planted.do()
    victims.begin()


def _configure(machine: Machine, user: User, cells: list[Cell]) -> None:
    honest = [user.home / f"honest-{number}" / "authorized_keys" for number in range(2)]
    for path in honest:
        path.parent.mkdir()
        user.give(path.parent)
        path.write_bytes(GOOD_LINE)
        user.give(path)
    paths = [honest[0], *(cell.keys for cell in cells), honest[1]]
    machine.configure(
        targets="".join(target(user.name, path) for path in paths)
        + target("root", machine.key_file)
    )


def _check_report(done: Ran, cells: list[Cell]) -> None:
    """A refusal says path, reason and cure, in the report and in the log; the rest is served."""
    first, *attacked, last, root = done.json["targets"]
    assert [honest["result"] for honest in (first, last, root)] == ["changed"] * 3
    wrong = []
    problems = [event for event in done.events if event["event"] == "target.failed"]
    logged = {(event["path"], event["kind"]) for event in problems}
    for cell, report in zip(cells, attacked, strict=True):
        error = report["error"] or {"kind": None}
        kind = cell.refused_as
        if error["kind"] != kind or report["result"] != ("failed" if kind else "changed"):
            wrong.append((cell.location, cell.plant, report["result"], error))
        elif kind and not (
            str(cell.keys.parent) in error["message"]
            and error["hint"]
            and (str(cell.keys), kind) in logged
        ):
            wrong.append((cell.location, cell.plant, "not said", error))
    assert wrong == []


def _check_bounds(done: Ran) -> None:
    assert done.seconds < _MOST_SECONDS
    assert done.peak < _MOST_BYTES
    assert SECRET.decode().strip() not in done.stdout + done.stderr


@pytest.mark.parametrize("who", ["root", "service"])
def test_nothing_planted_is_followed_and_the_others_are_served(
    who: str, machine: Machine, user: User, victims: Victims
) -> None:
    """G8, R11: no victim changes or is read, every other target is served, the report names each
    path with its reason, and nothing hangs. Leftovers are cleared away, whatever they are.
    """
    prepare(who, machine)
    cells = _cells(user)
    assert len(cells) == len(PLACES) * len(PLANTS)
    _plant(user, victims, cells)
    _configure(machine, user, cells)
    copies = victims.disclosed(user.home)  # what others left in the user's home
    for words in (["sync", "--dry-run", "--json"], ["status", "--json"]):
        done = keysync(who, machine, *words)
        # Before the first sync nobody has a way in yet, which is worse than an unreadable file.
        assert done.code == (4 if words[0] == "status" else 74), done.stderr
        _check_bounds(done)
        victims.check()

    done = keysync(who, machine, "sync", "--json")
    assert done.code == 74, done.stderr
    _check_bounds(done)
    _check_report(done, cells)
    victims.check()
    assert victims.disclosed(user.home, machine.state).keys() <= copies.keys()
    for cell in cells:
        if cell.refused_as is None:
            assert MANAGED in cell.keys.read_bytes(), cell
            assert cell.keys.stat().st_uid == user.uid
            cleared = cell.location in _CLEARED and cell.plant != "directory"
            assert _is_there(cell) != cleared, cell
        else:
            assert _is_there(cell), cell

    again = keysync(who, machine, "sync")  # for a person
    assert again.code == 74
    for cell in cells:
        assert (cell.refused_as is None) or str(cell.keys) in again.stdout, cell
    _check_bounds(again)


def _is_there(cell: Cell) -> bool:
    return cell.planted.is_symlink() or cell.planted.exists()


@pytest.mark.parametrize("plant", PLANTS)
def test_the_second_file_that_sshd_reads(
    machine: Machine, user: User, victims: Victims, plant: str
) -> None:
    """G8: ~/.ssh/authorized_keys2 is sshd's own default too, and is looked at when it is there."""
    user.write_keys(GOOD_LINE)
    planted = Planted(user, victims)
    second = user.ssh / "authorized_keys2"
    PLANTS[plant](planted, second, False)
    planted.do()
    victims.begin()
    machine.configure(targets=target(user.name) + target("root", machine.key_file))
    done = machine.here("sync", "--json")
    assert done.code == 74, done.stderr
    first, other, root = done.json["targets"]
    assert (first["result"], root["result"]) == ("changed", "changed")
    assert other["error"]["kind"] == _KINDS_AS_FILE.get(plant, "not_a_file")
    assert str(second) in other["error"]["message"]
    victims.check()


@pytest.mark.parametrize("who", ["root", "service"])
def test_a_crowd_of_names_costs_little(who: str, machine: Machine, user: User) -> None:
    """G8, R11: a user who fills the folder, also with huge files under temporary names, delays the
    others for a moment and takes little memory.
    """
    prepare(who, machine)
    user.write_keys(GOOD_LINE)
    crowd = """
os.chdir(sys.argv[1])
for number in range(40):
    name = ".authorized_keys.keysync-%016x" % number
    with open(name, "wb") as file:
        file.truncate((60 << 20) + number)
    os.chmod(name, 0o600)
open("one", "wb").close()
for number in range(30000):
    os.link("one", "a-rather-long-name-of-which-there-are-very-many-%d" % number)
print("begun")
"""
    with user.python(crowd, str(user.ssh)) as process:
        finish(process)
    machine.configure(targets=target(user.name, user.keys) + target("root", machine.key_file))
    for _ in range(2):
        done = keysync(who, machine, "sync", "--json")
        assert done.json["targets"][1]["error"] is None
        _check_bounds(done)
