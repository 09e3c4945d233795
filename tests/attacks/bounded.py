"""Running real commands, with the time and the memory that they took."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from tests.adapters.support import SECRET
from tests.support.machine import REPOSITORY, Done, Machine, clean_environment
from tests.support.service_user import (
    SERVICE_UID,
    as_service,
    service_command,
    service_environment,
)

_KILL_SECONDS = 110.0


@dataclass(frozen=True)
class Ran(Done):
    """A command that has ended by itself."""

    seconds: float
    peak: int  # the most memory that it had, in bytes


# Linux counts the memory of whoever starts a command in its ru_maxrss, so a small one starts it.
_LAUNCH = """
import os, sys
os.set_inheritable(int(sys.argv[1]), False)
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
os.write(int(sys.argv[1]), b"%d %d" % (os.waitstatus_to_exitcode(status), usage.ru_maxrss))
"""


def ran(command: list[str], environment: Mapping[str, str]) -> Ran:
    """Runs it to its end, which must come; its own environment holds the secret as well."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reader, writer = os.pipe()
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCH, str(writer), *command],
            cwd=REPOSITORY,
            env={**environment, "SOMEBODYS": SECRET.decode().strip()},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=[writer],
            start_new_session=True,
        )
        os.close(writer)
        timer = threading.Timer(_KILL_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        process.wait()
        timer.cancel()
        seconds = time.monotonic() - start
        with open(reader, "rb") as told:
            result = told.read()
        assert result, f"{command} was killed after {seconds:.0f} s"
        code, peak = map(int, result.split())
        assert code >= 0, f"{command} was killed by signal {-code}"
        return Ran(code, _text(out), _text(err), seconds, peak * 1024)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


def keysync(who: str, machine: Machine, *words: str) -> Ran:
    """A command as `root`, or as the `service`'s account with its four capabilities."""
    return ran(_command(who, machine, *words), service_environment())


def start(who: str, machine: Machine, *words: str, out: IO[bytes]) -> subprocess.Popen[bytes]:
    """Such a command, running; it writes to `out` alone."""
    return subprocess.Popen(
        _command(who, machine, *words),
        cwd=REPOSITORY,
        env=service_environment(),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
    )


def _command(who: str, machine: Machine, *words: str) -> list[str]:
    if who == "service":
        return service_command(machine, *words)
    return [sys.executable, "-m", "agent", "--config", str(machine.config), *words]


def prepare(who: str, machine: Machine) -> None:
    """The state folder as StateDirectory= makes it; root makes its own."""
    if who == "service":
        machine.state.mkdir(mode=0o700)
        os.chown(machine.state, SERVICE_UID, SERVICE_UID)


_FORKS = """
import json, os, sys, tempfile, time
import agent.adapters.http, yaml
from agent.cli.main import main

def child(words, environment, out, err):
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    try:
        code = main(words)
    except SystemExit as leaving:
        code = leaving.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def text(stream):
    stream.seek(0)
    return stream.read().decode()

for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            child(*json.loads(line), out, err)
        _, status, usage = os.wait4(pid, 0)
        done = (os.waitstatus_to_exitcode(status), text(out), text(err),
                time.monotonic() - start, usage.ru_maxrss * 1024)
        print(json.dumps(done), flush=True)
"""


class Commands:
    """Real commands in quick succession: each is a process of its own, with the imports done."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def keysync(self, machine: Machine, *words: str, home: str = "/nonexistent") -> Ran:
        """One command, as the account that all of these run as."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        environment = clean_environment() | {"HOME": home, "SOMEBODYS": SECRET.decode().strip()}
        command = ["--config", str(machine.config), *words]
        self._process.stdin.write(json.dumps([command, environment]) + "\n")
        self._process.stdin.flush()
        timer = threading.Timer(_KILL_SECONDS, self._process.kill)
        timer.start()
        answer = self._process.stdout.readline()
        timer.cancel()
        assert answer, f"{words} hangs"
        return Ran(*json.loads(answer))


@contextlib.contextmanager
def commands(who: str) -> Iterator[Commands]:
    """As `root`, or as the `service`'s account with its four capabilities."""
    command = [sys.executable, "-c", _FORKS]
    with subprocess.Popen(
        as_service(command) if who == "service" else command,
        cwd=REPOSITORY,
        env=service_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Commands(process)
        finally:
            process.kill()
