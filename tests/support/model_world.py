"""The world of the model check: a console, key files and keysync itself, all real.

It knows what it did to them, so that the model can say what must come of it; it judges nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from agent import config_file
from agent.core.times import Moment
from agent.events import Event
from agent.service.cycle import Request, Syncer
from agent.service.read_status import read_status
from agent.service.report import SyncReport
from agent.service.status import Status
from sandbox.account import Account, StoredKey
from sandbox.console import Console
from sandbox.users import current_user
from tests.support.model import FINGERPRINTS, LINES, HoldRule, Instant, Listed, Memory, Order
from tests.support.own_mounts import read_only

_MEMORY = Path("/dev/shm")  # a disk would make the check ten times slower and prove no more
_SECOND_USER = "nobody"
_DEAD = "http://127.0.0.1:9"
INTERVAL = 30.0  # seconds, as poll.interval
FAILURES: dict[str, tuple[int, str]] = {
    "dead": (75, "connection_failed"),
    "outage": (75, "connection_lost"),
    "error_500": (75, "server_error"),
    "rate_limited": (75, "rate_limited"),
    "html": (65, "html_page"),
    "truncated": (65, "not_json"),
    "reset": (77, "credential_rejected"),
    "missing": (77, "credential_missing"),
    "exposed": (77, "credential_exposed"),
}


@dataclass
class Policy:
    """What the configuration says; a change means that keysync starts anew."""

    pins: tuple[str, ...] = ()
    strict: bool = False
    confirmations: int = 3
    hold_s: int = 0
    max_staleness: str | None = None
    additions: str = "apply"
    retired: frozenset[int] = frozenset()  # targets that are left out


@dataclass
class Target:
    """One key file; `obstacle` is what stands in its place."""

    user: str
    path: Path
    obstacle: str | None = None

    @property
    def data(self) -> bytes:
        """What is under the name, as a careful reader sees it."""
        return self.path.read_bytes() if self.path.is_file() else b""

    @property
    def stamp(self) -> tuple[int, int, int, bytes] | None:
        """What stays the same of a file that nobody wrote."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_mode, self.data

    @property
    def new_mode(self) -> int:
        """G9: of a file that keysync makes; in a folder of root's outside root's home root's."""
        return 0o644 if self.path.parent.stat().st_uid == os.geteuid() == 0 else 0o600

    def write(self, data: bytes) -> None:
        """What an editor does; a new file is the user's own."""
        if self.obstacle:
            return
        new = not self.path.exists()
        self.path.write_bytes(data)
        if new:
            self.path.chmod(0o600)
            self.give(self.path)

    def give(self, path: Path) -> None:
        if os.geteuid() == 0:
            user = pwd.getpwnam(self.user)
            os.chown(path, user.pw_uid, user.pw_gid)

    def block(self, obstacle: str, elsewhere: Path) -> None:
        """Puts something in the file's place that keysync must not touch."""
        aside = self.path.with_name("aside")
        if obstacle == "hard_link":
            self.write(self.data)
            os.link(self.path, aside)
        else:
            if self.path.exists():
                self.path.rename(aside)
            if obstacle == "symlink":
                self.path.symlink_to(elsewhere)
            elif obstacle == "fifo":
                os.mkfifo(self.path)
            else:
                self.path.mkdir()
        self.obstacle = obstacle

    def unblock(self) -> None:
        aside = self.path.with_name("aside")
        if self.obstacle == "directory":
            self.path.rmdir()
        else:
            self.path.unlink()
        if aside.exists():
            aside.rename(self.path)
        self.obstacle = None


