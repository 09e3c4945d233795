"""`keysync config check` and `keysync config show`."""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone

from agent import config_file
from agent.adapters.credential import find_credential
from agent.adapters.heartbeat import Condition, read_heartbeat
from agent.adapters.users import find_user
from agent.cli.terminal import print_table
from agent.config import DEFAULT_PATH, Config
from agent.config_options import effective_options
from agent.core.times import time_text
from agent.errors import ConfigInvalid, CredentialRejected


def check(options: argparse.Namespace) -> int:
    """Says that the configuration is right. Raises ConfigInvalid when it is not."""
    config = config_file.load(options.config, os.environ)
    _check_users(config)
    chosen = options.config or os.environ.get("KEYSYNC_CONFIG")
    if not chosen and not os.path.lexists(DEFAULT_PATH):
        print(f"{DEFAULT_PATH} does not exist; the defaults are right.")
    else:
        print(f"The configuration is right ({', '.join(_files(config)) or 'defaults only'}).")
    return 0


def _files(config: Config) -> list[str]:
    return sorted(
        {source.rpartition(":")[0] for source in config.sources.values() if ":" in source}
    )


def _check_users(config: Config) -> None:
    """A target's user must exist on this machine; other machines may differ, so load() is not
    the place for it.
    """
    names = dict.fromkeys(target.user for target in config.targets or ())
    missing = [name for name in names if find_user(name) is None]
    if missing:
        users = ", ".join(map(repr, missing))
        verb, noun = ("is", "user") if len(missing) == 1 else ("are", "users")
        raise ConfigInvalid(
            "unknown_user",
            f"{config.sources.get('targets', 'targets')}: targets: there {verb} no {noun} {users} "
            "on this machine.",
            "Correct targets, or create the missing account; then run: keysync config check",
        )


def show(options: argparse.Namespace) -> int:
    """Each option with its value and source; of the API key only the last characters."""
    config = config_file.load(options.config, os.environ)
    rows = [("OPTION", "VALUE", "SOURCE"), *effective_options(config)]
    try:
        credential = find_credential(config.api_key_file, os.environ)
        rows.append(("(API key)", credential.masked, credential.source))
    except CredentialRejected as error:
        rows.append(("(API key)", "none", error.message))
    print_table(rows)
    _print_age_of_agent(config)
    return 0


def _print_age_of_agent(config: Config) -> None:
    """What is shown is on the disk; an agent that started before may use something else."""
    heartbeat = read_heartbeat(config.state_dir)
    if heartbeat is None or heartbeat.condition() not in (Condition.RUNNING, Condition.OVERDUE):
        return
    for path in _files(config):
        changed = time_text(datetime.fromtimestamp(int(os.stat(path).st_mtime), timezone.utc))
        if changed > heartbeat.started.at:
            print(
                f"\n{path} was changed at {changed}, after the running agent started "
                f"({heartbeat.started.at}).\nUnless it was reloaded since, the agent uses the "
                "earlier configuration: systemctl reload keysync\n(or kill -HUP "
                f"{heartbeat.pid})"
            )
