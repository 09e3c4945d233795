"""`python -m bench.fleet`: many instances that poll the local console every second.

Each simulated instance is the agent's own cycle (`Syncer`) with a configuration, an API key, a key
file and a state directory of its own, kept between polls; only the processes are missing. The
console runs in a process of its own, as `python -m sandbox --console-only`. Beside the polls, a key
is added and deleted, and it is measured when the last instance has it, or has it no more.

Ends with 1 when a poll failed, when an instance did not follow, or when the machine was too slow
for so many: fewer than 95 in 100 of the polls that the interval asks for.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from agent.config_file import load
from agent.events import Event
from agent.service.cycle import Request, Syncer
from bench.measure import BenchError
from bench.venvs import REPOSITORY
from sandbox.faults import strangers_key
from sandbox.users import current_user

_CONFIG = """\
api: {{url: {url}, key_file: {folder}/api_key}}
targets: [{{user: {user}, path: {folder}/authorized_keys}}]
state_dir: {folder}/state
"""
_WORKERS = 16
_READY_SECONDS = 30.0
_END_SECONDS = 10.0
_FOLLOW_SECONDS = 20.0
_LEAST_SHARE = 0.95
_PAUSE = 0.1


@dataclass(slots=True)
class Figures:
    """What the polls came to; times in seconds."""

    results: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


class Instance:
    """One simulated instance in a folder of its own."""

    def __init__(self, folder: Path, url: str, api_key: str) -> None:
        folder.mkdir(mode=0o700)
        self.key_file = _private(folder / "authorized_keys", "")
        _private(folder / "api_key", api_key)
        text = _CONFIG.format(url=url, folder=folder, user=current_user())
        config = _private(folder / "config.yaml", text)
        self.syncer = Syncer(load(str(config), {}), {}, _say_nothing)

    def has(self, blob: str) -> bool:
        """Whether a key stands in the file."""
        return blob in self.key_file.read_text()


class Fleet:
    """Polls with every instance once in `interval` seconds, spread evenly over it."""

    def __init__(self, instances: list[Instance], interval: float) -> None:
        self.figures = Figures()
        self._interval = interval
        self._lock = threading.Condition()
        start = time.monotonic() + 1.0
        count = len(instances)
        self._due = [(start + interval * at / count, at) for at in range(count)]
        self._instances = instances
        self._stopping = False

    @contextlib.contextmanager
    def polling(self) -> Iterator[Figures]:
        """Polls until the block is left; the polls under way are finished then."""
        workers = [threading.Thread(target=self._work) for _ in range(_WORKERS)]
        for worker in workers:
            worker.start()
        try:
            yield self.figures
        finally:
            with self._lock:
                self._stopping = True
                self._lock.notify_all()
            for worker in workers:
                worker.join()

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            due, at = turn
            begun = time.monotonic()
            report = self._instances[at].syncer.sync(Request())
            ended = time.monotonic()
            with self._lock:
                self.figures.results[report.result] += 1
                if report.problem is not None:
                    self.figures.problems[report.problem.kind] += 1
                self.figures.late.append(begun - due)
                self.figures.took.append(ended - begun)
                heapq.heappush(self._due, (max(due + self._interval, ended), at))
                self._lock.notify()

    def _next(self) -> tuple[float, int] | None:
        with self._lock:
            while not self._stopping:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)
                self._lock.wait(wait)
        return None


def main() -> int:
    """0 when every poll went well and every instance followed."""
    options = _parser().parse_args()
    with (
        # In memory: the instances of a fleet do not wait for one another's disk.
        tempfile.TemporaryDirectory(prefix="keysync-fleet-", dir="/dev/shm") as folder,
        _console(Path(folder)) as found,
        _person(found) as person,
    ):
        instances = _make(Path(folder), options.instances, found["console_url"], person)
        fleet = Fleet(instances, options.interval)
        with fleet.polling() as figures:
            time.sleep(options.seconds / 3)
            added, removed = _follow(instances, person, options.seconds / 3)
            time.sleep(options.seconds / 3)
        server = _cost(int(found["pid"]))
        for instance in instances:
            instance.syncer.close()
    _print(figures, options, added, removed, server)
    desired = options.instances * options.seconds / options.interval
    slow = len(figures.took) < desired * _LEAST_SHARE
    if slow:
        print(f"too slow: {len(figures.took)} polls of {desired:.0f}")
    return 1 if slow or figures.problems or set(figures.results) - {"changed", "in_sync"} else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--instances", type=int, default=200, help="how many (200)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between polls (1)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long in all (60)")
    return parser


@contextlib.contextmanager
def _console(folder: Path) -> Iterator[dict[str, str]]:
    ready = folder / "ready.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--console-only", "--ready-file", str(ready)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    try:
        _await(ready.exists, _READY_SECONDS, "the console did not get ready")
        yield {**json.loads(ready.read_text()), "pid": str(process.pid)}
    finally:
        process.terminate()
        process.wait(_END_SECONDS)


@contextlib.contextmanager
def _person(found: dict[str, str]) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {found['api_key']}"}
    with httpx.Client(base_url=found["console_url"], headers=headers, trust_env=False) as client:
        for _ in range(3):
            client.post("/api/v0/ssh/", json={"ssh_key": strangers_key()}).raise_for_status()
        yield client


def _make(folder: Path, count: int, url: str, person: httpx.Client) -> list[Instance]:
    """Each gets an API key of its own that may read the account and nothing else."""
    body = {"name": "fleet", "permissions": {"api": {"user_read": {}}}}
    made = []
    for at in range(count):
        answer = person.post("/api/v0/auth/apikeys/", json=body).raise_for_status()
        made.append(Instance(folder / f"instance-{at}", url, answer.json()["key"]))
    return made


def _follow(instances: list[Instance], person: httpx.Client, seconds: float) -> tuple[float, float]:
    """Seconds until the last instance has a new key, and until none has it any more."""
    text = strangers_key()
    blob = text.split()[1]
    begun = time.monotonic()
    answer = person.post("/api/v0/ssh/", json={"ssh_key": text}).raise_for_status()
    _await(lambda: all(each.has(blob) for each in instances), _FOLLOW_SECONDS, "a key is missing")
    added = time.monotonic() - begun
    time.sleep(max(0.0, seconds - added))
    begun = time.monotonic()
    person.delete(f"/api/v0/ssh/{answer.json()['key']['id']}/").raise_for_status()
    _await(lambda: not any(each.has(blob) for each in instances), _FOLLOW_SECONDS, "a key stays")
    return added, time.monotonic() - begun


def _await(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise BenchError(f"{otherwise} after {seconds:g} s")
        time.sleep(_PAUSE)


def _cost(pid: int) -> tuple[float, float]:
    """CPU seconds and resident MiB of the console, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _print(
    figures: Figures,
    options: argparse.Namespace,
    added: float,
    removed: float,
    server: tuple[float, float],
) -> None:
    polls = len(figures.took)
    print(f"{options.instances} instances, every {options.interval:g} s, {options.seconds:g} s")
    print(f"polls           {polls} ({dict(figures.results)}), failed: {dict(figures.problems)}")
    print(f"a whole cycle   {_spread(figures.took)}")
    print(f"late            {_spread(figures.late)}")
    print(f"key added       everywhere after {added:.2f} s; deleted: after {removed:.2f} s")
    print(f"console         {server[0]:.1f} s CPU, {server[1]:.1f} MiB resident")


def _spread(times: list[float]) -> str:
    cuts = statistics.quantiles(times, n=100)
    middle, most = cuts[49] * 1e3, max(times) * 1e3
    return f"median {middle:.1f} ms, 99 % {cuts[98] * 1e3:.1f} ms, most {most:.1f} ms"


def _private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _say_nothing(_event: Event) -> None:
    """The figures are what is looked at."""


if __name__ == "__main__":
    sys.exit(main())
