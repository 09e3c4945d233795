"""Running commands one at a time, and what their costs come to."""

import os
import shlex
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LAUNCH = Path(__file__).with_name("launch.py")
_LIMIT_SECONDS = 120


class BenchError(RuntimeError):
    """Something did not do what was to be measured, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is measured; `says` must stand in its log, which proves that it did the work."""

    name: str
    words: tuple[str, ...]
    says: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: elapsed and CPU time, and the most memory it ever held, in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Many runs of one command: median and quartiles of the time, the largest peak."""

    runs: int
    seconds: float
    first_quartile: float
    third_quartile: float
    cpu_seconds: float
    peak_bytes: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Cost":
        """The cost that the samples show."""
        times = [sample.seconds for sample in samples]
        first, median, third = statistics.quantiles(times * 2 if len(times) == 1 else times, n=4)
        cpu = statistics.median(sample.cpu_seconds for sample in samples)
        return cls(len(times), median, first, third, cpu, max(s.peak_bytes for s in samples))


def run(command: Command, home: Path) -> Sample:
    """One run with a bare environment whose HOME is `home`, where its output is left.

    Raises BenchError when it failed, hung, or did not say what it should.
    """
    out, err = home / "stdout", home / "stderr"
    environment = {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8", **command.environment}
    said = _launch([str(out), str(err), *command.words], environment)
    seconds, cpu_seconds, kibibytes, code = said.split()
    log = err.read_text(errors="replace")
    if int(code) != 0 or command.says not in log:
        raise BenchError(
            f"exit {code} of: {shlex.join(command.words)}\n{log[-2000:]}"
            f"(expected in its log: {command.says!r})"
        )
    return Sample(float(seconds), float(cpu_seconds), int(kibibytes) * 1024)


def _launch(words: list[str], environment: Mapping[str, str]) -> str:
    """In a session of its own, so that it can be ended together with what it started."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_LAUNCH), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            said, _ = process.communicate(timeout=_LIMIT_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                text = f"no end after {_LIMIT_SECONDS} s: {shlex.join(words)}"
                raise BenchError(text) from None
            raise
    if process.returncode != 0:
        raise BenchError(f"could not start: {shlex.join(words)}")
    return said


def interleaved(commands: Sequence[Command], runs: int, home: Path) -> dict[str, Cost]:
    """The cost of each command, all run in turn, so that a busy machine slows them alike.

    One round before fills the caches and is not counted; each round begins with another command.
    """
    samples: dict[str, list[Sample]] = {command.name: [] for command in commands}
    for at in range(-1, runs):
        first = at % len(commands)
        for command in (*commands[first:], *commands[:first]):
            sample = run(command, home)
            if at >= 0:
                samples[command.name].append(sample)
    return {name: Cost.of(found) for name, found in samples.items()}
