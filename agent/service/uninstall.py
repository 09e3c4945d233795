"""Taking keysync away from a machine, as steps; nothing that could be missed later is lost.

The order is: stop the agent, so that nobody puts back what is undone; save; give the key files the
form that was asked for; remove, the configuration last, since it says where the rest is. A step
that fails leaves everything after it in place.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent import config_file
from agent.adapters import host
from agent.adapters.disk import naming
from agent.adapters.host import Host, Manager
from agent.adapters.key_file import KeyFile, Snapshot
from agent.adapters.sshd import Sshd
from agent.adapters.state import StateDirectory
from agent.adapters.users import find_user
from agent.config import Config
from agent.core.authorized_keys import AuthorizedKeys, without_tags
from agent.core.ledger import Ledger
from agent.errors import TargetFailed
from agent.service import steps
from agent.service.accounts import find_targets, retired_places
from agent.service.layout import (
    ACCOUNT,
    BOOT_UNIT,
    HOOK,
    LINK,
    SERVICE,
    SUPERVISOR_PROGRAM,
    UNITS,
    Layout,
    drop_in,
    split_state,
)
from agent.service.restore import Consequences, foresee, restore
from agent.service.steps import Step
from agent.service.targets import Place, locate


class KeyFiles(Enum):
    """What becomes of the key files."""

    STAY = "stay"
    LOSE_TAGS = "lose tags"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Removal:
    """What will be done; `backup` is the folder that keeps what is removed.

    `consequences` are those of restoring key files. The plan is made again between `stop` and
    `rest`, for what the agent did until it was stopped.
    """

    backup: str
    stop: list[Step]
    rest: list[Step]
    consequences: Consequences


def plan_uninstall(
    machine: Host, layout: Layout, config: Config, key_files: KeyFiles, now: str
) -> Removal:
    """Everything from stopping the service to the last file. Raises TargetFailed."""
    state = StateDirectory(config.state_dir)
    ledger, _ = state.load()  # refuses a folder that others could put in its place
    consequences = Consequences((), ())
    backup = Backup(_free_name(f"{layout.backups}/keysync-{now.replace(':', '')}"))
    found = _save(layout, config, backup)
    if key_files is KeyFiles.RESTORED:
        originals = state.originals()
        consequences = foresee(originals, ledger, config)
        found += [restore(original, backup.keep) for original in originals]
    elif key_files is KeyFiles.LOSE_TAGS:
        found += [step for place in _places(config, ledger) for step in _untag(place, backup)]
    found += _remove_files(machine, layout, config)
    stop = _stop(machine) + _agents(machine.program)
    return Removal(backup.path, stop, found, consequences)


def _free_name(path: str) -> str:
    """`path`, or with a number behind it when a run that failed has left that."""
    candidates = itertools.chain([path], (f"{path}-{number}" for number in itertools.count(2)))
    return next(name for name in candidates if not os.path.lexists(name))


class Backup:
    """A folder of root's alone, made when the first thing is put into it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._kept = 0

    def keep(self, path: str, data: bytes) -> None:
        """Saves the bytes of a key file that is about to be replaced."""
        self._kept += 1
        name = f"replaced-{self._kept}-{path.strip('/').replace('/', '-')}"
        host.make_folder(self.path, 0o700)
        host.write_file(f"{self.path}/{name}", data, 0o600)

    def copy(self, path: str) -> None:
        """Saves a file, or the state folder with keysync's files in it."""
        host.make_folder(self.path, 0o700)
        target = f"{self.path}/{os.path.basename(path)}"
        with naming("save", path):
            if not os.path.isdir(path):
                shutil.copy2(path, target)
                return
            host.make_folder(target, 0o700)
            for name in split_state(path)[0]:
                if name != "lock":
                    shutil.copy2(f"{path}/{name}", f"{target}/{name}", follow_symlinks=False)


# ---- stopping ----


def _stop(machine: Host) -> list[Step]:
    if machine.manager is Manager.SYSTEMD:
        units = [unit for unit in (SERVICE, BOOT_UNIT) if os.path.exists(f"{UNITS}/{unit}")]
        return [steps.command("systemctl", "disable", "--now", *units)] if units else []
    if machine.manager is Manager.SUPERVISOR:
        found = steps.removal(SUPERVISOR_PROGRAM)
        if found and machine.manager_runs:
            found += [
                steps.command("supervisorctl", "reread"),
                steps.command("supervisorctl", "update"),
            ]
        return found
    return []


