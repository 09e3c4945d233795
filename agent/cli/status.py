"""`keysync status`: the verdict first, then who can log in; as text or as one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap

from agent import config_file
from agent.cli.hints import with_config
from agent.cli.terminal import coloured, print_table
from agent.config import Config
from agent.core.access import Access
from agent.errors import ConfigInvalid
from agent.service.finding import Finding, Severity
from agent.service.read_status import read_status
from agent.service.status import KeyStatus, Status, TargetStatus
from agent.service.verdict import exit_code, judge_status
from agent.setup.host import service_is_set_up
from agent.setup.layout import find_layout

_COLOURS = {
    Access.MANAGED: "green",
    Access.PINNED: "green",
    Access.RESTRICTED: "yellow",
    Access.FOREIGN: "",
}
_WORDS = {
    Severity.PROBLEM: ("PROBLEM", "red"),
    Severity.WARNING: ("WARNING", "yellow"),
    Severity.OK: ("OK", "green"),
}
_SHORT_FINGERPRINT = len("SHA256:") + 10
_LEAST_WIDTH = 30


def run(options: argparse.Namespace) -> int:
    """Prints the status; the exit code is that of the most serious problem (docs/operations.md)."""
    status = _read(options)
    findings = [
        one._replace(fix=with_config(one.fix, options.config)) for one in judge_status(status)
    ]
    code = exit_code(findings)
    if options.json:
        verdict = [one.as_json() for one in findings]
        print(json.dumps({**status.as_json(), "verdict": verdict, "exit_code": code}, indent=2))
    elif options.check:
        print(_headline(findings[0]))
    else:
        _print(status, findings)
    return code


def _read(options: argparse.Namespace) -> Status:
    """With a wrong configuration, the status of the last sync's targets."""
    chosen = config_file.chosen_path(options.config, os.environ)
    service = chosen in (None, find_layout().config) and service_is_set_up()
    problem = None
    try:
        config = config_file.load(options.config, os.environ)
    except ConfigInvalid as error:
        config = Config(state_dir=config_file.state_dir_of(options.config, os.environ))
        problem = error
    return read_status(config, service=service, config_problem=problem)


def _headline(finding: Finding) -> str:
    return f"{_WORDS[finding.severity][0]}: {finding.text}".replace("\n", "; ")


# ---- for a person ----


def _width() -> int | None:
    """The columns of the terminal; None when the output is not a terminal."""
    if not sys.stdout.isatty():
        return None
    return max(_LEAST_WIDTH, shutil.get_terminal_size().columns)


def _print(status: Status, findings: list[Finding]) -> None:
    width = _width()
    for finding in findings:
        word, colour = _WORDS[finding.severity]
        _print_wrapped(f"{word}: {finding.text}", "", width, colour=colour)
        _print_wrapped(finding.fix, "  ", width)
    for target in status.targets:
        print()
        _print_target(target, width)
    print()
    account = status.ledger.account_id
    print(f"account       {'not known yet' if account is None else account}")
    last = status.last_success
    print(f"last success  {last.at if last else 'never'}")
    failure = status.ledger.last_failure
    if failure and not status.failing:
        text = f"last error    {failure.kind} ({failure.at}, solved since): {failure.message}"
        _print_wrapped(text, "", width, " " * 14)


def _print_wrapped(
    text: str, indent: str, width: int | None, later: str = "  ", colour: str = ""
) -> None:
    """Prints lines of at most `width` columns; only a path that is too long is broken."""
    for part in text.splitlines():
        lines = [indent + part]
        if width is not None:
            lines = textwrap.wrap(
                part,
                width,
                initial_indent=indent,
                subsequent_indent=later,
                break_on_hyphens=False,
            )
        for line in lines:
            print(coloured(line, colour))


def _print_target(target: TargetStatus, width: int | None) -> None:
    heading = f"{target.user}  {target.path}  ({target.origin.value})"
    _print_wrapped(heading, "", width, colour="bold")
    if target.problem:
        _print_wrapped(target.problem.message, "  ", width)
    elif not any(key.is_accepted for key in target.keys):
        print("  no key can log in")
    _print_keys(target.keys, width)
    if any(key.access is Access.FOREIGN for key in target.keys):
        note = "foreign: not on the account's list, as far as keysync knows; left as it is"
        _print_wrapped(note, "  ", width)


def _print_keys(keys: tuple[KeyStatus, ...], width: int | None) -> None:
    """A table if it fits, else two lines for each key, with shortened fingerprints."""
    if not keys:
        return
    rows = [("ACCESS", "KEY", "TYPE", "COMMENT", "SINCE", "NOTE"), *map(_row, keys)]
    columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is None or 2 + sum(columns) + 2 * (len(columns) - 1) <= width:
        print_table(rows, ["dim", *(_COLOURS[key.access] for key in keys)], "  ")
        return
    for key in keys:
        access, fingerprint, key_type, comment, since, note = _row(key)
        short = fingerprint[:_SHORT_FINGERPRINT] + "…"
        heading = f"{access}  {short}  {comment}"
        _print_wrapped(heading, "  ", width, "    ", _COLOURS[key.access])
        about = ", ".join(part for part in (key_type, since and f"since {since}", note) if part)
        _print_wrapped(about, "    ", width, "    ")


def _row(key: KeyStatus) -> tuple[str, str, str, str, str, str]:
    options = f" ({','.join(key.options)})" if key.options else ""
    access = key.access.value + options
    since = (key.since or "")[:10]
    return access, key.fingerprint, key.key_type, key.comment, since, key.note
