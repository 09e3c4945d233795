"""`keysync uninstall`: says what it will do and what the choices are, asks, and then does it."""

from __future__ import annotations

import argparse
import contextlib
import sys

from agent.adapters import host
from agent.cli.install import refuse_other_config
from agent.cli.steps import follow
from agent.cli.terminal import coloured
from agent.errors import EXIT_OK, EXIT_USAGE
from agent.service.layout import find_layout
from agent.service.sync import now_text
from agent.service.uninstall import KeyFiles, load_config, plan_uninstall

_CHOICES = """\
The service, its files, the configuration, the copy of the API key and the state are removed. What
becomes of the key files is your choice:
  (neither flag)      they stay as they are: who can log in stays the same, and the tag
                      keysync:managed at the end of a line is only a comment
  --keep-keys         the same, and keysync's lines lose their tag
  --restore-original  each file gets back the bytes it had before keysync's first change: keys added
                      since then cannot log in any more, and keys DELETED on the console since then
                      can again. The platform's recipe with the file's MD5 works again.
"""


def run(options: argparse.Namespace) -> int:
    """Exit code 0 when all is removed, 2 when nobody said yes, else that of the failed step."""
    layout = find_layout()
    refuse_other_config(options, layout)
    choice = KeyFiles.STAY
    if options.restore_original:
        choice = KeyFiles.RESTORED
    elif options.keep_keys:
        choice = KeyFiles.LOSE_TAGS
    machine = host.find_host()
    config, now = load_config(layout), now_text()
    plan = plan_uninstall(machine, layout, config, choice, now)
    print(_CHOICES)
    print(f"this machine: {machine.describe()}; the key files: {coloured(choice.value, 'bold')}")
    if not plan.stop and not plan.rest:
        print("Nothing of keysync is set up here.")
        return EXIT_OK
    follow([*plan.stop, *plan.rest], dry_run=True)
    if options.dry_run:
        return EXIT_OK
    if not options.yes and not _agreed():
        return EXIT_USAGE
    follow(plan.stop, dry_run=False)
    plan = plan_uninstall(machine, layout, config, choice, now)  # with what was done until then
    follow(plan.rest, dry_run=False)
    print(
        f"keysync is removed. What was saved is in {plan.backup}, for you alone.\n"
        f"The program itself stays: {machine.program}"
    )
    return EXIT_OK


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("keysync: Nothing was done. Say --yes to do it without a question.", file=sys.stderr)
        return False
    with contextlib.suppress(EOFError):
        if input("Do it? [y/N] ").strip().lower() in ("y", "yes"):
            return True
    print("Nothing was done.")
    return False
