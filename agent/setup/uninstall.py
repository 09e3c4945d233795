"""Plans the removal of keysync as steps; what somebody may need later is saved first.

The order is: stop the agent, so that it does not undo the rest; save a copy; change the key files
as requested; remove the files, the configuration last, because it says where the others are. When
a step fails, everything after it stays in place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from agent import config_file
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.config import Config
from agent.core.ledger import Ledger
from agent.service.forget import remove_tags
from agent.service.locate import KeyFileLocation
from agent.service.served_files import find_served_files
from agent.setup import steps
from agent.setup.backup import Backup
from agent.setup.host import KINDS, Host
from agent.setup.installed_state import state_removal
from agent.setup.layout import HOOK, LINK, Layout
from agent.setup.processes import end_process, running_agents
from agent.setup.restore import Consequences, consequences_of, restore
from agent.setup.service_account import account_removal
from agent.setup.steps import Step


class KeyFiles(Enum):
    """What happens to the key files."""

    STAY = "stay"
    LOSE_TAGS = "lose tags"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Removal:
    """The steps; `backup` is the folder with a copy of what is removed.

    `consequences` are those of restoring key files. The plan is made again between `stop` and
    `rest`, because the agent works until it is stopped.
    """

    backup: str
    stop: list[Step]
    rest: list[Step]
    consequences: Consequences


def plan_uninstall(
    machine: Host, layout: Layout, config: Config, key_files: KeyFiles, now: str
) -> Removal:
    """All steps, from stopping the service to the last file. Raises TargetFailed."""
    state = StateDirectory(config.state_dir)
    ledger, _ = state.load()  # refuses a folder that others could have put there
    consequences = Consequences((), ())
    backup = Backup.named(f"{layout.backups}/keysync-{now.replace(':', '')}")
    found = _save(layout, config, backup)
    if key_files is KeyFiles.RESTORED:
        originals = state.originals()
        consequences = consequences_of(originals, ledger, config)
        found += [restore(original, backup.keep) for original in originals]
    elif key_files is KeyFiles.LOSE_TAGS:
        for location in _managed_files(config, ledger, now):
            found += _tag_removal(location)
    found += _remove_files(machine, layout, config)
    stop = machine.manager.stop() + _agent_end(machine.program)
    return Removal(backup.path, stop, found, consequences)


def _agent_end(program: str) -> list[Step]:
    """Ends an agent that no manager runs; a manager's agent has ended by then."""
    if not running_agents(program):
        return []
    return [Step("end the running agent", partial(_end_agents, program))]


def _end_agents(program: str) -> None:
    for pid in running_agents(program):
        end_process(pid)


# ---- saving, and the key files ----


def _save(layout: Layout, config: Config, backup: Backup) -> list[Step]:
    """Copies the state, with every original and every removed line, and the configuration."""
    return [
        Step(f"copy {path} to {backup.path}", partial(backup.copy, path))
        for path in (config.state_dir, layout.config)
        if os.path.exists(path)
    ]


def _managed_files(config: Config, ledger: Ledger, now: str) -> list[KeyFileLocation]:
    """Every file that may hold keysync's lines, as far as known."""
    found = find_served_files(config, ledger, Sshd(), now).found
    return list(dict.fromkeys(one.location for one in found if not one.error))


def _tag_removal(location: KeyFileLocation) -> list[Step]:
    """For a file that has tags."""
    if remove_tags(location, dry_run=True) == 0:
        return []
    text = f"remove keysync's tag from the lines of {location.path}"
    return [Step(text, partial(remove_tags, location, dry_run=False))]


# ---- removing ----


def _remove_files(machine: Host, layout: Layout, config: Config) -> list[Step]:
    found = state_removal(config.state_dir)
    if machine.is_root:
        found += _remove_from_machine(machine)
    found += steps.removal(layout.api_key) + steps.removal(layout.config)
    return found + steps.removal_when_empty(os.path.dirname(layout.config))


def _remove_from_machine(machine: Host) -> list[Step]:
    """Also the files of an earlier installation for a manager that is no longer in use."""
    found = machine.manager.removal()
    for kind in KINDS:
        if not isinstance(machine.manager, kind):
            found += kind.leftovers()
    found += steps.removal(HOOK)
    if os.path.islink(LINK) and os.readlink(LINK) == machine.program:
        found += steps.removal(LINK)
    return found + account_removal()


def load_config(layout: Layout) -> Config:
    """The configuration of the installation, or the defaults. Raises ConfigInvalid."""
    if Path(layout.config).exists():
        return config_file.load(layout.config, {})
    return Config(state_dir=layout.state_dir)
