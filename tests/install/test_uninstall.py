"""`keysync uninstall` and `keysync original` on a machine of its own."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.install.support import (
    API_KEY,
    CONFIG,
    PROGRAM,
    ROOTS_FILE,
    STATE,
    TAG,
    eventually,
    key_file,
    keysync,
    open_door,
    set_key_file,
    tree,
    variables,
)
from tests.support.machine import fingerprint, key_line
from tests.support.own_machine import OwnMachine

PLATFORM, LAPTOP, GONE = (key_line(name) for name in ("platform", "laptop", "gone"))
# Everything R6 is about: CRLF, bytes that are no UTF-8, an odd line, no newline at the end.
ORIGINAL = b"# caf\xe9\r\n\n" + PLATFORM.encode() + b"\t \r\n???\n" + GONE.encode()
PLACES = ("/etc/keysync", STATE, "/usr/local/bin")


@pytest.fixture
def installed(machine: OwnMachine, console: Console) -> OwnMachine:
    """A machine whose file was adopted, added to and removed from since."""
    set_key_file(machine, ORIGINAL)
    console.add_key(PLATFORM)
    gone = console.add_key(GONE)
    keysync(machine, "install", environment=variables(console))
    console.delete_key(gone)
    console.add_key(LAPTOP)
    keysync(machine, "sync")
    assert key_file(machine).count(TAG) == 2
    return machine


def _backup(machine: OwnMachine) -> Path:
    [name] = machine.names("/var/backups") & {
        name for name in machine.names("/var/backups") if name.startswith("keysync-")
    }
    path = machine.path(f"/var/backups/{name}")
    assert path.stat().st_mode & 0o777 == 0o700
    return path


def _on_a_terminal(*words: str, answer: str, meanwhile: str = "true") -> str:
    """Python that runs keysync on a terminal and answers its question after another command."""
    return (
        "import os, pty, sys\n"
        "pid, fd = pty.fork()\n"
        f"if pid == 0: os.execv({PROGRAM!r}, {[PROGRAM, *words]!r})\n"
        "seen = b''\n"
        "while b'[y/N]' not in seen: seen += os.read(fd, 4096)\n"
        f"assert os.system({meanwhile!r}) == 0\n"
        f"os.write(fd, {answer!r}.encode() + b'\\n')\n"
        "try:\n"
        "    while os.read(fd, 4096): pass\n"
        "except OSError: pass\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )


def _nothing_is_left(machine: OwnMachine) -> bool:
    link = machine.path("/usr/local/bin/keysync")
    folders = ("/etc/keysync", STATE)
    return not link.is_symlink() and not any(machine.path(path).exists() for path in folders)


def test_by_default_the_keys_stay(installed: OwnMachine) -> None:
    """All that install made goes, and not a byte of a key file changes."""
    before = tree(installed, "/root/.ssh")
    keysync(installed, "uninstall", "--yes")
    assert tree(installed, "/root/.ssh") == before
    assert _nothing_is_left(installed)


def test_what_must_not_be_lost_is_kept_for_root(installed: OwnMachine, console: Console) -> None:
    """G5: originals, journal and configuration are in a folder of root's, the API key is not."""
    keysync(installed, "uninstall", "--yes")
    backup = _backup(installed)
    found = {path.name: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    assert ORIGINAL in found.values()
    assert json.loads(found["journal.jsonl"].splitlines()[0])["path"] == ROOTS_FILE
    assert "config.yaml" in found
    assert console.api_key.encode() not in b"".join(found.values())


def test_keep_keys_takes_off_the_tags_only(installed: OwnMachine) -> None:
    """Who can log in stays the same, and nothing but the tag is gone from the bytes."""
    before = key_file(installed)
    keysync(installed, "uninstall", "--yes", "--keep-keys")
    assert key_file(installed) == before.replace(b" " + TAG, b"")
    assert _nothing_is_left(installed)


def test_restore_gives_the_file_back_byte_for_byte(installed: OwnMachine) -> None:
    """The platform's recipe, the MD5 of the file, gives the same as before keysync came; what was
    replaced is kept.
    """
    replaced = key_file(installed)
    keysync(installed, "uninstall", "--yes", "--restore-original")
    assert key_file(installed) == ORIGINAL
    assert hashlib.md5(key_file(installed)).digest() == hashlib.md5(ORIGINAL).digest()
    assert installed.path(ROOTS_FILE).stat().st_mode & 0o777 == 0o600
    assert replaced in [path.read_bytes() for path in _backup(installed).glob("replaced-*")]
    assert _nothing_is_left(installed)


def test_restore_removes_a_file_that_was_not_there(machine: OwnMachine, console: Console) -> None:
    """The original of a file that did not exist is no file; its last bytes are kept."""
    console.add_key(LAPTOP)
    keysync(machine, "install", environment=variables(console))
    replaced = key_file(machine)
    keysync(machine, "uninstall", "--yes", "--restore-original", "--allow-lockout")
    assert machine.names("/root/.ssh") == set()
    [kept] = _backup(machine).glob("replaced-*")
    assert kept.read_bytes() == replaced


def test_a_restore_that_locks_out_is_refused(
    machine: OwnMachine, console: Console, tmp_path: Path
) -> None:
    """Incident 16: the keys that go are named, and a user's last way in is not taken away unless
    --allow-lockout says so. Real logins before and after.
    """
    keysync(machine, "install", environment=variables(console), exits=3)
    with open_door(machine, tmp_path) as door:
        console.add_key(door.keygen("listed"))
        keysync(machine, "sync")
        theirs = door.keygen("theirs")
        set_key_file(machine, key_file(machine) + f"{theirs}\n# mine\n".encode())
        before = tree(machine, *PLACES, "/root/.ssh")
        for words in ("--yes", "--dry-run"):
            done = keysync(machine, "uninstall", "--restore-original", words, exits=4)
            assert "Nobody could log in as root any more, so nothing was done." in done.stderr
            assert "the state would be removed.\n" in done.stdout
            assert re.findall(r"(?m)^  - +(.*?) *$", done.stdout) == [
                f"{fingerprint(line)}  {line.split()[2].ljust(6)}  would go: {whose}"
                for line, whose in (
                    (machine.path(ROOTS_FILE).read_text().splitlines()[0], "keysync's line"),
                    (theirs, "not keysync's line, added since"),
                )
            ] + ["1 line without a key"]
            assert tree(machine, *PLACES, "/root/.ssh") == before
        words = f"{PROGRAM} uninstall --restore-original --yes 2>&1"
        lines = machine.run("sh", "-c", words, exits=4).stdout.splitlines()
        assert lines[-2].startswith("keysync: Nobody"), "the refusal comes after the plan"
        assert (door.lets_in("listed"), door.lets_in("theirs")) == (True, True)
        keysync(machine, "uninstall", "--restore-original", "--yes", "--allow-lockout")
        assert (door.lets_in("listed"), door.lets_in("theirs")) == (False, False)
    assert _nothing_is_left(machine)


def test_a_line_that_only_runs_its_command_is_no_way_in(
    machine: OwnMachine, console: Console
) -> None:
    """Incident 16, G3: an original that holds such a line alone lets no person in, so giving it
    back is refused as `sync` refuses it.
    """
    set_key_file(machine, f'command="/bin/backup" {PLATFORM}\n'.encode())
    keysync(machine, "install", environment=variables(console), exits=3)
    console.add_key(LAPTOP)
    keysync(machine, "sync")
    before = key_file(machine)
    for words in ("--yes", "--dry-run"):
        done = keysync(machine, "uninstall", "--restore-original", words, exits=4)
        assert "Nobody could log in as root any more" in done.stderr
    assert key_file(machine) == before


def test_a_way_in_that_stays_is_enough(
    installed: OwnMachine, console: Console, tmp_path: Path
) -> None:
    """Incident 16: which keys go and which come back is named, DELETED ones in capitals; while one
    original key lets root in, nothing is refused. A real login with it.
    """
    set_key_file(installed, b"")
    keysync(installed, "uninstall", "--yes", "--keep-keys")
    with open_door(installed, tmp_path) as door:
        old, new = door.keygen("old"), door.keygen("new")
        set_key_file(installed, f"{old}\n".encode())
        deleted = console.add_key(old)
        console.add_key(new)
        keysync(installed, "install", environment=variables(console))
        console.delete_key(deleted)
        keysync(installed, "sync")
        assert (door.lets_in("old"), door.lets_in("new")) == (False, True)
        done = keysync(installed, "uninstall", "--restore-original", "--yes")
        assert f"- {fingerprint(new)} new would go: keysync's line" in " ".join(done.stdout.split())
        assert f"+ {fingerprint(old)} old would come back: DELETED" in " ".join(done.stdout.split())
        assert (door.lets_in("old"), door.lets_in("new")) == (True, False)


def test_nothing_happens_without_a_yes(installed: OwnMachine) -> None:
    """Without a terminal, --yes must be given; only a dry run lists the steps beforehand."""
    before = tree(installed, *PLACES, "/root/.ssh")
    done = keysync(installed, "uninstall", exits=2)
    assert "The key files would not change" in done.stdout
    assert "Add --yes" in done.stderr
    assert CONFIG not in done.stdout
    done = keysync(installed, "uninstall", "--dry-run", "--restore-original")
    assert f"would remove {CONFIG}\n" in done.stdout
    assert tree(installed, *PLACES, "/root/.ssh") == before


def test_each_step_is_shown_once(installed: OwnMachine) -> None:
    """Only the choice that was made is explained, and each step is printed as it is done."""
    done = keysync(installed, "uninstall", "--yes", "--keep-keys")
    assert done.stdout.count(f"remove {CONFIG}\n") == 1
    assert "lose their tag" in done.stdout
    assert "--restore-original" not in done.stdout
    assert "\nwould " not in done.stdout


@pytest.mark.parametrize(("answer", "done"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_it_asks(installed: OwnMachine, answer: str, done: bool) -> None:
    """Only yes is yes."""
    script = _on_a_terminal("uninstall", answer=answer)
    installed.run("python3", "-c", script, exits=0 if done else 2)
    assert _nothing_is_left(installed) is done


def test_what_is_done_while_it_asks_counts(installed: OwnMachine) -> None:
    """A sync between the question and its answer tags lines: --keep-keys takes these tags off."""
    set_key_file(installed, f"{PLATFORM}\n".encode())
    words = ("uninstall", "--keep-keys")
    script = _on_a_terminal(*words, answer="y", meanwhile=f"{PROGRAM} sync")
    installed.run("python3", "-c", script)
    assert key_file(installed) == f"{PLATFORM}\n{LAPTOP}\n".encode()
    assert _nothing_is_left(installed)


def test_a_folder_of_state_that_is_shared_stays(installed: OwnMachine, console: Console) -> None:
    """Only keysync's own files are saved and removed, also what a crash left of them; and the
    configuration, which says where they are, is the last to go.
    """
    api = f"{{url: '{console.url}', key_file: {API_KEY}}}"
    installed.write(CONFIG, f"api: {api}\nstate_dir: /srv/shared\n")
    keysync(installed, "sync")
    leftovers = (".state.json.0123456789abcdef", "state.json.unreadable-2026-11-22T06:00:00Z")
    for name in (*leftovers, "precious/state.json", "lock.mine", "originals"):
        installed.write(f"/srv/shared/{name}", "mine")
    steps = keysync(installed, "uninstall", "--dry-run").stdout
    removals = re.findall(r"(?m)^would remove (.*)$", steps)
    assert removals[0] == "keysync's files in /srv/shared"
    assert removals[-2:] == [CONFIG, "/etc/keysync if nothing else is in it"]
    keysync(installed, "uninstall", "--yes")
    assert installed.names("/srv/shared") == {"precious", "lock.mine", "originals"}
    saved = {path.name for path in (_backup(installed) / "shared").iterdir()}
    assert {"state.json", *leftovers} <= saved
    assert not saved & {"precious", "lock.mine", "originals", "lock"}


def test_a_restore_that_fails_leaves_the_rest(installed: OwnMachine, console: Console) -> None:
    """When one file cannot be given back, the state with its original stays, and it is said."""
    installed.run("useradd", "-m", "alice")
    set_key_file(installed, f"{PLATFORM}\n".encode(), "alice")
    installed.write(
        CONFIG,
        f"api: {{url: '{console.url}', key_file: {API_KEY}}}\n"
        "targets: [{user: root}, {user: alice}]\n",
    )
    keysync(installed, "sync")
    installed.run("userdel", "alice")
    done = keysync(installed, "uninstall", "--yes", "--restore-original", exits=74)
    assert "'alice'" in done.stderr
    assert keysync(installed, "original", "alice").stdout == f"{PLATFORM}\n"
    keysync(installed, "uninstall", "--yes")
    assert _nothing_is_left(installed)


def test_a_running_agent_is_ended_first(installed: OwnMachine, tmp_path: Path) -> None:
    """Nobody puts back what is undone: an agent that no manager keeps ends as well (exit 0)."""
    log = tmp_path / "log"
    agent = installed.start(PROGRAM, "run", log=log)
    eventually(lambda: b"sync.completed" in log.read_bytes(), "the agent's first sync")
    keysync(installed, "uninstall", "--yes", "--restore-original")
    assert agent.wait(10) == 0
    assert key_file(installed) == ORIGINAL


@pytest.mark.parametrize(
    "words",
    [("/usr/local/bin/keysync", "run"), ("/opt/keysync/bin/python", "-m", "agent", "run")],
    ids=["link", "module"],
)
def test_an_agent_started_otherwise_is_ended_too(
    installed: OwnMachine, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """By the link that install makes, or as a module: it is the same agent."""
    log = tmp_path / "log"
    agent = installed.start(*words, log=log)
    eventually(lambda: b"sync.completed" in log.read_bytes(), "the agent's first sync")
    keysync(installed, "uninstall", "--yes")
    assert agent.wait(10) == 0


def test_what_a_user_calls_an_agent_is_left_alone(installed: OwnMachine) -> None:
    """A process of an ordinary user with the agent's words does not hold root up, nor is it ended;
    the words of a program with set-user-ID are the user's too.
    """
    installed.run("useradd", "-m", "alice")
    for path, mode in (("/usr/local/bin/own", "755"), ("/usr/local/bin/as-root", "4755")):
        installed.run("sh", "-c", f"install -m{mode} $(readlink -f $(command -v python3)) {path}")
        line = f"exec -a {PROGRAM} {path} -c 'import time; time.sleep(60)' run"
        installed.run("bash", "-c", f"({line}) >/dev/null 2>&1 &", user="alice")
    seen = "ps -eo args | grep -c '^/opt/keysync/bin/keysync -c .* run$'"
    eventually(lambda: installed.run("sh", "-c", seen, exits=None).stdout == "2\n", "both run")
    assert "end the running agent" not in keysync(installed, "uninstall", "--yes").stdout
    assert installed.run("sh", "-c", seen).stdout == "2\n"
    assert _nothing_is_left(installed)


def test_nothing_set_up_is_nothing_to_do(machine: OwnMachine) -> None:
    """On a machine without an installation it does nothing, and says so."""
    machine.path("/usr/local/bin/keysync").unlink(missing_ok=True)
    assert "Nothing of keysync is set up here." in keysync(machine, "uninstall").stdout


def test_what_a_manager_that_is_down_would_start_goes_too(installed: OwnMachine) -> None:
    """Files for systemd and supervisor are removed also where neither runs; what a person put
    beside them stays.
    """
    program = "/etc/supervisor/conf.d/keysync.conf"
    unit, mine = (f"/etc/systemd/system/keysync.service{more}" for more in ("", ".d/mine.conf"))
    for path in (program, unit, mine):
        installed.write(path, "")
    keysync(installed, "uninstall", "--yes")
    assert [installed.path(path).exists() for path in (program, unit, mine)] == [False, False, True]


@pytest.mark.parametrize("name", ["root", ROOTS_FILE, "/root/.ssh/../.ssh/authorized_keys"])
def test_the_original_is_printed_exactly(installed: OwnMachine, name: str) -> None:
    """`keysync original` by user or path; every byte, and nothing else on stdout."""
    done = keysync(installed, "original", name)
    assert done.stdout.encode(errors="surrogateescape") == ORIGINAL


@pytest.mark.parametrize("name", ["nobody", "/etc/passwd"])
def test_no_original_is_an_error(installed: OwnMachine, name: str) -> None:
    """It says that there is none, and which there are."""
    done = keysync(installed, "original", name, exits=74)
    assert done.stdout == ""
    assert f"No original of {name} is saved in {STATE}" in done.stderr
    assert f"{ROOTS_FILE} (root)" in done.stderr


def test_a_file_that_was_not_there_has_no_original(machine: OwnMachine, console: Console) -> None:
    """No bytes are made up for it."""
    console.add_key(LAPTOP)
    keysync(machine, "install", environment=variables(console))
    done = keysync(machine, "original", "root", exits=74)
    assert "There was no file" in done.stderr
