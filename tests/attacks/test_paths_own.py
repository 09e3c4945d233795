"""keysync's own files where somebody else could reach them: state, configuration, API key (G8).

They lie in folders of root's; these tests put them into a user's home, or leave their folder open.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.adapters.support import SECRET, User, needs_root, new_machine, state_of
from tests.attacks.bounded import Commands, Ran, commands
from tests.attacks.plants import PLANTS, Planted, Victims
from tests.support.machine import TAG, Machine, key_line
from tests.support.service_user import SERVICE_UID

pytestmark = [pytest.mark.attack, needs_root]
REVOKED = f"{key_line('revoked')} {TAG}\n"
# Whatever lies beside it makes the folder one of somebody else's, which is refused as a whole.
_IN_THE_STATE = [plant for plant in PLANTS if plant != "link to one's own"]
_READABLE = "hard link to a readable file"
_WRITTEN_OR_BELIEVED = ("lock", "journal.jsonl", "state.json")
_SOME = ["link to root's", "hard link", "pipe", "directory", "huge file", "another's own"]
_MOST_SECONDS = 20.0
_MOST_BYTES = 300 << 20


@pytest.fixture(scope="module", params=["root", "service"])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[str, Commands]]:
    with commands(request.param) as made:
        yield request.param, made


@pytest.fixture
def victims(tmp_path: Path) -> Victims:
    made = Victims(tmp_path / "somebodys")
    made.begin()
    return made


def _check(done: Ran, victims: Victims, *, may_read: bool = False) -> None:
    victims.check(may_read=may_read)
    assert done.seconds < _MOST_SECONDS
    assert done.peak < _MOST_BYTES
    assert SECRET.decode().strip() not in done.stdout + done.stderr


def _open_state(machine: Machine, who: str) -> None:
    """As left by `mkdir` under an open umask: keysync closes it, but what is in it by then is."""
    machine.state.mkdir()
    machine.state.chmod(0o777)
    if who == "service":
        os.chown(machine.state, SERVICE_UID, SERVICE_UID)
    machine.key_file.write_text(REVOKED)


@pytest.fixture
def reachable(user: User) -> Iterator[Path]:
    """A folder of root's that the user can get to, on the same file system as the user's home."""
    with tempfile.TemporaryDirectory(prefix="keysync-reachable-", dir=user.home.parent) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


_CODES = {
    "lock": 74,
    "journal.jsonl": 74,
    "original.json": 74,
    "state.json": 0,  # set aside, said loudly, and begun anew
    "original.bytes": 0,  # replaced by a rename
    ".state.json.0123456789abcdef": 0,  # a leftover, removed
}


@pytest.mark.parametrize("name", _CODES)
def test_what_was_planted_in_the_state_folder_is_not_used(
    running: tuple[str, Commands],
    console: Console,
    reachable: Path,
    user: User,
    victims: Victims,
    name: str,
) -> None:
    """G8: neither read, written, given away nor given another mode, and named with the cure."""
    who, run = running
    planted = Planted(user, victims)
    attacked: dict[str, tuple[Machine, Path]] = {}
    for number, plant in enumerate(_plants(who, name)):
        machine = new_machine(reachable / str(number), console)
        _open_state(machine, who)
        stem = "original-" + hashlib.sha256(str(machine.key_file).encode()).hexdigest()[:24]
        attacked[plant] = machine, machine.state / name.replace("original", stem)
        PLANTS[plant](planted, attacked[plant][1], False)
    planted.do()
    victims.begin()
    for plant, (machine, path) in attacked.items():
        before = path.lstat().st_ino
        done = run.keysync(machine, "sync", "--json")
        # Only root's files are read through a hard link, which the system forbids by default.
        _check(done, victims, may_read=plant in ("hard link", _READABLE))
        expected = _expected(name, plant)
        assert done.code == expected, (plant, done.stdout, done.stderr)
        if expected:
            problem = done.json["error"]
            assert str(path.with_suffix("")) in problem["message"], (plant, problem)
            assert problem["hint"]
            assert path.lstat().st_ino == before
        elif name == "state.json":
            aside = done.event("state.set_aside")["path"]
            assert aside.startswith(f"{path}.unreadable-")
            assert Path(aside).lstat().st_ino == before
        elif name != "original.json" and plant not in ("root's own", "directory"):
            assert not os.path.lexists(path) or path.lstat().st_ino != before
        assert machine.state.stat().st_mode & 0o7777 == 0o700


def _plants(who: str, name: str) -> list[str]:
    """All of them as root, for the files that are written in place or believed."""
    return _IN_THE_STATE if who == "root" and name in _WRITTEN_OR_BELIEVED else _SOME


def _expected(name: str, plant: str) -> int:
    if plant == "root's own" and name in ("lock", "journal.jsonl"):
        return 0  # root's file, and with one name only: it lay in this folder before
    if name == "original.json" and plant in ("hard link", _READABLE, "root's own"):
        return 0  # not written, and nothing of it is used
    if plant == "directory" and name == "original.bytes":
        return 74
    return _CODES[name]


# ---- the folder, the configuration and the API key, in somebody's home ----


@pytest.mark.parametrize("sticky", [False, True])
def test_a_state_folder_that_others_can_exchange_is_refused(
    running: tuple[str, Commands],
    machine: Machine,
    reachable: Path,
    user: User,
    victims: Victims,
    sticky: bool,
) -> None:
    """G8: in a user's home, and in a folder like /tmp, where a link can come from elsewhere."""
    _, run = running
    top = user.home
    if sticky:
        top = reachable / "tmp"
        top.mkdir()
        top.chmod(0o1777)
    planted = Planted(user, victims, aside=user.home)
    # A folder cannot be brought to another one by a user who may not write in it.
    plants = [plant for plant in PLANTS if not (sticky and plant.endswith("own"))]
    for number, plant in enumerate(plants):
        (top / str(number)).mkdir()
        (top / str(number)).chmod(0o1777 if sticky else 0o777)
        PLANTS[plant](planted, top / str(number) / "state", True)
    planted.do()
    victims.begin()
    for number, plant in enumerate(plants):
        path = top / str(number) / "state"
        before = state_of(path)
        text = machine.config.read_text()
        machine.config.write_text(f"{text.partition('state_dir')[0]}state_dir: {path}\n")
        done = run.keysync(machine, "sync", "--json")
        _check(done, victims)
        assert done.code == 74, (plant, done.stdout, done.stderr)
        assert str(path.parent) in done.json["error"]["message"], plant
        assert done.json["error"]["hint"], plant
        assert state_of(path) == before, plant


