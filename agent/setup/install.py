"""Plans the installation as steps.

Every step is safe to repeat, and none replaces an existing configuration or API key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent import config_file
from agent.adapters.credential import find_credential
from agent.config import Config, Target
from agent.core.secret import Credential
from agent.errors import CredentialRejected
from agent.setup import steps
from agent.setup.files import shipped, write_file
from agent.setup.host import Host
from agent.setup.layout import HOOK, LINK, Layout
from agent.setup.package_check import check_installation
from agent.setup.steps import Step


@dataclass(frozen=True, slots=True)
class Installation:
    """The steps before the first sync (`prepare`) and after it (`start`).

    `config` is what that sync uses.
    """

    layout: Layout
    config: Config
    prepare: list[Step]
    start: list[Step]
    key_problem: CredentialRejected | None  # why no API key was found to copy
    unsaved_url: str | None  # the URL in this shell's variable, if the configuration has another


def plan_install(machine: Host, layout: Layout, environment: Mapping[str, str]) -> Installation:
    """All steps, from the account to the running service. Raises ConfigInvalid, TargetFailed."""
    check_installation()
    unsaved_url = _unsaved_url(layout, environment)
    config, prepare = _configuration(layout, environment)
    key_steps, problem = _api_key(layout, config, environment)
    prepare += key_steps
    prepare += machine.manager.prepare(config)
    if machine.is_root:
        prepare += _hook(machine) + steps.link(LINK, machine.program)
    else:
        prepare += steps.folder(os.path.dirname(config.state_dir))
    return Installation(layout, config, prepare, machine.manager.start(), problem, unsaved_url)


# ---- configuration and API key ----


def _configuration(layout: Layout, environment: Mapping[str, str]) -> tuple[Config, list[Step]]:
    """The existing configuration, else a new one for this machine and the step that writes it."""
    if os.path.lexists(layout.config):
        return config_file.load(layout.config, environment), []
    found = replace(
        config_file.defaults(environment),
        api_key_file=layout.api_key if _has_key(layout) else None,  # for the sync of a dry run
        targets=None if layout.user == "root" else (_own_target(layout.user),),
        state_dir=layout.state_dir,
    )
    return found, steps.file(layout.config, _rendered(found, layout).encode(), 0o644)


def _unsaved_url(layout: Layout, environment: Mapping[str, str]) -> str | None:
    """An existing configuration is never edited, so the variable's URL is not written into it."""
    if not os.path.lexists(layout.config):
        return None
    written = config_file.load(layout.config, {}).api_url
    used = config_file.load(layout.config, environment).api_url
    return used if used != written else None


def _rendered(config: Config, layout: Layout) -> str:
    lines = [
        "# Written by `keysync install`. Every option with its default: config.example.yaml.",
        "# After a change: keysync config check, then systemctl reload keysync (or SIGHUP to the",
        "# agent). After a new target: keysync install.",
        "api:",
    ]
    if config.api_url != Config().api_url:
        lines.append(f"  url: {json.dumps(config.api_url)}")
    lines += [
        f"  key_file: {json.dumps(layout.api_key)}  # read again before each poll",
    ]
    if config.targets is None:
        lines.append(
            "targets: auto  # root, and every user whose key file holds a key of the account"
        )
    else:
        lines.append("targets:")
        for target in config.targets:
            path = f", path: {json.dumps(target.path)}" if target.path else ""
            lines.append(f"  - {{user: {json.dumps(target.user)}{path}}}")
    if layout.user != "root":
        lines.append(f"state_dir: {json.dumps(config.state_dir)}")
    return "\n".join(lines) + "\n"


def _own_target(user: str) -> Target:
    """The file that sshd reads by default: only root can ask sshd which one it reads."""
    return Target(user, os.path.expanduser("~/.ssh/authorized_keys"))


def _has_key(layout: Layout) -> bool:
    try:
        return os.path.getsize(layout.api_key) > 0
    except OSError:
        return False


def _api_key(
    layout: Layout, config: Config, environment: Mapping[str, str]
) -> tuple[list[Step], CredentialRejected | None]:
    """Copies the key that the usual lookup finds, unless one is installed; else an empty file."""
    path = layout.api_key
    if _has_key(layout):
        return [], None
    if config.api_key_file not in (None, path):  # the configuration names another file
        return _empty(path), None
    try:
        credential = find_credential(None, environment)
    except CredentialRejected as error:
        return _empty(path), error
    return [_copy(credential, path)], None


def _copy(credential: Credential, path: str) -> Step:
    text = f"copy the API key {credential.masked} from {credential.source} to {path}"
    return Step(text, lambda: write_file(path, credential.value.encode() + b"\n", 0o600))


def _empty(path: str) -> list[Step]:
    """The service's unit reads this file, so it must exist."""
    if os.path.lexists(path):
        return []
    text = f"make the empty file {path} for the API key"
    return [Step(text, lambda: write_file(path, b"", 0o600))]


def _hook(machine: Host) -> list[Step]:
    """A sync at boot, for a service manager that does not do it."""
    if not machine.boot_hooks or not machine.manager.uses_boot_hook:
        return []
    return steps.file(HOOK, shipped(f"container/{os.path.basename(HOOK)}", machine.program))
