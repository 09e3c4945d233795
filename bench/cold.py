"""One cold sync with nothing to do, beside the floor and the peer."""

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.keys import file_lines, listed_lines
from bench.measure import BenchError, Command, Cost, interleaved, run
from bench.serve import Account, serving
from bench.site import Site
from bench.venvs import REPOSITORY, peer_name, peer_venv
from sandbox.users import UserError, current_user, temporary_user

KEYS = 3
FOREIGN_LINES = 5
PYTHON = "python, nothing imported"
FLOOR = "floor: the same libraries, one GET"
SYNC = "keysync sync, path given"
SYNC_SSHD = "keysync sync, path from sshd -T"
_PEER = "ssh-import-id"
_IN_SYNC = '"result": "in_sync"'


@dataclass(frozen=True, slots=True)
class Cold:
    """The costs by row, in the order of the table, and why a row has none."""

    costs: dict[str, Cost]
    missing: dict[str, str]


def measure_cold(commands: Path, home: Path, runs: int) -> Cold:
    """Measures with the venv whose `commands` folder is given; `home` gets all files."""
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        account = stack.enter_context(serving(KEYS))[KEYS]
        site = _in_sync(
            Site(home / "cold", commands / "keysync", account, current_user(), home / "cold.keys")
        )
        rows = [_python(commands), _floor(commands, site, home), site.sync(SYNC, _IN_SYNC)]
        try:
            rows.append(stack.enter_context(_asking_sshd(site, home)))
        except (BenchError, UserError) as error:
            missing[SYNC_SSHD] = str(error)
        try:
            rows.append(_peer(account, home))
        except BenchError as error:
            missing[_PEER] = str(error)
        return Cold(interleaved(rows, runs, home), missing)


def _python(commands: Path) -> Command:
    return Command(PYTHON, (str(commands / "python"), "-c", "pass"))


def _floor(commands: Path, site: Site, home: Path) -> Command:
    """From a folder of its own: a script's folder is where Python looks for modules first."""
    script = home / "floor" / "floor.py"
    script.parent.mkdir()
    shutil.copy(REPOSITORY / "bench" / "floor.py", script)
    words = (str(commands / "python"), str(script), str(site.config))
    return Command(FLOOR, words, f'"listed": {KEYS}')


def _in_sync(site: Site, path: Path | None = None) -> Site:
    """Its file and state as the first sync leaves them, beside a few foreign lines."""
    site.write()
    path = site.path or path
    assert path is not None
    path.write_text("".join(f"{line}\n" for line in file_lines(FOREIGN_LINES)))
    path.chmod(0o600)
    run(site.sync("first", f'"added": {KEYS}'), site.directory)
    return site


@contextlib.contextmanager
def _asking_sshd(site: Site, home: Path) -> Iterator[Command]:
    """With a user made for this: the file that sshd reads for a real one is not ours to touch."""
    if os.geteuid() != 0:
        raise BenchError("only root may make the user for it, and ask sshd -T")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with temporary_user() as user:
        path = _path_from_sshd(user)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        owner = pwd.getpwnam(user)
        os.chown(path.parent, owner.pw_uid, owner.pw_gid)
        path.touch(mode=0o600)
        os.chown(path, owner.pw_uid, owner.pw_gid)
        other = Site(home / "cold-sshd", site.keysync, site.account, user)
        yield _in_sync(other, path).sync(SYNC_SSHD, _IN_SYNC)


def _path_from_sshd(user: str) -> Path:
    """The user's key file; raises BenchError when sshd cannot be asked or reads another place."""
    where = f"user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
    try:
        asked = ["/usr/sbin/sshd", "-T", "-C", where]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise BenchError("no sshd is installed") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"sshd -T failed: {error.stderr.strip()}") from None
    if "\nauthorizedkeysfile .ssh/authorized_keys" not in said:
        raise BenchError("sshd does not read .ssh/authorized_keys here")
    return Path(pwd.getpwnam(user).pw_dir) / ".ssh" / "authorized_keys"


def _peer(account: Account, home: Path) -> Command:
    """Its file holds the keys already, in a folder below HOME, which it insists on."""
    commands = peer_venv(home / "peer")
    output = home / "peer.keys"
    output.write_text("".join(f"{line}\n" for line in listed_lines(KEYS)))
    words = (str(commands / "ssh-import-id"), "-o", str(output), "someone")
    environment = {"URL": f"{account.text_url}/%s"}
    return Command(peer_name(commands), words, "Already authorized", environment)
