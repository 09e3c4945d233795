"""`keysync install`: from the account to the running service, each step shown and then done."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from agent import config_file
from agent.cli.steps import run_steps
from agent.cli.sync import print_report
from agent.cli.terminal import coloured, spinner
from agent.config import Config
from agent.errors import EXIT_OK, EXIT_UNEXPECTED, ConfigInvalid
from agent.log import make_emit
from agent.service.cycle import Request, Syncer
from agent.service.report import SyncReport
from agent.service.status import read_status
from agent.service.verdict import exit_code, judge_status
from agent.setup.host import find_host
from agent.setup.install import Installation, plan_install
from agent.setup.layout import Layout, find_layout
from agent.setup.manager import ServiceState


def run(options: argparse.Namespace) -> int:
    """Does the steps; the exit code is the first sync's, else the service's, unless a step failed.

    The last line is the verdict.
    """
    layout = find_layout()
    refuse_other_config(options, layout)
    machine = find_host()
    print(coloured(f"this machine: {machine.describe()}", "bold"))
    plan = plan_install(machine, layout, os.environ)
    run_steps(plan.prepare, dry_run=options.dry_run)
    print(coloured("first sync (nothing is changed)" if options.dry_run else "first sync", "bold"))
    report = _sync(plan, options)
    print_report(report)
    run_steps(plan.start, dry_run=options.dry_run)
    if options.dry_run:
        _print_remarks(plan)
        return report.exit_code
    print(coloured("service", "bold"))
    service = machine.manager.state(plan.config)
    print(service.text)
    _print_remarks(plan)
    _print_verdict(report, service)
    return report.exit_code or _exit_code_of(service, plan.config)


def refuse_other_config(options: argparse.Namespace, layout: Layout) -> None:
    """The service, the hook and the commands all read one file; another one would part them."""
    other = options.config or os.environ.get("KEYSYNC_CONFIG")
    if other and other != layout.config:
        raise ConfigInvalid(
            "config_elsewhere",
            f"install and uninstall work with {layout.config} only, not with {other}.",
            f"Leave out --config and KEYSYNC_CONFIG, or put the file at {layout.config}.",
        )


def _sync(plan: Installation, options: argparse.Namespace) -> SyncReport:
    config = plan.config
    if not options.dry_run:  # from here on, what is on the disk
        config = config_file.load(plan.layout.config, os.environ)
    emit = make_emit(options.log_level, options.log_format, sys.stderr)
    syncer = Syncer(config, os.environ, emit)
    with spinner("asking the console for the account's SSH keys"):
        report = syncer.sync(Request(dry_run=options.dry_run))
    syncer.close()
    return report


def _exit_code_of(service: ServiceState, config: Config) -> int:
    """Of a failure, what `keysync status` says of it."""
    if not service.is_failure:
        return EXIT_OK
    return exit_code(judge_status(read_status(config, service=True))) or EXIT_UNEXPECTED


def _print_verdict(report: SyncReport, service: ServiceState) -> None:
    if service.is_failure:
        print(coloured(f"PROBLEM: the service reports a failure: {service.text}", "red"))
        print(service.fix)
    elif report.exit_code:
        why = report.problem.message if report.problem else "nobody can log in as a target's user"
        print(coloured(f"PROBLEM: keysync is set up, but not in sync: {why}", "red"))
    else:
        print(coloured("OK: keysync is set up, and the key files are in sync.", "green"))


def _print_remarks(plan: Installation) -> None:
    _print_key_problem(plan)
    _print_unsaved_url(plan)


def _print_key_problem(plan: Installation) -> None:
    if plan.key_problem is None:
        return
    path = shlex.quote(plan.layout.api_key)
    print(coloured("the API key is missing", "yellow"))
    if plan.key_problem.kind != "credential_missing":
        print(plan.key_problem.message)
    print(
        "Make one with the permission user_read on the console's Keys page, and put it, alone on "
        f"one line, into {path}:\n  cat >{path}    # paste, Enter, Ctrl-D\n"
        "A running agent notices it within seconds and polls at once, whenever the next poll is "
        "planned."
    )


def _print_unsaved_url(plan: Installation) -> None:
    if plan.unsaved_url is None:
        return
    print(coloured("VAST_URL is not in the configuration", "yellow"))
    print(
        f"The first sync asked {plan.unsaved_url}, as VAST_URL says here. The service does not see "
        f"that variable and asks what {plan.layout.config} says, which is left as it is. Put it "
        f"under api: there, as\n  url: {plan.unsaved_url}\nand run this again."
    )
