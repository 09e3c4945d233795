"""`keysync config check` and `keysync config show`."""

from __future__ import annotations

import argparse
import os

from agent import config as configuration
from agent.adapters.credential import find_credential
from agent.cli.terminal import print_table
from agent.errors import CredentialRejected


def check(options: argparse.Namespace) -> int:
    """Says that the configuration is right; when it is not, loading it raises ConfigInvalid."""
    config = configuration.load(options.config, os.environ)
    files = {source.rpartition(":")[0] for source in config.sources.values() if ":" in source}
    print(f"The configuration is right ({', '.join(sorted(files)) or 'defaults only'}).")
    return 0


def show(options: argparse.Namespace) -> int:
    """Each option with its value and source; of the API key only the last characters."""
    config = configuration.load(options.config, os.environ)
    rows = [("OPTION", "VALUE", "SOURCE"), *configuration.effective(config)]
    try:
        credential = find_credential(config.api_key_file, os.environ)
        rows.append(("(API key)", credential.masked, credential.source))
    except CredentialRejected as error:
        rows.append(("(API key)", "none", error.message))
    print_table(rows)
    return 0
