"""`python -m bench.soak --minutes 10`: the daemon against a console that does its worst.

A real `keysync run` polls every second while the console fails in every way it knows, the account's
keys change every second, its API key is reset now and then, and a shell appends to the same file.
Ends with 1 when the agent did not live through it, leaked, lost a line, or ended in a wrong state.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.venvs import REPOSITORY
from sandbox.console import Console
from sandbox.faults import FAULTS, strangers_key
from sandbox.users import current_user

_TAG = " keysync:managed"
_RESTRICTED = f'command="/bin/true",restrict {strangers_key()}'
_EDITOR = """
i=0
while :; do
    i=$((i + 1))
    echo "# edit $i" >>"$1" && echo "$i" >"$2"
    sleep 0.25
done
"""
_CONFIG = """\
api: {{url: {url}, key_file: {folder}/api_key}}
poll: {{interval: 1s, jitter: 0s, max_backoff: 3s}}
policy: {{removal_hold: 3s}}
targets: [{{user: {user}, path: {folder}/authorized_keys}}]
state_dir: {folder}/state
"""
_MOST_KEYS = 20
_SETTLE_SECONDS = 60.0
_WARM_UP = 0.15  # of the whole time
_MOST_GROWTH = 1.10
_SAMPLES = 60
_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds, from /proc."""

    descriptors: int
    threads: int
    kibibytes: int

    @classmethod
    def at_rest(cls, pid: int) -> Held:
        """The least in some seconds: a sync that runs has more open, and a leak is there always."""
        found = []
        for _ in range(_SAMPLES):
            found.append(cls.by(pid))
            time.sleep(_SAMPLE_SECONDS)
        fields = ((held.descriptors, held.threads, held.kibibytes) for held in found)
        return cls(*map(min, zip(*fields, strict=True)))

    @classmethod
    def by(cls, pid: int) -> Held:
        """Of this process, now."""
        proc = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        kibibytes = int(status["VmRSS"].split()[0])
        return cls(len(os.listdir(proc / "fd")), int(status["Threads"]), kibibytes)

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.threads} threads, "
            f"{self.kibibytes / 1024:.1f} MiB resident"
        )


@dataclass
class Adversary:
    """Changes the account every second, and switches faults on and off in between."""

    console: Console
    folder: Path
    dice: random.Random
    stopping: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """In two threads; when it is over, the console is well and the API key right."""
        self.stopping.clear()
        work = [threading.Thread(target=run) for run in (self._change_keys, self._fail)]
        for thread in work:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in work:
                thread.join()
            self._be_well()

    def _change_keys(self) -> None:
        while not self.stopping.wait(1.0):
            stored = self.console.account.stored()
            ways = ["edit", "delete"] if len(stored) >= _MOST_KEYS else ["add", "edit", "delete"]
            way = self.dice.choice(ways if len(stored) > 1 else ["add"])
            self.counts[way] += 1
            if way == "add":
                self.console.add_key(strangers_key())
            elif way == "edit":
                self.console.edit_key(self.dice.choice(stored).id, strangers_key())
            else:
                self.console.delete_key(self.dice.choice(stored).id)

    def _fail(self) -> None:
        while not self.stopping.wait(self.dice.uniform(0.3, 2.0)):
            fault = self.dice.choice([*FAULTS, "reset_api_key", "well", "well", "well"])
            self.counts[fault] += 1
            switches = self.console.switches
            switches.etag = self.dice.random() < 0.5
            switches.shape = self.dice.choice(["list", "wrapped"])
            switches.min_interval = self.dice.choice([0.0, 0.0, 1.0])
            self.console.fault = fault if fault in FAULTS else None
            if fault == "reset_api_key":
                self.console.reset_api_key()
                self.stopping.wait(self.dice.uniform(0.0, 3.0))
                give_api_key(self.folder, self.console.api_key)

    def _be_well(self) -> None:
        self.console.fault = None
        self.console.switches.min_interval = 0.0
        give_api_key(self.folder, self.console.api_key)


def give_api_key(folder: Path, value: str) -> None:
    """Puts it in place at once."""
    new = folder / "api_key.new"
    new.touch(mode=0o600)
    new.write_text(value)
    new.rename(folder / "api_key")


def key_lines(file: Path) -> list[str]:
    """All lines but the editor's."""
    return [line for line in file.read_text().splitlines() if not line.startswith("# edit ")]


