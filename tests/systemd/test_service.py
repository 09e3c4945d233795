"""The service in a real systemd, with its sandbox: logins follow the console, whatever happens."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.support.machine import key_line
from tests.support.marks import PRIVATE_KEY, leaks, marked_keys
from tests.systemd.conftest import NewMachine
from tests.systemd.container import eventually
from tests.systemd.machine import CONFIG, SERVICE, USER, Machine, public_line

# Shortened for the tests: 60 s until the watchdog strikes, 10 s from SIGABRT to SIGKILL, 5 s until
# the restart.
_SHORT_TIMES = "[Service]\nWatchdogSec=6s\nTimeoutAbortSec=1s\nRestartSec=1s\n"
_CAPABILITIES = (0, 1, 3, 28)  # CHOWN, DAC_OVERRIDE, FOWNER, LEASE (capabilities(7))
_IMPATIENT = """\
import faulthandler, os, sys
from agent import config_file
from agent.log import make_emit
from agent.service.daemon import Daemon

faulthandler.enable()  # as `keysync run` does
emit = make_emit("info", "auto", sys.stderr)
sys.exit(Daemon(lambda: config_file.load(None, os.environ), os.environ, emit, patience=2.0).run())
"""
# Stops single threads of a process until it ends (ptrace(2): SEIZE, INTERRUPT; waitpid: __WALL).
_HOLD = """\
import ctypes, os, sys
ptrace = ctypes.CDLL(None).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for thread in map(int, sys.argv[1:]):
    for request in (0x4206, 0x4207):
        assert ptrace(request, thread, None, None) == 0
while True:
    try:
        os.waitpid(-1, 0x40000000)
    except ChildProcessError:
        break
