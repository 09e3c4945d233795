"""`keysync config check` and `keysync config show`."""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone

from agent import config_file
from agent.adapters.credential import find_credential
from agent.adapters.heartbeat import agent_is_alive, read_heartbeat
from agent.adapters.users import find_user
from agent.cli.terminal import print_table
from agent.config import DEFAULT_PATH, Config
from agent.config_options import effective_options
from agent.core.times import time_text
from agent.errors import EXIT_OK, ConfigInvalid, CredentialRejected


def check(options: argparse.Namespace) -> int:
    """Prints that the configuration is valid. Raises ConfigInvalid when it is not."""
    config = config_file.load(options.config, os.environ)
    _check_users(config)
    chosen = config_file.chosen_path(options.config, os.environ)
    if not chosen and not os.path.lexists(DEFAULT_PATH):
        print(f"{DEFAULT_PATH} does not exist; the defaults apply.")
    else:
        print(f"The configuration is valid ({', '.join(_files(config)) or 'defaults only'}).")
    return EXIT_OK


def _files(config: Config) -> list[str]:
    return sorted(
        {source.rpartition(":")[0] for source in config.sources.values() if ":" in source}
    )


def _check_users(config: Config) -> None:
    """Raises ConfigInvalid for a target whose user does not exist on this machine.

    load() does not check that, because the same file may be right on another machine.
    """
    names = dict.fromkeys(target.user for target in config.targets or ())
    missing = [name for name in names if find_user(name) is None]
    if missing:
        users = ", ".join(map(repr, missing))
        verb, noun = ("is", "user") if len(missing) == 1 else ("are", "users")
        raise ConfigInvalid(
            "config_invalid",
            f"{config.sources.get('targets', 'targets')}: targets: there {verb} no {noun} {users} "
            "on this machine.",
            "Correct targets, or create the missing account; then run: keysync config check",
        )


def show(options: argparse.Namespace) -> int:
    """Prints each option with its value and source; of the API key only the last characters."""
    config = config_file.load(options.config, os.environ)
    rows = [("OPTION", "VALUE", "SOURCE"), *effective_options(config)]
    try:
        credential = find_credential(config.api_key_file, os.environ)
        rows.append(("(API key)", credential.masked, credential.source))
    except CredentialRejected as error:
        rows.append(("(API key)", "none", error.message))
    print_table(rows)
    _print_later_changes(config)
    return EXIT_OK


def _print_later_changes(config: Config) -> None:
    """The values shown are those on disk; an agent that started earlier may use other ones."""
    heartbeat = read_heartbeat(config.state_dir)
    if heartbeat is None or not agent_is_alive(heartbeat):
        return
    for path in _files(config):
        changed = time_text(datetime.fromtimestamp(int(os.stat(path).st_mtime), timezone.utc))
        if changed > heartbeat.started.at:
            print(
                f"\n{path} was changed at {changed}, after the running agent started "
                f"({heartbeat.started.at}).\nUnless it was reloaded since, it still uses the "
                "earlier configuration. To reload it:\nsystemctl reload keysync (or kill -HUP "
                f"{heartbeat.pid})"
            )
