"""Asks an advisory source about every library that the locks name, with pip-audit, which runs here
from .venv-audit. Nothing is installed for it: names and versions come from the locks.

Exit codes: 0 no vulnerability is known; 1 at least one is; 75 it cannot be told, because the source
could not be reached or did not answer for every library. CI may skip on 75; it is not a pass.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
OSV = "https://api.osv.dev/v1/query"  # an advisory source, which pip-audit asks; no package index
PASSED, VULNERABLE, UNTOLD = 0, 1, 75
_PIN = re.compile(r"(?m)^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;\\]+)")


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One library at one version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the source said: the libraries that it knows about, and their vulnerabilities."""

    told: frozenset[Pin] = frozenset()
    found: tuple[str, ...] = ()
    problem: str = ""


def read_pins(lock: Path) -> frozenset[Pin]:
    """Every library of a lock, also those that only another Python needs."""
    return frozenset(Pin(*match) for match in _PIN.findall(lock.read_text()))


def split(pins: Iterable[Pin]) -> list[list[Pin]]:
    """Groups in which no name stands twice: pip-audit takes one version of each at a time."""
    groups: list[dict[str, Pin]] = []
    for pin in sorted(pins):
        free = next((group for group in groups if pin.name not in group), None)
        if free is None:
            groups.append(free := {})
        free[pin.name] = pin
    return [list(group.values()) for group in groups]


def ask(pins: Sequence[Pin], url: str, folder: Path) -> Answer:
    """One run of pip-audit. Its exit code does not count: it is 0 when all was skipped."""
    asked, told = folder / "asked.txt", folder / "told.json"
    asked.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
    told.unlink(missing_ok=True)
    what = ("--requirement", str(asked), "--no-deps", "--disable-pip")
    where = ("--vulnerability-service", "osv", "--osv-url", url, "--cache-dir", str(folder))
    how = ("--format", "json", "--output", str(told), "--progress-spinner", "off")
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *what, *where, *how],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return read_answer(json.loads(told.read_text()))
    except (OSError, ValueError):
        words = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
        return Answer(problem=words[-1])


def read_answer(report: dict[str, list[dict[str, object]]]) -> Answer:
    """From pip-audit's JSON; a library that it skipped is not told about."""
    told, found = set(), []
    for entry in report["dependencies"]:
        vulnerabilities = entry.get("vulns")
        if not isinstance(vulnerabilities, list) or "skip_reason" in entry:
            continue
        pin = Pin(str(entry["name"]), str(entry["version"]))
        told.add(pin)
        for one in vulnerabilities:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            found.append(f"{pin}: {one['id']} (fixed in {fixed})")
    return Answer(frozenset(told), tuple(found))


def main() -> int:
    """Prints what was found, and as the last line the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv-url", default=OSV, help="a source that speaks OSV's query protocol")
    parser.add_argument("locks", nargs="*", type=Path, default=sorted(REQUIREMENTS.glob("*.lock")))
    options = parser.parse_args()
    pins = frozenset(pin for lock in options.locks for pin in read_pins(lock))
    with tempfile.TemporaryDirectory() as folder:
        answers = [ask(group, options.osv_url, Path(folder)) for group in split(pins)]
    return print_verdict(pins, answers, options.osv_url)


def print_verdict(pins: frozenset[Pin], answers: Sequence[Answer], url: str) -> int:
    """A vulnerability counts also when the rest could not be told."""
    found = [text for answer in answers for text in answer.found]
    untold = sorted(pins.difference(*(answer.told for answer in answers)))
    for text in found:
        print(f"VULNERABLE {text}")
    for problem in dict.fromkeys(answer.problem for answer in answers if answer.problem):
        print(f"{url}: {problem}")
    if found:
        print(f"audit: FAILED: {len(found)} known vulnerabilities. Raise the versions: make lock.")
        return VULNERABLE
    if untold or not pins:
        names = ", ".join(map(str, untold[:5])) + (" ..." if len(untold) > 5 else "")
        print(
            f"audit: SKIPPED: advisory source not reachable, or silent about {len(untold)} of "
            f"{len(pins)} libraries ({names}). This is not a pass: try again where {url} answers."
        )
        return UNTOLD
    print(f"audit: passed: no vulnerability is known of {len(pins)} libraries.")
    return PASSED


if __name__ == "__main__":
    sys.exit(main())
