"""`keysync install`: from the account to the running service, each step shown and then done."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time

from agent import config as configuration
from agent.adapters import host
from agent.adapters.host import Host, Manager
from agent.cli.steps import follow
from agent.cli.sync import print_report
from agent.cli.terminal import coloured, spinner
from agent.errors import ConfigInvalid
from agent.log import make_emit
from agent.service.install import Installation, plan_install
from agent.service.layout import PROGRAM, SERVICE, Layout, find_layout
from agent.service.report import SyncReport
from agent.service.sync import Request, Syncer

_STARTING_SECONDS = 10.0
_PAUSE_SECONDS = 0.2


def run(options: argparse.Namespace) -> int:
    """Does the steps; the exit code is the first sync's unless a step failed."""
    layout = find_layout()
    refuse_other_config(options, layout)
    machine = host.find_host()
    print(coloured(f"this machine: {machine.describe()}", "bold"))
    plan = plan_install(machine, layout, os.environ)
    follow(plan.prepare, dry_run=options.dry_run)
    print(coloured("first sync (nothing is changed)" if options.dry_run else "first sync", "bold"))
    report = _sync(plan, options)
    print_report(report)
    follow(plan.start, dry_run=options.dry_run)
    if not options.dry_run:
        print(coloured("service", "bold"))
        print(_service(machine, layout))
    _print_key_problem(plan)
    _print_unsaved_url(plan)
    return report.exit_code


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
        config = configuration.load(plan.layout.config, os.environ)
    emit = make_emit(options.log_level, options.log_format, sys.stderr)
    syncer = Syncer(config, os.environ, emit)
    with spinner("asking the console for the account's SSH keys"):
        report = syncer.sync(Request(dry_run=options.dry_run))
    syncer.close()
    return report


def _service(machine: Host, layout: Layout) -> str:
    """How the service is, or how to have one."""
    if machine.manager is Manager.SYSTEMD:
        show = ("systemctl", "show", SERVICE, "--property")
        state = host.words_of(*show, "ActiveState", "--value")
        return f"{SERVICE} is {state}: {host.words_of(*show, 'StatusText', '--value')}"
    if machine.manager is Manager.SUPERVISOR and machine.manager_runs:
        return _supervised()
    if machine.manager is Manager.SUPERVISOR:
        return "supervisor does not run yet; it starts the agent when it starts."
    agents = host.running_agents(machine.program)
    if agents:
        return (
            f"The agent runs (process {agents[0]}), with the version and configuration of its "
            "start; end it and start it again for newer ones."
        )
    more = "" if machine.is_root else f" --config {shlex.quote(layout.config)}"
    return (
        "Nothing here keeps a service running. Start the agent with whatever starts this "
        f"machine's programs:\n  {machine.program}{more} run"
    )


def _supervised() -> str:
    """Supervisor's word on the agent, once it has made up its mind (startsecs)."""
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        found = host.words_of("supervisorctl", "status", PROGRAM)
        if "STARTING" not in found or time.monotonic() >= deadline:
            return found
        time.sleep(_PAUSE_SECONDS)


def _print_key_problem(plan: Installation) -> None:
    if plan.key_problem is None:
        return
    path = shlex.quote(plan.layout.api_key)
    print(coloured("the API key is missing", "yellow"))
    if plan.key_problem.kind != "credential_missing":
        print(plan.key_problem.message)
    print(
        "Make one with the permission user_read on the console's Keys page. The agent finds it "
        f"within seconds when it stands, alone on one line, in {path}:\n  nano {path}"
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