"""
_names = (f"key{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def booted(machines: NewMachine) -> Iterator[Machine]:
    """One boot for all; an account with a key that always stays, and root's own key from before."""
    with machines() as machine:
        machine.drop_in(SERVICE, _SHORT_TIMES)
        stays = machine.new_key("stays")
        with machine.serving() as console:
            console.add_key(public_line(stays))
            machine.boot()
            machine.await_booted()
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The console serves, and the agent is in step with it, before and after each test."""
    with booted.serving():
        _await_sync(booted)
        yield booted
    booted.check_journal()


@pytest.fixture
def console(machine: Machine) -> Console:
    return machine.console


def _await_sync(machine: Machine) -> None:
    """A sync that began after this call was made has succeeded."""
    text = machine.new_key(next(_names))
    key_id = machine.console.add_key(public_line(text))
    comment = text.name.encode()
    path = machine.path("/home_ssh/root/.ssh/authorized_keys")
    eventually(lambda: comment in path.read_bytes(), "a sync that succeeds", 30)
    machine.console.delete_key(key_id)
    eventually(lambda: comment not in path.read_bytes(), "a sync that succeeds", 30)


def _new_key(machine: Machine) -> Path:
    return machine.new_key(next(_names))


@contextmanager
def _same_process(machine: Machine) -> Iterator[None]:
    """The agent is not restarted in this block."""
    before = machine.show(SERVICE, "MainPID")
    assert before != "0"
    yield
    assert machine.show(SERVICE, "MainPID") == before


def test_logins_follow_the_console(machine: Machine, console: Console) -> None:
    """Add, edit and delete on the console decide who gets in, for root, whose .ssh is root's own
    link to another folder, and for a user whose file only `sshd -T` knows the place of.
    """
    first, second = _new_key(machine), _new_key(machine)
    key_id = console.add_key(public_line(first))
    for user in ("root", USER):
        machine.await_login(first, user)
    console.edit_key(key_id, public_line(second))
    for user in ("root", USER):
        machine.await_login(second, user)
        machine.await_refusal(first, user)
    console.delete_key(key_id)
    for user in ("root", USER):
        machine.await_refusal(second, user)
    assert machine.path("/root/.ssh").is_symlink()
    assert machine.events("target.defaulted") == [], "sshd could be asked"


def test_a_reset_api_key_needs_no_restart(machine: Machine, console: Console) -> None:
    """Between reset and replacement the key is refused and everybody keeps access; afterwards the
    agent goes on with the new one by itself.
    """
    key = _new_key(machine)
    with _same_process(machine):
        api_key = console.reset_api_key()
        eventually(
            lambda: any(e["kind"] == "credential_rejected" for e in machine.events("sync.failed")),
            "the old API key is refused",
        )
        machine.set_api_key(api_key)
        console.add_key(public_line(key))
        machine.await_login(key)


def test_a_broken_configuration_is_not_taken(machine: Machine, console: Console) -> None:
    """`systemctl reload` with a broken file is reported, and the agent goes on with the old one;
    a right one is taken.
    """
    key, pin = _new_key(machine), _new_key(machine)
    try:
        with _same_process(machine):
            machine.configure("pol: {interval: 1s}\n")
            machine.run("systemctl", "reload", SERVICE)
            eventually(lambda: machine.events("config.rejected"), "the broken file is reported")
            console.add_key(public_line(key))
            machine.await_login(key)
            machine.configure(f"{CONFIG}pins: ['{public_line(pin)}']\n")
            machine.run("systemctl", "reload", SERVICE)
            machine.await_login(pin)
    finally:
        machine.configure()
        machine.run("systemctl", "reload", SERVICE)


def test_the_watchdog_restarts_a_stopped_agent(machine: Machine, console: Console) -> None:
    """An agent that does not run any more (SIGSTOP) is replaced, and the new one serves."""
    key = _new_key(machine)
    restarts = int(machine.show(SERVICE, "NRestarts"))
    machine.run("systemctl", "kill", "--kill-who=main", "--signal=SIGSTOP", SERVICE)
    console.add_key(public_line(key))
    machine.await_login(key)
    assert int(machine.show(SERVICE, "NRestarts")) == restarts + 1


def test_the_watchdog_ends_a_wedged_agent(machine: Machine, console: Console) -> None:
    """When the threads that sync stand still, the main one, which lives, lets the watchdog starve
    (its patience of 80 s is shortened to 2); the journal shows where each thread stood, and the
    restarted agent goes on.
    """
    machine.write("/etc/keysync/impatient.py", _IMPATIENT)
    program = "/opt/keysync/bin/python /etc/keysync/impatient.py"
    machine.drop_in(SERVICE, f"{_SHORT_TIMES}ExecStart=\nExecStart={program}\n")
    machine.configure(CONFIG.replace("api: {", "api: {timeout: 1s, "))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", SERVICE)
    try:
        key = _new_key(machine)
        main = machine.host_pid(int(machine.show(SERVICE, "MainPID")))
        its_lines = f"_SYSTEMD_INVOCATION_ID={machine.show(SERVICE, 'InvocationID')}"
        threads = [task.name for task in Path(f"/proc/{main}/task").iterdir()]
        threads.remove(str(main))
        with subprocess.Popen([sys.executable, "-c", _HOLD, *threads]) as holder:
            console.add_key(public_line(key))
            machine.await_login(key)
            assert holder.wait(10) == 0
        assert machine.show(SERVICE, "NRestarts") == "1"
        lines = [str(r["MESSAGE"]) for r in machine.journal(its_lines)]
        assert any("agent/service/daemon.py" in line for line in lines), lines
    finally:
        machine.drop_in(SERVICE, _SHORT_TIMES)
        machine.configure()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", SERVICE)


def test_root_may_work_by_hand_beside_the_service(machine: Machine) -> None:
    """`keysync sync` by root uses the service's own state, and leaves it to the service."""
    text = machine.run("/opt/keysync/bin/keysync", "sync", "--json")
    assert '"result": "in_sync"' in text
    folder = machine.path("/var/lib/keysync")
    owners = {path.stat().st_uid for path in (folder, *folder.iterdir())}
    assert len(owners) == 1
    assert owners != {0}
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in folder.iterdir()} == {0o600}


