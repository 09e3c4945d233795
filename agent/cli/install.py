"""`keysync install`: shows and runs each step, from the account to the running service."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable

from agent import config_file
from agent.cli.sync import print_report
from agent.cli.terminal import coloured, progress
from agent.config import Config
from agent.errors import EXIT_OK, EXIT_UNEXPECTED, ConfigInvalid, TargetFailed
from agent.log import make_emit
from agent.providers import provider
from agent.service.cycle import Request, Syncer
from agent.service.read_status import read_status
from agent.service.report import SyncReport
from agent.service.verdict import exit_code, judge_status
from agent.setup.host import find_host
from agent.setup.install import Installation, plan_install
from agent.setup.layout import Layout, find_layout
from agent.setup.manager import ServiceState
from agent.setup.steps import Step


def run(options: argparse.Namespace) -> int:
    """Runs the steps and prints a verdict last.

    Returns the first sync's exit code, or the service's if that is 0. Raises KeysyncError when a
    step fails.
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
        _print_key_problem(plan)
        _print_unsaved_url(plan)
        return report.exit_code
    print(coloured("service", "bold"))
    service = machine.manager.state(plan.config)
    print(service.text)
    _print_key_problem(plan)
    _print_unsaved_url(plan)
    _print_verdict(report, service)
    return report.exit_code or _exit_code_of(service, plan.config)


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


def refuse_other_config(options: argparse.Namespace, layout: Layout) -> None:
    """Raises ConfigInvalid: the service, the boot hook and the commands must read the same file."""
    other = config_file.chosen_path(options.config, os.environ)
    if other and other != layout.config:
        raise ConfigInvalid(
            "config_elsewhere",
            f"install and uninstall use {layout.config} only, not {other}.",
            f"Leave out --config and KEYSYNC_CONFIG, or put the file at {layout.config}.",
        )


def _sync(plan: Installation, options: argparse.Namespace) -> SyncReport:
    config = plan.config
    if not options.dry_run:  # the configuration has been written
        config = config_file.load(plan.layout.config, os.environ)
    emit = make_emit(options.log_level, options.log_format, sys.stderr)
    syncer = Syncer(config, os.environ, emit)
    with progress("asking the console for the account's SSH keys"):
        report = syncer.sync(Request(dry_run=options.dry_run))
    syncer.close()
    return report


def _exit_code_of(service: ServiceState, config: Config) -> int:
    """0 if the service is well, else the exit code of `keysync status`, or 1."""
    if not service.fix:
        return EXIT_OK
    return exit_code(judge_status(read_status(config, service=True))) or EXIT_UNEXPECTED


def _print_verdict(report: SyncReport, service: ServiceState) -> None:
    if service.fix:
        print(coloured(f"PROBLEM: the service reports a failure: {service.text}", "red"))
        print(service.fix)
    elif report.exit_code:
        why = report.problem.message if report.problem else "nobody can log in as a target's user"
        print(coloured(f"PROBLEM: keysync is set up, but not in sync: {why}", "red"))
    else:
        print(coloured("OK: keysync is set up, and the key files are in sync.", "green"))


def _print_key_problem(plan: Installation) -> None:
    if plan.key_problem is None:
        return
    path = shlex.quote(plan.layout.api_key)
    print(coloured("the API key is missing", "yellow"))
    if plan.key_problem.kind != "credential_missing":
        print(plan.key_problem.message)
    print(
        f"Create one with the permission {provider.API_KEY_PERMISSION} on the console's Keys page, "
        f"and put it, alone on one line, into {path}:\n  cat >{path}    # paste, Enter, Ctrl-D\n"
        "A running agent notices the key within seconds and polls at once."
    )


def _print_unsaved_url(plan: Installation) -> None:
    if plan.unsaved_url is None:
        return
    print(coloured(f"{provider.API_URL_VARIABLE} is not in the configuration", "yellow"))
    print(
        f"The first sync used {provider.API_URL_VARIABLE}, {plan.unsaved_url}. The service does "
        f"not see it and uses {plan.layout.config}, which was not changed. Add this under api: in "
        f"that file,\n  url: {plan.unsaved_url}\nand run keysync install again."
    )
