"""Thousands of listed keys beside a key file of many lines, at three sizes."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.keys import file_lines
from bench.measure import Command, Cost, Sample, run
from bench.serve import Account, serving
from bench.site import Site
from sandbox.users import current_user

KEYS = 2_000
LINES = 100_000
PARTS = (4, 2, 1)  # a quarter, a half, the whole
STEPS = ("add all", "nothing to do", "remove half")


@dataclass(frozen=True, slots=True)
class Large:
    """The cost of one step at one size."""

    lines: int
    keys: int
    step: str
    cost: Cost


def measure_large(commands: Path, home: Path, runs: int) -> list[Large]:
    """Each run makes all the steps at all the sizes, from a fresh file and a fresh state."""
    text = [f"{line}\n" for line in file_lines(LINES)]
    for part in PARTS:
        (home / f"large-{part}.lines").write_text("".join(text[: LINES // part]))
    samples: dict[tuple[int, str], list[Sample]] = {}
    counts = sorted({KEYS // part for part in PARTS} | {KEYS // part // 2 for part in PARTS})
    with serving(*counts) as accounts:
        for _ in range(runs):
            for part in PARTS:
                for command in _steps(commands / "keysync", home, accounts, part):
                    samples.setdefault((part, command.name), []).append(run(command, home))
    return [
        Large(LINES // part, KEYS // part, step, Cost.of(found))
        for (part, step), found in samples.items()
    ]


def _steps(keysync: Path, home: Path, accounts: dict[int, Account], part: int) -> Iterator[Command]:
    """The steps in order; between them only the console's list changes."""
    path, directory, keys = home / "large.keys", home / "large", KEYS // part
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copy(home / f"large-{part}.lines", path)
    path.chmod(0o600)
    everything, half = (
        Site(directory, keysync, accounts[count], current_user(), path)
        for count in (keys, keys // 2)
    )
    everything.write()
    yield everything.sync(STEPS[0], f'"added": {keys}')
    yield everything.sync(STEPS[1], '"result": "in_sync"')
    half.write()
    yield half.sync(STEPS[2], f'"removed": {keys // 2}')


def growth(results: list[Large], step: str, fixed: float) -> float:
    """Time per line at the largest size over that at the smallest; 1 is linear, 4 quadratic.

    `fixed` is the time of a sync with a small file, in seconds, which is no cost of the lines.
    """
    sizes = sorted((r for r in results if r.step == step), key=lambda r: r.lines)
    least, *_, most = ((r.cost.seconds - fixed) / r.lines for r in sizes)
    return most / least


def per_line(result: Large, fixed: float) -> float:
    """Microseconds that one line costs."""
    return (result.cost.seconds - fixed) / result.lines * 1e6


def slowest(results: list[Large]) -> Large:
    """The step that takes longest at the whole size."""
    return max((r for r in results if r.lines == LINES), key=lambda r: r.cost.seconds)
