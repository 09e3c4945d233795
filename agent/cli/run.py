"""`keysync run`: the daemon in the foreground, kept by systemd, supervisor or a shell."""

from __future__ import annotations

import argparse
import gc
import os
import sys

from agent import config as configuration
from agent.config import Config
from agent.log import make_emit
from agent.service.daemon import Daemon


def run(options: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT. A configuration that is wrong at the start is an error."""
    gc.enable()  # switched off at the start, for commands that live briefly
    # Also a person who started it wants to see what it does, so info is the default here.
    emit = make_emit(options.log_level or "info", options.log_format, sys.stderr)

    def load() -> Config:
        return configuration.load(options.config, os.environ)

    return Daemon(load, os.environ, emit).run()