def _agents(program: str) -> list[Step]:
    """An agent that no manager keeps; those of a manager have ended when this is done."""

    def do() -> None:
        for pid in host.running_agents(program):
            host.end_process(pid)

    return [Step("end the running agent", do)] if host.running_agents(program) else []


# ---- saving, and the key files ----


def _save(layout: Layout, config: Config, backup: Backup) -> list[Step]:
    """The state, which holds every original and every removed line, and the configuration."""
    return [
        Step(f"copy {path} to {backup.path}", lambda path=path: backup.copy(path))  # type: ignore[misc]  # reason: mypy does not infer a lambda's default
        for path in (config.state_dir, layout.config)
        if os.path.exists(path)
    ]


def _places(config: Config, ledger: Ledger) -> list[Place]:
    """Every file that may hold keysync's lines; a user who is gone has none to change."""
    sshd = Sshd()
    found = [place for one in ledger.retired for place in retired_places(one)]
    for one in find_targets(config, ledger, sshd):
        with contextlib.suppress(TargetFailed):
            found += locate(one.target, sshd)
    return list(dict.fromkeys(found))


def _untag(place: Place, backup: Backup) -> list[Step]:
    """For a file that has tags."""

    def transform(data: bytes) -> bytes:
        return without_tags(AuthorizedKeys.parse(data)).render()

    def keep(replaced: Snapshot) -> None:
        if replaced.unmerged:
            backup.keep(place.path, b"\n".join(replaced.unmerged))

    def do() -> None:
        with KeyFile.opened(place.path, place.owner, for_writing=True) as file:
            file.update(transform, keep)

    with KeyFile.opened(place.path, place.owner, for_writing=False) as file:
        data = file.read().data
    if transform(data) == data:
        return []
    return [Step(f"take keysync's tag off the lines of {place.path}", do)]


# ---- removing ----


def _remove_files(machine: Host, layout: Layout, config: Config) -> list[Step]:
    found = _remove_state(config.state_dir)
    if machine.is_root:
        found += _remove_from_machine(machine)
    found += steps.removal(layout.api_key) + steps.removal(layout.config)
    return found + _removal_when_empty(os.path.dirname(layout.config))


def _remove_from_machine(machine: Host) -> list[Step]:
    found = []
    units = [f"{UNITS}/{unit}" for unit in (SERVICE, BOOT_UNIT)]
    drop_ins = [drop_in(unit) for unit in (SERVICE, BOOT_UNIT)]
    programs = [] if machine.manager is Manager.SUPERVISOR else [SUPERVISOR_PROGRAM]
    for path in (*drop_ins, *units, *programs, HOOK):
        found += steps.removal(path)
    for folder in map(os.path.dirname, drop_ins):
        found += _removal_when_empty(folder)
    if machine.manager is Manager.SYSTEMD:
        found.append(steps.command("systemctl", "daemon-reload"))
    if os.path.islink(LINK) and os.readlink(LINK) == machine.program:
        found += steps.removal(LINK)
    return found + _remove_account()


def _remove_state(path: str) -> list[Step]:
    """The state, which is in the backup by now; what else is in its folder is not ours."""
    if not os.path.isdir(path):
        return []
    with naming("read", path):
        own, others = split_state(path)

    def do() -> None:
        with naming("remove", path):
            for name in split_state(path)[0]:
                os.unlink(f"{path}/{name}")

    found = [Step(f"remove keysync's files in {path}", do)] if own else []
    return found if others else found + _removal_when_empty(path)


def _removal_when_empty(path: str) -> list[Step]:
    def do() -> None:
        with contextlib.suppress(OSError):  # whatever else is in it is not ours
            os.rmdir(path)

    return [Step(f"remove {path} if nothing else is in it", do)] if os.path.isdir(path) else []


def _remove_account() -> list[Step]:
    user = find_user(ACCOUNT)
    if user is None or user.pw_dir != "/nonexistent":  # not the one that install makes
        return []
    return [steps.command("userdel", ACCOUNT)]


def load_config(layout: Layout) -> Config:
    """The configuration of the installation, or the defaults when there is none (any more)."""
    if Path(layout.config).exists():
        return config_file.load(layout.config, {})
    return Config(state_dir=layout.state_dir)
