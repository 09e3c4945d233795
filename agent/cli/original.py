"""`keysync original`: the bytes of a key file from before keysync's first change."""

from __future__ import annotations

import argparse
import os
import sys

from agent import config_file
from agent.adapters.originals import Original
from agent.adapters.state import StateDirectory
from agent.errors import EXIT_OK, ConfigInvalid, TargetFailed

_LONGEST_NAME = 32  # of a user (useradd(8))


def run(options: argparse.Namespace) -> int:
    """Writes exactly the saved bytes to stdout; raises TargetFailed when there are none."""
    # A configuration that is wrong elsewhere will do: its effect may be what is to be undone.
    try:
        state_dir = config_file.load(options.config, os.environ).state_dir
    except ConfigInvalid as error:
        if error.kind == "config_missing":
            raise
        state_dir = config_file.state_dir_of(options.config, os.environ)
    originals = StateDirectory(state_dir).originals()
    original = _chosen(originals, options.target, state_dir)
    if original.data is None:
        raise TargetFailed(
            "original_absent",
            f"There was no file {original.path} before keysync made it ({original.saved_at}).",
            "keysync uninstall --restore-original would remove this file.",
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(original.data)
    return EXIT_OK


def _chosen(originals: list[Original], target: str, state_dir: str) -> Original:
    """By path if there is a slash in `target`, else by user. Raises TargetFailed."""
    if "/" in target:
        paths = {os.path.abspath(target), os.path.realpath(target)}
        found = [o for o in originals if {o.path, os.path.realpath(o.path)} & paths]
    else:
        found = [o for o in originals if o.user == target]
    if len(found) == 1:
        return found[0]
    if found:
        raise TargetFailed(
            "original_ambiguous",
            f"keysync changed {len(found)} files of {target}.",
            "Name one of them: " + ", ".join(o.path for o in found),
        )
    if not target.startswith(("/", ".")) and len(target) > _LONGEST_NAME:
        target = "that user"  # not repeated: it could be an API key in the wrong place (G10)
    known = ", ".join(f"{o.path} ({o.user})" for o in originals) or "none"
    raise TargetFailed(
        "original_missing",
        f"No original of {target} is saved in {state_dir}: keysync never changed it.",
        f"Saved originals: {known}",
    )
