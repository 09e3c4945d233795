"""Shows the steps of install and uninstall, and runs them in order."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from agent.cli.terminal import coloured
from agent.errors import TargetFailed
from agent.setup.steps import Step


def run_steps(steps: Iterable[Step], *, dry_run: bool) -> None:
    """Prints each step and, unless it is a dry run, runs it. Raises TargetFailed at a failure."""
    for step in steps:
        print(coloured("would " if dry_run else "- ", "dim") + step.text)
        sys.stdout.flush()  # a step is shown before it runs
        if dry_run:
            continue
        try:
            step.do()
        except TargetFailed as error:
            error.message = f"This step failed, so the later ones were not run: {error.message}"
            raise
