"""`keysync run`: the daemon in the foreground, started by systemd, supervisor or a shell."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import sys

from agent import config_file, daemon_events
from agent.cli.hints import emit_with_config
from agent.config import Config
from agent.errors import KeysyncError
from agent.log import make_emit
from agent.service.daemon import Daemon


def run(options: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT. An error at the start is logged like any other."""
    gc.enable()  # __main__ disables it, for commands that end soon
    if sys.stderr is not None:
        faulthandler.enable()  # prints every thread's stack at the watchdog's SIGABRT
    # Also on a terminal the default is info: the log is all that this command shows.
    emit = make_emit(options.log_level or "info", options.log_format, sys.stderr)
    emit = emit_with_config(emit, options.config)

    def load() -> Config:
        return config_file.load(options.config, os.environ)

    try:
        daemon = Daemon(load, os.environ, emit)
    except KeysyncError as error:
        emit(
            daemon_events.AgentStartFailed(kind=error.kind, message=error.message, hint=error.hint)
        )
        return error.exit_code
    return daemon.run()