def wanted_lines(console: Console) -> list[str]:
    """What the file must hold beside the editor's lines, in any order."""
    return [_RESTRICTED, *(key.text + _TAG for key in console.account.stored())]


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of our own, its standard error in `log`."""
    environment = {"PATH": os.defpath, "HOME": str(log.parent), "LANG": "C.UTF-8"}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def settled(console: Console, file: Path, agent: subprocess.Popen[bytes]) -> bool:
    """Whether the file comes to hold exactly what it must."""
    desired = sorted(wanted_lines(console))
    return _eventually(
        lambda: agent.poll() is not None or sorted(key_lines(file)) == desired, _SETTLE_SECONDS
    )


def _eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def lost_edits(file: Path, count: Path) -> tuple[int, int]:
    """How many lines the editor wrote, and how many of them are not there exactly once."""
    written = int(count.read_text())
    seen = Counter(file.read_text().splitlines())
    return written, sum(seen[f"# edit {at}"] != 1 for at in range(1, written + 1))


def soak(folder: Path, minutes: float, dice: random.Random) -> list[str]:
    """Runs it all and prints the figures; gives what was wrong."""
    file, count, log = folder / "authorized_keys", folder / "count", folder / "log"
    file.touch(mode=0o600)
    file.write_text(f"{_RESTRICTED}\n")
    with Console() as console:
        give_api_key(folder, console.api_key)
        config = folder / "config.yaml"
        config.write_text(_CONFIG.format(url=console.url, folder=folder, user=current_user()))
        adversary = Adversary(console, folder, dice)
        command = [sys.executable, "-m", "agent", "--config", str(config), "run"]
        editor = ["sh", "-c", _EDITOR, "editor", str(file), str(count)]
        with running(command, log) as agent, running(editor, folder / "editor.log") as shell:
            wrong, before, after = _two_rounds(adversary, agent, file, minutes)
            shell.terminate()
            shell.wait()
            wrong += _end(agent)
        print(f"requests     {len(console.requests)}")
    print(f"adversary    {_said(adversary.counts)}")
    print(f"events       {_said(_events(log))}")
    print(f"before       {before}\nafter        {after}")
    written, lost = lost_edits(file, count)
    print(f"editor       {written} lines, {lost} lost")
    wrong += [f"the editor lost {lost} lines"] if lost else []
    return wrong + _grown(before, after) + _bad_log(log)


def _two_rounds(
    adversary: Adversary, agent: subprocess.Popen[bytes], file: Path, minutes: float
) -> tuple[list[str], Held, Held]:
    """A warm-up and the rest, each ending in peace, with what the agent held then."""
    wrong, held = [], []
    for name, part in (("warm-up", _WARM_UP), ("soak", 1.0 - _WARM_UP)):
        with adversary.at_work(), contextlib.suppress(subprocess.TimeoutExpired):
            agent.wait(minutes * 60 * part)
        if agent.poll() is not None:
            raise SystemExit(f"soak: the agent ended with {agent.returncode} in the {name}")
        if not settled(adversary.console, file, agent):
            wrong.append(f"the state after the {name} is wrong")
        print(f"soak: {name} done, state {'wrong' if wrong else 'right'}", file=sys.stderr)
        held.append(Held.at_rest(agent.pid))
    return wrong, held[0], held[1]


def _end(agent: subprocess.Popen[bytes]) -> list[str]:
    asked = time.monotonic()
    agent.terminate()
    code = agent.wait(30)
    seconds = time.monotonic() - asked
    print(f"end          exit code {code} after {seconds:.2f} s")
    return [f"exit code {code} after {seconds:.1f} s"] if code or seconds > 5 else []


def _events(log: Path) -> Counter[str]:
    names = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter(
        event["event"] + (f" {event['kind']}" if event["event"] == "sync.failed" else "")
        for event in names
    )


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _bad_log(log: Path) -> list[str]:
    counts = _events(log)
    wrong = [f"{counts['agent.started'] - 1} restarts"] if counts["agent.started"] != 1 else []
    return wrong + ([f"{counts['agent.failed']} defects"] if counts["agent.failed"] else [])


def _grown(before: Held, after: Held) -> list[str]:
    wrong = []
    if after.descriptors > before.descriptors:
        wrong.append("descriptors leaked")
    if after.threads > before.threads:
        wrong.append("threads leaked")
    if after.kibibytes > before.kibibytes * _MOST_GROWTH:
        wrong.append("memory grew by more than 10 %")
    return wrong


def main() -> int:
    """0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=None, help="the same chances again")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed  # noqa: S311  # reason: no secret
    print(f"soak: {options.minutes:g} minutes, seed {seed}", file=sys.stderr)
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=build) as folder:
        wrong = soak(Path(folder), options.minutes, random.Random(seed))  # noqa: S311  # reason: the same
    for text in wrong:
        print(f"soak: WRONG: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