def test_the_heartbeat_names_the_boot(machine: Machine) -> None:
    """Incidents 22, 26: the sandbox hides the boot's id, so the unit hands it to the agent."""
    boot = machine.run("cat", "/proc/sys/kernel/random/boot_id").strip().replace("-", "")

    def named() -> bool:
        text = machine.run("cat", "/var/lib/keysync/agent.json")
        return bool(json.loads(text)["last_cycle"]["boot"] == boot)

    eventually(named, "the heartbeat names the boot")


def test_a_crash_loop_is_in_the_journals_warnings(machine: Machine) -> None:
    """Incident 23: a wrong configuration at the start is an error there, with what to do."""
    try:
        machine.write("/etc/keysync/config.yaml", "polll: {}\n")
        machine.run("systemctl", "restart", "--no-block", SERVICE)

        def is_seen() -> bool:
            lines = machine.run("journalctl", "-u", SERVICE, "-p", "warning", "-o", "cat")
            return '"agent.start_failed"' in lines and "did you mean" in lines

        eventually(is_seen, "the failed start is in the journal")
    finally:
        machine.configure()
        machine.run("systemctl", "restart", SERVICE)


def test_the_journal_holds_no_secret(machine: Machine, console: Console) -> None:
    """G10: of a good sync, a key with the API key as its comment, refused entries with private text
    and a refused API key, the journal has neither eight characters of an API key, nor a key, nor
    private text, in any field of any record; nor has the service's status.
    """
    old = console.api_key
    marked = f"{key_line('one')} {old}"
    ids = [console.add_key(text) for text in (marked, PRIVATE_KEY, f"{marked} {key_line('two')}")]
    eventually(
        lambda: any("[the API key]" in e["comment"] for e in machine.events("key.added")),
        "the API key in a comment is hidden",
    )
    eventually(lambda: len(machine.events("key.rejected")) >= 1, "an entry is refused")
    new = console.reset_api_key()
    eventually(
        lambda: any(e["kind"] == "credential_rejected" for e in machine.events("sync.failed")),
        "the old API key is refused",
    )
    status = machine.show(SERVICE, "StatusText")
    machine.set_api_key(new)
    for key_id in ids:
        console.delete_key(key_id)
    _await_sync(machine)
    text = json.dumps(machine.journal("--all")) + status
    for secret in (old, new):
        assert leaks(text, *marked_keys("one", "two"), api_key=secret) == []


def test_the_agent_has_no_more_power_than_it_needs(machine: Machine) -> None:
    """Its account is no root, its capabilities are four, and it can write nothing but key files
    and its state.
    """
    pid = machine.show(SERVICE, "MainPID")
    status = dict(
        line.split(":", 1) for line in machine.run("cat", f"/proc/{pid}/status").splitlines()
    )
    assert status["Uid"].split()[0] != "0"
    desired = sum(1 << number for number in _CAPABILITIES)
    assert [int(status[f"Cap{name}"], 16) for name in ("Eff", "Bnd", "Amb")] == [desired] * 3
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    inside = ("nsenter", "-t", pid, "-m", "touch")
    for folder in ("/etc/keysync", "/usr", "/var", "/run", "/run/lock", "/run/sshd", "/dev/shm"):
        machine.run(*inside, f"{folder}/x", expect=1)
    for path in ("/root/x", f"/home/{USER}/x", "/home_ssh/x", "/var/lib/keysync/x"):
        machine.run(*inside, path)
        machine.run("rm", path)


def test_systemctl_status_says_it_in_plain_words(machine: Machine) -> None:
    """The status line names the number of keys and what comes next."""
    assert "in sync" in machine.show(SERVICE, "StatusText")


def test_an_agent_that_is_told_to_stop_stops(machine: Machine) -> None:
    """`systemctl stop` ends it in order and in time, and a start brings it back."""
    machine.run("systemctl", "stop", SERVICE)
    assert machine.show(SERVICE, "Result") == "success"
    assert machine.events("agent.stopped")[-1]["reason"] == "SIGTERM"
    machine.run("systemctl", "start", SERVICE)
