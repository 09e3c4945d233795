"""Showing steps, and doing them one after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from agent.cli.terminal import coloured
from agent.errors import TargetFailed
from agent.setup.steps import Step


def run_steps(steps: Iterable[Step], *, dry_run: bool) -> None:
    """Prints each step and, unless it is a dry run, does it; ends at the first that fails."""
    for step in steps:
        print(coloured("would " if dry_run else "- ", "dim") + step.text)
        sys.stdout.flush()  # what is being done is seen before it is
        if dry_run:
            continue
        try:
            step.do()
        except TargetFailed as error:
            error.message = f"This step failed, and no later one was done: {error.message}"
            raise