class World:
    """Everything in one folder, until `close`."""

    def __init__(self, targets: int) -> None:
        self._stack = contextlib.ExitStack()
        where = _MEMORY if _MEMORY.is_dir() else None
        folder = tempfile.TemporaryDirectory(prefix="keysync-model-", dir=where)
        self.folder = Path(self._stack.enter_context(folder))
        self.console = self._stack.enter_context(Console())
        for key in self.console.stranger.stored():
            self.console.stranger.delete_key(key.id)
        self.targets = [self._target(at) for at in range(targets)]
        self.victim = self.folder / "victim"
        self.victim.write_bytes(b"of somebody else\n")
        self.policy = Policy()
        self.events: list[Event] = []
        self.now = Instant(datetime(2026, 1, 1, tzinfo=timezone.utc), "boot-0", 100.0)
        self._shut = contextlib.ExitStack()
        self.is_shut = False
        self.fault: str | None = None
        self.swapped = False
        self.credential = "right"
        self.use_api_key()
        self.syncer = self.start()

    def _target(self, at: int) -> Target:
        user = _SECOND_USER if at % 2 and os.geteuid() == 0 else current_user()
        home = self.folder / f"home{at}"
        home.mkdir(mode=0o700)
        target = Target(user, home / "authorized_keys")
        target.give(home)
        return target

    def close(self) -> None:
        self.syncer.close()
        self._shut.close()
        self._stack.close()

    # ---- keysync ----

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def clock(self) -> Moment:
        """What keysync is told of the time."""
        return Moment(self.now.text, self.now.boot, self.now.seconds)

    @property
    def rule(self) -> HoldRule:
        return HoldRule(self.policy.confirmations, self.policy.hold_s, INTERVAL)

    @property
    def configured(self) -> list[Target]:
        """The targets that the configuration names."""
        return [one for at, one in enumerate(self.targets) if at not in self.policy.retired]

    def start(self) -> Syncer:
        """A new process, as far as keysync can tell: the configuration is read anew."""
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(self._configuration()))  # JSON is YAML
        path.chmod(0o600)
        self.config = config_file.load(str(path), {})
        return Syncer(self.config, {}, self.events.append, clock=self.clock)

    def restart(self) -> None:
        self.syncer.close()
        self.syncer = self.start()

    def _configuration(self) -> dict[str, object]:
        policy = self.policy
        return {
            "api": {
                "url": _DEAD if self.fault == "dead" else self.console.url,
                "key_file": str(self.folder / "api_key"),
            },
            "targets": [{"user": one.user, "path": str(one.path)} for one in self.configured],
            "poll": {"interval": f"{INTERVAL:g}s"},
            "policy": {
                "unmanaged": "remove" if policy.strict else "keep",
                "removal_confirmations": policy.confirmations,
                "removal_hold": f"{policy.hold_s}s",
                "additions": policy.additions,
                "max_staleness": policy.max_staleness,
            },
            "pins": [LINES[name] for name in policy.pins],
            "state_dir": str(self.state),
        }

    @property
    def pins(self) -> dict[str, str]:
        return {FINGERPRINTS[name]: name for name in self.policy.pins}

    def run(self, order: Order) -> SyncReport:
        """One cycle; `tick` comes first."""
        self.events.clear()
        request = Request(order.dry_run, order.confirm, order.confirmed, order.accept)
        return self.syncer.sync(request)

    def tick(self, seconds: float) -> None:
        """Time goes on by both clocks."""
        now = self.now
        wall = now.wall + timedelta(seconds=seconds)
        self.now = Instant(wall, now.boot, now.seconds + seconds)

    def jump(self, days: int) -> None:
        """The wall clock is set."""
        self.now = replace(self.now, wall=self.now.wall + timedelta(days=days))

    def reboot(self) -> None:
        """Clocks of the second kind start anew."""
        number = int(self.now.boot.removeprefix("boot-")) + 1
        self.now = Instant(self.now.wall, f"boot-{number}", 1.0)
        self.restart()

    def status(self) -> Status:
        return read_status(self.config, self.clock)

    def everything(self) -> dict[str, object]:
        """Every path below the folder with all that a dry run must leave alone."""
        found: dict[str, object] = {}
        for path in [self.folder, *self.folder.rglob("*")]:
            status = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_mode, data)
        return found

    # ---- the console ----

    @property
    def account(self) -> Account:
        return self.console.stranger if self.swapped else self.console.account

    def set_fault(self, fault: str | None) -> None:
        """A failure of the console; only a dead one needs another address."""
        was_dead = self.fault == "dead"
        self.fault = fault
        self.apply_fault()
        if was_dead != (fault == "dead"):
            self.restart()

    def apply_fault(self) -> None:
        own = "another_account" if self.swapped else None
        self.console.fault = own if self.fault in (None, "dead") else self.fault

    def break_api_key(self, how: str) -> None:
        """Reset on the console and not replaced here, deleted here, or open to others."""
        self.credential = how
        if how == "reset":
            self.console.reset_api_key()
        elif how == "missing":
            (self.folder / "api_key").unlink()
        else:
            self.use_api_key(0o644)
            self.credential = how

    def use_api_key(self, mode: int = 0o600) -> None:
        path = self.folder / "api_key"
        path.touch()
        path.chmod(mode)
        path.write_text(self.console.api_key + "\n")
        self.credential = "right"

    def stored(self) -> list[StoredKey]:
        return self.account.stored()

    @property
    def listed(self) -> Listed:
        """The console's list as it is now, faults aside but for the empty one."""
        if self.fault == "empty_list":
            return Listed((), None)
        named = self.account.stored(deleted=self.console.switches.include_deleted)
        entries = tuple((key.id, key.text) for key in self.stored())
        return Listed(entries, self.account.user_id if named else None)

    @property
    def failure(self) -> tuple[int, str] | None:
        """Exit code and kind when no listing is to be had, the first cause first."""
        if self.credential in ("missing", "exposed"):
            return FAILURES[self.credential]
        if self.fault == "truncated" and self.credential == "reset":
            return 65, "not_found"
        if self.fault not in (None, "empty_list"):
            return FAILURES[str(self.fault)]
        return FAILURES["reset"] if self.credential == "reset" else None

    # ---- the state ----

    def shut_state(self) -> None:
        """From now on the state cannot be written; only where the caller has its own mounts."""
        self._shut.enter_context(read_only(self.state))
        self.is_shut = True

    def open_state(self) -> None:
        """It can be written again."""
        self._shut.close()
        self.is_shut = False

    @property
    def ledger_stamp(self) -> tuple[list[str], int, int]:
        """What stays the same of a ledger that nobody wrote."""
        path = self.state / "state.json"
        status = path.stat()
        return path.read_text().splitlines(), status.st_ino, status.st_mtime_ns

    def lose_state(self, how: str, memory: Memory) -> tuple[Memory, bool]:
        """What of the memory is left (state), and whether a broken file is there."""
        ledger = self.state / "state.json"
        if how == "folder":
            shutil.rmtree(self.state, ignore_errors=True)
            return Memory(), False
        if not ledger.exists():
            return memory, False
        data = ledger.read_bytes()
        if how == "ledger":
            ledger.unlink()
            return Memory(last_success=memory.last_success), False  # which has a file of its own
        ledger.write_bytes(_BROKEN[how](data))
        return Memory(account=memory.account if how in _SALVAGED else None), True


_SALVAGED = ("half", "future", "odd")  # the account can still be read
_BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda _: b"\0\xff",
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "future": lambda data: data.replace(b'"schema": 2', b'"schema": 3'),
    "odd": lambda data: data.replace(b'"keys": [', b'"keys": [7, ', 1).replace(b"[7, ]", b"[7]"),
}
BREAKAGES = ("folder", "ledger", *_BROKEN)
