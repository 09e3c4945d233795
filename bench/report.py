"""The results as plain tables and as one JSON object."""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cold import FLOOR, KEYS, SYNC, SYNC_SSHD, Cold
from bench.large import KEYS as LARGE_KEYS
from bench.large import LINES, STEPS, Large, growth, per_line, slowest
from bench.options import OptionsGrowth

_COLD_GOAL = 1.25
_LARGE_GOAL_SECONDS = 3.0
_LINEAR = 1.5  # growth of the time per line over a fourfold size: 1 is linear, 4 quadratic


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of this run and the most that it should be."""

    what: str
    figure: float
    most: float
    unit: str

    @property
    def met(self) -> bool:
        """Told, and nothing more: on a busy machine a missed goal is no defect."""
        return self.figure <= self.most

    def __str__(self) -> str:
        word = "met" if self.met else "missed"
        return f"{self.what}: {self.figure:.2f} {self.unit}, goal at most {self.most:g}: {word}"


@dataclass(frozen=True, slots=True)
class Results:
    """Everything of one run; only figures of the same run may be compared."""

    machine: dict[str, object]
    cold: Cold
    large: list[Large]
    options: OptionsGrowth | None = None

    def goals(self) -> list[Goal]:
        """The goals that the project has set itself."""
        costs = self.cold.costs
        floor, fixed = costs[FLOOR].seconds, costs[SYNC].seconds
        goals = [
            Goal(name, costs[name].seconds / floor, _COLD_GOAL, "x floor")
            for name in (SYNC, SYNC_SSHD)
            if name in costs
        ]
        if self.large:
            worst = slowest(self.large)
            name = f"{LARGE_KEYS:,} keys beside {LINES:,} lines, {worst.step}"
            goals.append(Goal(name, worst.cost.seconds, _LARGE_GOAL_SECONDS, "s"))
            for step in STEPS:
                figure = growth(self.large, step, fixed)
                goals.append(Goal(f"growth per line, {step}", figure, _LINEAR, "(1 is linear)"))
        if self.options:
            name = f"growth per byte, {self.options.what}"
            goals.append(Goal(name, self.options.figure, _LINEAR, "(1 is linear)"))
        return goals

    def as_json(self) -> str:
        """All figures; times in seconds, memory in bytes."""
        goals = [dataclasses.asdict(goal) | {"met": goal.met} for goal in self.goals()]
        return json.dumps(dataclasses.asdict(self) | {"goals": goals}, indent=2) + "\n"

    def as_text(self) -> str:
        """What `make bench` prints."""
        parts = [", ".join(f"{name} {value}" for name, value in self.machine.items())]
        parts += ["", *_cold_table(self.cold)]
        if self.large:
            parts += ["", *_large_table(self.large, self.cold.costs[SYNC].seconds)]
        return "\n".join([*parts, "", *map(str, self.goals())])


def describe_machine(directory: Path) -> dict[str, object]:
    """What the figures depend on; `directory` is where all files of the run are."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, check=True)
    return {
        "Python": platform.python_version(),
        "Linux": platform.release(),
        "cores": os.cpu_count(),
        "files on": kind.stdout.decode().strip(),
        "load": round(os.getloadavg()[0], 2),
    }


def _cold_table(cold: Cold) -> list[str]:
    floor = cold.costs[FLOOR].seconds
    runs = cold.costs[FLOOR].runs
    rows = [("", "median", "quartiles", "CPU", "peak", "x floor")]
    for name, cost in cold.costs.items():
        quartiles = f"{cost.first_quartile * 1000:.0f}-{cost.third_quartile * 1000:.0f} ms"
        times = (f"{cost.seconds * 1000:.0f} ms", quartiles, f"{cost.cpu_seconds * 1000:.0f} ms")
        rows.append((name, *times, _megabytes(cost.peak_bytes), f"{cost.seconds / floor:.2f}"))
    title = f"One cold start with {KEYS} keys and nothing to do; {runs} runs each, in turn"
    notes = [f"  {name}: not measured: {why}" for name, why in cold.missing.items()]
    return [title, *_aligned(rows), *notes]


def _large_table(large: Sequence[Large], fixed: float) -> list[str]:
    rows = [("lines", "keys", "", "median", "CPU", "peak", "per line")]
    for found in large:
        cost = found.cost
        times = (f"{cost.seconds:.2f} s", f"{cost.cpu_seconds:.2f} s", _megabytes(cost.peak_bytes))
        per = f"{per_line(found, fixed):.1f} us"
        rows.append((f"{found.lines:,}", f"{found.keys:,}", found.step, *times, per))
    runs = large[0].cost.runs
    title = f"A crowded key file; {runs} runs each; per line: without the cold start's time"
    return [title, *_aligned(rows)]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Texts to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if _is_figure(cell, at, rows) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _is_figure(cell: str, column: int, rows: Sequence[Sequence[str]]) -> bool:
    return bool(cell) and rows[-1][column][:1].isdigit()
