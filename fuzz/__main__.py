"""Runs the targets one after the other and prints what each did: `python -m fuzz --help`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz import seeds
from fuzz.targets import BROKEN, TARGETS

_REPOSITORY = Path(__file__).parents[1]
_FOLDER = _REPOSITORY / ".fuzz"
_DEFAULT_SECONDS = 600
_STARTING_SECONDS = 60  # for imports and the first corpus, beside the time that was asked for
_EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_PROGRESS = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)/")
_ARTIFACTS = ("crash-*", "timeout-*", "oom-*")


@dataclass(frozen=True, slots=True)
class Run:
    """What one target did; `findings` are files that reproduce what went wrong."""

    target: str
    executions: int
    coverage: int
    corpus: int
    findings: tuple[Path, ...]
    log: Path
    ended_well: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all is well, 1 when something was found, 2 when atheris is not installed."""
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        version = sys.version.split()[0]
        print(
            f"atheris is not installed for Python {version}, so nothing was fuzzed. pyproject.toml "
            "says for which it is; run make fuzz PYTHON=python3.11, for instance.",
            file=sys.stderr,
        )
        return 2
    names = options.target or list(TARGETS)
    seconds = max(1, options.seconds // len(names))
    print(f"{'TARGET':10}{'EXECUTIONS':>12}{'COVERAGE':>10}{'CORPUS':>8}{'FINDINGS':>10}")
    runs = []
    for name in names:
        run = fuzz(name, seconds, options.folder)
        found = len(run.findings)
        print(f"{name:10}{run.executions:>12}{run.coverage:>10}{run.corpus:>8}{found:>10}")
        runs.append(run)
    for run in runs:
        _explain(run)
    return 0 if all(run.ended_well for run in runs) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=_DEFAULT_SECONDS, help="for all together")
    names = [*TARGETS, *BROKEN]
    parser.add_argument("--target", action="append", choices=names, help="only this one")
    parser.add_argument(
        "--folder",
        type=Path,
        default=_FOLDER,
        help="keeps what was learned, and findings (default: %(default)s)",
    )
    return parser


def fuzz(name: str, seconds: int, folder: Path) -> Run:
    """Runs one target for so many seconds, from its seeds and what `folder` holds of it."""
    location = folder / name
    corpus, first, found = location / "corpus", location / "seeds", location / "findings"
    for directory in (corpus, first, found):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate({**TARGETS, **BROKEN}[name].seeds()):
        (first / str(number)).write_bytes(data)
    (location / "words").write_text(seeds.dictionary())
    log = location / "log"
    before = _findings(found)
    words = (
        f"-max_total_time={seconds}",
        f"-dict={location / 'words'}",
        f"-artifact_prefix={found}/",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    )
    folders = map(str, (corpus, first, found))  # what was found once must not come back
    with log.open("wb") as out, _scratch() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.engine", name, *words, *folders],
            cwd=_REPOSITORY,
            env={**os.environ, "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=seconds + _STARTING_SECONDS,
            check=False,
        )
    findings = tuple(sorted(path for path, _ in _findings(found) - before))
    return _run(name, log, findings, ended_well=done.returncode == 0)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """For the files that a target writes, which libFuzzer leaves there; in memory if it can be."""
    memory = "/dev/shm"  # noqa: S108  # reason: the folder made in it is private
    return tempfile.TemporaryDirectory(
        prefix="keysync-fuzz-", dir=memory if os.access(memory, os.W_OK) else None
    )


def _findings(folder: Path) -> set[tuple[Path, int]]:
    return {(path, path.stat().st_mtime_ns) for kind in _ARTIFACTS for path in folder.glob(kind)}


def _run(name: str, log: Path, findings: tuple[Path, ...], *, ended_well: bool) -> Run:
    said = log.read_text(errors="replace")
    executions = [int(number) for number in _EXECUTIONS.findall(said)]
    coverage, corpus = (_PROGRESS.findall(said) or [("0", "0")])[-1]
    return Run(name, sum(executions), int(coverage), int(corpus), findings, log, ended_well)


def _explain(run: Run) -> None:
    if not run.ended_well:
        print(f"\n{run.target} failed; the log is {run.log}, and ends so:", file=sys.stderr)
        print(run.log.read_text(errors="replace")[-3000:], file=sys.stderr)
    for path in run.findings:
        again = [sys.executable, "-m", "fuzz.engine", run.target, str(path)]
        print(f"to run it again: {shlex.join(again)}")


if __name__ == "__main__":
    raise SystemExit(main())
