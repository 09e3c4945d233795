"""`keysync config check` and `keysync config show`."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from agent.config import DEFAULT_PATH
from sandbox.console import Console
from sandbox.users import current_user
from tests.support.machine import API_KEY, Machine, clean_environment, fingerprint, key_line

PIN = key_line("emergency")


def test_check(machine: Machine) -> None:
    """Commands: a right configuration is said to be right, with the file it was read from."""
    done = machine.here("config", "check")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == f"The configuration is valid ({machine.config}).\n"


@pytest.mark.skipif(os.path.lexists(DEFAULT_PATH), reason="needs a machine without keysync")
def test_check_without_a_file(machine: Machine) -> None:
    """Commands: that there is none is said, since one with another name is not read."""
    done = machine.here("--config", "", "config", "check")
    assert (done.code, done.stdout) == (
        0,
        f"{DEFAULT_PATH} does not exist; the defaults apply.\n",
    )


def test_check_of_a_wrong_one(machine: Machine) -> None:
    """Commands: a wrong one ends with 78, every problem with its line on stderr, and what to do."""
    machine.config.write_text("poll:\n  intervall: 30s\napi:\n  timeout: x\n")
    done = machine.process("config", "check")
    assert (done.code, done.stdout) == (78, "")
    assert done.stderr.splitlines() == [
        f'keysync: {machine.config}:2: unknown option "poll.intervall"; did you mean "interval"?',
        f"{machine.config}:4: api.timeout must be a time such as 500ms, 30s, 10m or 2h",
        f"Correct it, then run: keysync --config {machine.config} config check",
    ]


@pytest.mark.parametrize(
    ("users", "words"),
    [
        (["nobody-here"], "there is no user 'nobody-here' on this machine"),
        (["nobody-here", "nor-here"], "there are no users 'nobody-here', 'nor-here' on this"),
    ],
)
def test_check_of_a_user_that_does_not_exist(
    machine: Machine, users: list[str], words: str
) -> None:
    """Configuration: a target's user who does not exist is an error, named with its line."""
    machine.configure(targets="\n".join(f"  - {{user: {name}}}" for name in users))
    done = machine.here("config", "check")
    assert (done.code, done.stdout) == (78, "")
    assert f"{machine.config}:4: targets: {words}" in done.stderr


@pytest.mark.parametrize("command", [["sync"], ["config", "show"]])
def test_every_command_refuses_a_wrong_one(machine: Machine, command: list[str]) -> None:
    """Commands: with a wrong configuration no command does anything but say so."""
    machine.config.write_text("targets: []\n")
    before = machine.everything()
    done = machine.here(*command)
    assert (done.code, done.stdout) == (78, "")
    assert "targets must be auto, or a list" in done.stderr
    assert machine.everything() == before


def test_show(machine: Machine, console: Console) -> None:
    """Commands: each option with value and source, and of the API key its last four characters."""
    machine.options = f"poll: {{interval: 90s}}\npins:\n  - {PIN}\n"
    machine.configure()
    machine.set_api_key(API_KEY)
    done = machine.here("config", "show", VAST_URL="https://console.example")
    assert (done.code, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["OPTION", "VALUE", "SOURCE"]
    shown = {row[0]: row[1:] for row in rows[1:-1]}
    config = str(machine.config)
    lines = machine.config.read_text().splitlines()

    def source(start: str) -> str:
        return f"{config}:{next(at for at, line in enumerate(lines, 1) if line.startswith(start))}"

    assert shown == {
        "api.url": ["https://console.example", "the", "variable", "VAST_URL"],
        "api.key_file": [str(machine.api_key_file), source("  key_file:")],
        "api.timeout": ["10s", "default"],
        "poll.interval": ["90s", source("poll:")],
        "poll.jitter": ["5s", "default"],
        "poll.max_backoff": ["600s", "default"],
        "policy.unmanaged": ["keep", "default"],
        "policy.removal_confirmations": ["3", "default"],
        "policy.min_rsa_bits": ["2048", "default"],
        "policy.max_staleness": ["900s", "default"],
        "policy.removal_hold": ["300s", "default"],
        "policy.additions": ["apply", "default"],
        "state_dir": [str(machine.state), source("state_dir:")],
        "targets[0]": [current_user(), str(machine.key_file), source("targets:")],
        "pins[0]": [fingerprint(PIN), "emergency", source("pins:")],
    }
    assert rows[-1] == ["(API", "key)", f"…{API_KEY[-4:]}", str(machine.api_key_file)]
    assert API_KEY not in done.stdout
    assert PIN.split()[1] not in done.stdout
    assert console.requests == []


def test_show_without_an_api_key(machine: Machine) -> None:
    """Commands: the configuration can be shown before there is a key; why there is none is said."""
    machine.api_key_file.chmod(0o644)
    done = machine.here("config", "show")
    assert done.code == 0
    last = done.stdout.splitlines()[-1]
    assert last.startswith("(API key)")
    assert "can be read or written by others" in last


def test_show_names_an_agent_that_started_earlier(machine: Machine, console: Console) -> None:
    """Incident 27: what is shown is the disk; a running agent that started before the file was
    changed may use something else, and that is told. When it has ended, nothing is.
    """
    words = [sys.executable, "-m", "agent", "--config", str(machine.config), "run"]
    agent = subprocess.Popen(words, env=clean_environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (machine.state / "agent.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = time.time()
        os.utime(machine.config, (started - 60, started - 60))
        assert "running agent" not in machine.here("config", "show").stdout
        os.utime(machine.config, (started + 5, started + 5))
        text = machine.here("config", "show").stdout
        assert "after the running agent started" in text
        assert "systemctl reload keysync" in text
    finally:
        agent.terminate()
        agent.wait()
    assert "running agent" not in machine.here("config", "show").stdout
