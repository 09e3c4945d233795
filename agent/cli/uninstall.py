"""`keysync uninstall`: shows the effect on the key files, asks once, and runs each step."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys

from agent.adapters.clock import now_text
from agent.cli.hints import configuration_needed
from agent.cli.install import refuse_other_config, run_steps
from agent.cli.terminal import coloured, print_error, print_table
from agent.errors import EXIT_NO_WAY_IN, EXIT_OK, EXIT_USAGE
from agent.service.report import counted
from agent.setup.host import find_host
from agent.setup.layout import find_layout
from agent.setup.restore import Restoration
from agent.setup.uninstall import KeyFiles, Removal, load_config, plan_uninstall

_MEANING = {
    KeyFiles.STAY: "The key files would not change, so the same keys could log in. (--keep-keys "
    "also removes\nkeysync's tag from its lines; --restore-original restores the original files.)",
    KeyFiles.LOSE_TAGS: "The key files would keep every key; keysync's lines would lose their tag.",
    KeyFiles.RESTORED: "Each key file would be restored to what it was before keysync's first "
    "change:",
}


def run(options: argparse.Namespace) -> int:
    """Returns 0 when everything is removed, 2 when the user declined, 4 when a user would be locked
    out. Raises KeysyncError when a step fails.
    """
    layout = find_layout()
    refuse_other_config(options, layout)
    choice = _choice(options)
    machine = find_host()
    with configuration_needed("keysync uninstall"):
        config = load_config(layout)
    plan = functools.partial(plan_uninstall, machine, layout, config, choice, now_text())
    preview = plan()
    print(coloured(f"this machine: {machine.describe()}", "bold"))
    if not preview.stop and not preview.rest:
        print("Nothing of keysync is set up here.")
        return EXIT_OK
    _print_preview(preview, choice)
    if not options.allow_lockout and _locks_out(preview, "nothing was done"):
        return EXIT_NO_WAY_IN
    if options.dry_run:
        run_steps([*preview.stop, *preview.rest], dry_run=True)
        return EXIT_OK
    if not options.yes and not _agreed():
        return EXIT_USAGE
    run_steps(preview.stop, dry_run=False)
    final = plan()  # the agent worked until now
    if not options.allow_lockout and _locks_out(final, "only the service was stopped"):
        return EXIT_NO_WAY_IN
    run_steps(final.rest, dry_run=False)
    print(
        f"keysync is removed. Its state and configuration are saved in {final.backup}, which only "
        f"you can read.\nThe program itself stays: {machine.program}"
    )
    return EXIT_OK


def _choice(options: argparse.Namespace) -> KeyFiles:
    if options.restore_original:
        return KeyFiles.RESTORED
    return KeyFiles.LOSE_TAGS if options.keep_keys else KeyFiles.STAY


def _print_preview(plan: Removal, choice: KeyFiles) -> None:
    print("The service, the configuration, the copy of the API key and the state would be removed.")
    print(_MEANING[choice])
    for file in plan.consequences.files:
        _print_file(file)


def _print_file(file: Restoration) -> None:
    original = file.original
    size = "no file" if original.data is None else counted(len(original.data), "byte")
    print(coloured(f"{original.user}  {original.path}", "bold") + f"  {size} ({original.saved_at})")
    rows = [("-", key.fingerprint, key.comment, f"would go: {key.note}") for key in file.removed]
    rows += [
        ("+", key.fingerprint, key.comment, f"would come back: {key.note}") for key in file.returned
    ]
    colours = ["red"] * len(file.removed) + ["yellow"] * len(file.returned)
    print_table(rows, colours, "  ")
    if file.other_lines:
        print(f"  - {counted(file.other_lines, 'line')} without a key")
    if not rows and not file.other_lines:
        print("  the same keys")


def _locks_out(plan: Removal, outcome: str) -> bool:
    """Whether a user would lose the last way in; if so, prints that and the `outcome`."""
    if not plan.consequences.locked_out:
        return False
    users = ", ".join(plan.consequences.locked_out)
    print_error(
        f"keysync: Nobody could log in as {users} any more, so {outcome}.\n"
        "To keep the keys, leave out --restore-original. To go on anyway: --allow-lockout"
    )
    return True


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print_error("keysync: Nothing was done. Add --yes to go on without being asked.")
        return False
    with contextlib.suppress(EOFError):
        if input("Remove keysync? [y/N] ").strip().lower() in ("y", "yes"):
            return True
    print("Nothing was done.")
    return False
