"""`keysync sync`: one cycle, as text or as one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import sys

from agent import config_file
from agent.adapters.heartbeat import agent_is_alive, read_heartbeat
from agent.adapters.state import StateDirectory
from agent.cli.hints import emit_with_config, with_config
from agent.cli.terminal import coloured, print_table, progress
from agent.config import Config
from agent.core.desired_keys import Entry, Reason
from agent.core.results import STANDING, Change, Result, Trigger
from agent.errors import ConfigInvalid
from agent.log import make_emit
from agent.service.boot import sync_until
from agent.service.cycle import Request, Syncer
from agent.service.log_dedup import StreakFilter
from agent.service.report import (
    MAX_SHOWN,
    Problem,
    SyncReport,
    TargetReport,
    counted,
    lockout_hint,
    lost_state,
)

_MARKS: tuple[tuple[Change, str, str, str, str], ...] = (
    ("added", "+", "added", "would be added", "green"),
    ("adopted", "~", "adopted", "would be adopted", "yellow"),
    ("removed", "-", "removed", "would be removed", "red"),
)
_WHY: dict[Reason, str] = {
    "revoked": "no longer on the console",
    "unlisted": "not on the console",
    "unmanaged": "not on the console (policy.unmanaged: remove)",
    "duplicate": "another line holds the same key",
    "restricted_line_exists": "a restricted line holds this key",
    "pinned": "pinned in the configuration",
    "entry_rejected": "its entry on the console was rejected",
    "waiting": "waits for keysync sync --confirm-additions",
    "used_beside_restricted": "a restricted line holds the same key; sshd uses this one",
    "behind_restricted": "sshd uses the restricted line for this key",
    "behind_plain": "sshd uses the plain line for this key",
    "behind_shared": "sshd uses the line for this key in a file that several users share",
}


def run(options: argparse.Namespace) -> int:
    """Runs one cycle (with --wait, several) and prints what it did. Raises ConfigInvalid."""
    config = _load(options)
    report = _sync(config, options)
    if options.json:
        _print_json(report)
        return report.exit_code
    print_report(report, options.config)
    _print_lost_states(config)
    if report.problem and not (options.wait or report.dry_run or _agent_runs(config)):
        print(with_config("No agent runs here: run keysync sync again.", options.config))
    return report.exit_code


def _load(options: argparse.Namespace) -> Config:
    try:
        return config_file.load(options.config, os.environ)
    except ConfigInvalid as error:
        if options.json:
            _print_json(SyncReport(Result.FAILED, "", options.dry_run, problem=Problem.of(error)))
        raise


def _print_json(report: SyncReport) -> None:
    print(json.dumps(report.as_json(), indent=2))


def _sync(config: Config, options: argparse.Namespace) -> SyncReport:
    # With --wait a failure may repeat, and is logged as the daemon logs a streak of failures.
    emit = make_emit(options.log_level, options.log_format, sys.stderr)
    syncer = Syncer(config, os.environ, StreakFilter(emit_with_config(emit, options.config)))
    request = Request(
        dry_run=options.dry_run,
        confirm_removals=options.confirm_removals,
        confirm_additions=tuple(options.confirm_additions),
        accept_account=options.accept_account,
        trigger=Trigger.BOOT if options.wait else Trigger.MANUAL,
    )
    with progress("asking the console for the account's SSH keys"):
        report = sync_until(lambda: syncer.sync(request), options.wait)
    syncer.close()
    return report


def _agent_runs(config: Config) -> bool:
    """Whether an agent will try again."""
    beat = read_heartbeat(config.state_dir)
    return beat is not None and agent_is_alive(beat)


def _print_lost_states(config: Config) -> None:
    for path, at in StateDirectory(config.state_dir).lost():
        print(coloured(f"WARNING: {lost_state(at)}", "yellow"))
        print(f"When that is done: rm {path}")


def print_report(report: SyncReport, config_path: str | None = None) -> None:
    """Prints what one cycle did; hints repeat --config `config_path` if it was given."""
    for target in report.targets:
        _print_target(target, config_path, dry_run=report.dry_run)
    for entry in report.rejected[:MAX_SHOWN]:
        text = f"rejected: key {entry.key_id} on the console: {entry.detail} ({entry.reason})"
        print(coloured(text, "yellow"))
    _print_more(len(report.rejected), "rejected", with_config("keysync sync --json", config_path))
    _print_waiting(report, config_path)
    _print_result(report, config_path)
    _print_lockout(report, config_path)


def _print_result(report: SyncReport, config_path: str | None) -> None:
    if report.problem:
        colour = "yellow" if report.result is Result.HELD else "red"
        print(coloured(f"{report.result}: {report.problem.message}", colour))
        print(with_config(report.problem.hint, config_path))
    elif report.listing:
        changed = "would be changed" if report.dry_run else "changed"
        what = changed if report.result is Result.CHANGED else "in sync, nothing to do"
        account = report.listing.account_id
        whose = "" if account is None else f" of account {account}"
        keys = counted(report.listing.keys, "key")
        text = f"{what} ({keys}{whose})"
        print(coloured(text, "yellow" if report.no_way_in else "green"))


def _print_lockout(report: SyncReport, config_path: str | None) -> None:
    """Printed last, because it is worse than everything else."""
    for user in report.no_way_in:
        print(coloured(f"nobody can log in as {user}: no key in its files lets anybody in", "red"))
    if report.no_way_in:
        print(with_config(lockout_hint(report.waiting), config_path))


def _print_waiting(report: SyncReport, config_path: str | None) -> None:
    """The keys that wait for confirmation (G14), and which of them a line holds anyway."""
    held_by = {
        entry.fingerprint: f"a line of {target.path} holds it now"
        for target in report.targets
        for name in STANDING
        for entry in target.entries.get(name, ())
    }
    rows = [
        (
            "waiting",
            key.fingerprint,
            key.comment,
            f"key {key.key_id}",
            held_by.get(key.fingerprint, ""),
        )
        for key in report.waiting[:MAX_SHOWN]
    ]
    print_table(rows, ["yellow"] * len(rows))
    _print_more(len(report.waiting), "waiting", with_config("keysync status --json", config_path))
    if report.waiting:
        only = report.waiting[0].fingerprint if len(report.waiting) == 1 else "FINGERPRINT"
        hint = f"To let it in: keysync sync --confirm-additions {only}"
        print(with_config(hint, config_path))


def _print_more(count: int, what: str, command: str) -> None:
    if count > MAX_SHOWN:
        print(coloured(f"{what}: and {count - MAX_SHOWN} more: {command}", "yellow"))


def _print_target(target: TargetReport, config_path: str | None, *, dry_run: bool) -> None:
    counts = ", ".join(
        f"{len(target.entries[name])} {name}" for name in STANDING if target.entries.get(name)
    )
    result = target.result.replace("_", " ")
    if dry_run and target.result is Result.CHANGED:
        result = "would change"
    print(coloured(f"{target.user}  {target.path}", "bold") + f"  {result}  {counts}".rstrip())
    _print_entries(target, dry_run=dry_run)
    for change in target.mode_changes:
        text = f"  ~  owner and mode corrected: {change.path} (it was {change.before:04o})"
        print(coloured(text, "yellow"))
    if target.problem:
        print(coloured(f"  {target.problem.message}", "red"))
        print(f"  {with_config(target.problem.hint, config_path)}")


def _print_entries(target: TargetReport, *, dry_run: bool) -> None:
    rows, colours = [], []
    for name, mark, done, planned, colour in _MARKS:
        for entry in target.entries.get(name, ()):
            rows.append(_row(mark, planned if dry_run else done, entry))
            colours.append(colour)
    for entry in target.would_remove:
        rows.append(_row("!", "held removal", entry))
        colours.append("yellow")
    for entry in target.entries.get("restricted", ()):
        if entry.reason == "revoked":
            why = "deleted on the console; this restricted line still lets it in"
            rows.append(("!", "still authorized", entry.fingerprint, entry.comment, why))
            colours.append("yellow")
    print_table(rows, colours, "  ")


def _row(mark: str, what: str, entry: Entry) -> tuple[str, str, str, str, str]:
    return (mark, what, entry.fingerprint, entry.comment, _WHY.get(entry.reason, entry.reason))
