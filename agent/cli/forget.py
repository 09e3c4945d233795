"""`keysync forget`: releases a key file that was a target."""

from __future__ import annotations

import argparse
import os

from agent import config_file
from agent.cli.hints import configuration_needed
from agent.errors import EXIT_OK
from agent.service.forget import forget
from agent.service.report import counted


def run(options: argparse.Namespace) -> int:
    """Prints one line for each file that was released, or would be. Raises KeysyncError."""
    with configuration_needed("keysync forget"):
        config = config_file.load(options.config, os.environ)
    for one in forget(config, options.target, dry_run=options.dry_run):
        would = "would be " if options.dry_run else ""
        tags = f"{counted(one.lines, 'line')} without the tag, every key stays"
        print(f"{would}released: {one.user}  {one.path} ({tags})")
    return EXIT_OK
