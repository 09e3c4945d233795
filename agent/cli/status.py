"""`keysync status`: who can log in, for a person or as one JSON object."""

from __future__ import annotations

import argparse
import json
import os

from agent import config as configuration
from agent.cli.terminal import ago, coloured, print_table
from agent.service.login import NO
from agent.service.status import Status, TargetStatus, read_status

_COLOURS = {"managed": "green", "pinned": "green", "restricted": "yellow", "foreign": ""}


def run(options: argparse.Namespace) -> int:
    """Prints the status; the exit code is 0 unless something is unreadable or the state stale."""
    config = configuration.load(options.config, os.environ)
    status = read_status(config)
    if options.json:
        print(json.dumps(status.as_json(), indent=2))
    else:
        _print(status)
    return status.exit_code


def _print(status: Status) -> None:
    for target in status.targets:
        _print_target(target)
    account = status.ledger.account_id
    print(f"account       {'not known yet' if account is None else account}")
    last = status.ledger.last_success
    text = f"{ago(status.age)} ({last})" if last else "never"
    print("last success  " + (coloured(text + "  TOO OLD", "red") if status.stale else text))
    _print_trouble(status)


def _print_trouble(status: Status) -> None:
    hold = status.ledger.hold
    if hold and not hold.confirmed:
        text = f"held          {hold.reason}: seen in {hold.seen} of {hold.needed} polls in a row"
        print(coloured(text, "yellow"))
        print("              If it is meant: keysync sync --confirm-removals")
    for entry in status.ledger.rejected:
        text = f"rejected      key {entry.key_id}: {entry.detail} ({entry.reason})"
        print(coloured(text, "yellow"))
    failure = status.ledger.last_failure
    if failure:
        when = f"{failure.at}, {'not solved' if status.failing else 'solved since'}"
        text = f"last error    {failure.kind} ({when}): {failure.message}"
        print(coloured(text, "red") if status.failing else text)
        if status.failing:
            print(f"              {failure.hint}")
    if status.state_problem:
        print(coloured(f"state         could not be read: {status.state_problem}", "red"))


def _print_target(target: TargetStatus) -> None:
    print(coloured(f"{target.user}  {target.path}", "bold"))
    if target.problem:
        print(coloured(f"  {target.problem.message}", "red"))
        print(f"  {target.problem.hint}")
    elif all(key.login == NO for key in target.keys):
        print("  no key can log in")
    rows = [("ACCESS", "KEY", "TYPE", "COMMENT", "SINCE", "NOTE")] if target.keys else []
    for key in target.keys:
        access = key.access if not key.options else f"{key.access} ({','.join(key.options)})"
        since = (key.since or "")[:10]
        rows.append((access, key.fingerprint, key.key_type, key.comment, since, key.note))
    print_table(rows, ["dim", *(_COLOURS[key.access] for key in target.keys)], "  ")
    if any(key.access == "foreign" for key in target.keys):
        print("  foreign: not on the account's list as far as known; left as it is")
    print()