@pytest.mark.parametrize("desired", ["config"])
def test_a_configuration_that_others_planted_is_not_believed(
    running: tuple[str, Commands], machine: Machine, user: User, victims: Victims, desired: str
) -> None:
    """G8, G10: nothing of what a user points it to is shown, not even as a wrong option."""
    _, run = running
    planted = Planted(user, victims)
    paths = {plant: user.home / str(at) / desired for at, plant in enumerate(PLANTS)}
    for plant, path in paths.items():
        planted.folder(path.parent)
        PLANTS[plant](planted, path, False)
    planted.do()
    victims.begin()
    for plant, path in paths.items():
        machine.folder.chmod(0o755)
        done = run.keysync(machine, "--config", str(path), "sync", "--json")
        _check(done, victims, may_read=plant.startswith("hard link") or plant == "link of root's")
        assert done.code == 78, (plant, done.stdout, done.stderr)
        assert str(path) in done.stdout + done.stderr
    assert not machine.state.exists()


_KEY_PLACES = {
    "key": False,
    ".vast_api_key": False,
    ".config": True,
    ".config/vastai": True,
    ".config/vastai/vast_api_key": False,
}


@pytest.mark.parametrize("location", _KEY_PLACES)
def test_an_api_key_that_others_planted_is_not_used(
    running: tuple[str, Commands], machine: Machine, user: User, victims: Victims, location: str
) -> None:
    """G8: root neither reads it nor what it leads to; whose key it is decides who may log in."""
    _, run = running
    planted = Planted(user, victims)
    homes = {plant: user.home / str(at) for at, plant in enumerate(PLANTS)}
    for plant, home in homes.items():
        planted.folder((home / location).parent)
        PLANTS[plant](planted, home / location, _KEY_PLACES[location])
    planted.do()
    victims.begin()
    text = machine.config.read_text()
    for plant, home in homes.items():
        option = f"  key_file: {home / location}\n" if location == "key" else ""
        machine.config.write_text(
            "".join(
                option if "key_file" in line else line for line in text.splitlines(keepends=True)
            )
        )
        done = run.keysync(machine, "sync", "--json", home=str(home))
        _check(done, victims)
        assert done.code == 77, (plant, done.stdout, done.stderr)
        error = done.json["error"]
        folder = _KEY_PLACES[location]
        missing = plant in _LEADS_NOWHERE or (folder and plant in _NO_KEY)
        assert error["kind"] in (_MISSING if missing else _REFUSED_AS), (plant, error)
        assert str(home / location) in error["message"] or missing, plant
        assert error["hint"]
        assert machine.key_file.read_bytes() == b""


_LEADS_NOWHERE = {"directory", "dangling link"}
_NO_KEY = {plant for plant in PLANTS if "link" not in plant or plant.startswith("hard")}
_NO_KEY |= {"link of root's"}
_REFUSED_AS = {"credential_untrusted", "credential_unreadable", "credential_exposed"}
_MISSING = {"credential_missing", *_REFUSED_AS}
