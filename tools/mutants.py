"""Mutation run: builds small faults into `agent/` and counts those that the tests find.

    M='.venv/bin/python -m tools.mutants'
    $M map --tree T --out fast.json tests/core tests/cli ...
    $M map --tree T --out install.json --covers agent/setup/ tests/install
    $M run --tree T --map fast.json --out results.jsonl --count 320 --seed 1
    $M run --tree T --map install.json --out results.jsonl --seconds 150 --lock FILE
    $M show --out results.jsonl

T is a clean checkout that nothing else uses, with a .venv of its own: the faults are built into
its files, so that every process that a test starts has them. `map` runs tests once and notes the
lines that each executes; with --covers, each also counts for all lines of these modules. `run`
tries each mutant with tests that execute its line, first those that are most about its module; a
failure counts when it happens twice. Each result is one JSON line. A run that was stopped goes on
when it is called again; a run with another map tries what has survived so far.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from coverage import CoverageData

from tools.mutations import Mutant, sample

_MOST_TESTS = 120  # for one mutant
_PARAMETERS = re.compile(r"\[.*", re.DOTALL)  # in the id of a test
_TOO_LONG = -1


def state_of(tree: Path) -> str:
    """What names the contents of agent/ and tests/. Raises SystemExit when agent/ has changes."""
    git = ["git", "-C", str(tree)]
    if _output(*git, "status", "--porcelain", "agent/"):
        raise SystemExit(f"{tree}/agent has changes; look at 'git diff', undo them, start again")
    return _output(*git, "rev-parse", "HEAD:agent", "HEAD:tests")


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def pytest(tree: Path, words: Sequence[str], seconds: float | None) -> tuple[int, str]:
    """The exit code, -1 after so many seconds, and the output; ends what the tests leave behind."""
    options = ["-q", "--color=no", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [tree / ".venv/bin/python", "-m", "pytest", *options, *words],
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "MUTANTS_RUN": str(os.getpid())},
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = _TOO_LONG
            process.send_signal(signal.SIGINT)  # so that fixtures end what they started
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        finally:
            _kill_all(f"MUTANTS_RUN={os.getpid()}".encode())
            process.wait()
        if code < _TOO_LONG:
            raise SystemExit(f"pytest was ended from outside by signal {-code}; start again")
        output.seek(0)
        return code, output.read()


def _kill_all(variable: bytes) -> None:
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


def run_tests(
    tree: Path, tests: Sequence[str], seconds: float | None, *options: str
) -> tuple[int, list[str]]:
    """The exit code of pytest, and those of the tests that failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(tests))
        file.flush()
        code, output = pytest(tree, [*options, f"@{file.name}"], seconds)
    lines = [line.partition(" ")[2] + " - " for line in output.splitlines() if line[:1] in "EF"]
    return code, [test for test in tests if any(line.startswith(f"{test} - ") for line in lines)]


def make_map(tree: Path, paths: Sequence[str], covers: Sequence[str]) -> dict[str, Any]:
    """Runs the tests; gives the seconds of each that passes, and the tests of each line."""
    state = state_of(tree)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _measuring(tree, folder):
            words = ["-p", "mutants_map", "--ignore=tests/test_mutants.py", *paths]
            print(pytest(tree, words, None)[1])
        ran = json.loads((folder / "tests.json").read_text())
        failed = [test for test, (_, outcome) in ran.items() if outcome == "failed"]
        if failed:  # perhaps only because they were measured
            still = run_tests(tree, failed, None)[1]
            print("left out:", *still, sep="\n")
            failed = [test for test in failed if test not in still]
        passed = {test for test, (_, outcome) in ran.items() if outcome == "passed"} | {*failed}
        seconds = {test: ran[test][0] for test in ran if test in passed}
        lines = _first(_lines(tree, folder, seconds))
    return {"state": state, "seconds": seconds, "covers": list(covers), "lines": lines}


@contextlib.contextmanager
def _measuring(tree: Path, folder: Path) -> Iterator[None]:
    """Each Python of the tree's .venv notes its lines in the folder."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'), end='')"
    library = Path(_output(str(tree / ".venv/bin/python"), "-c", code))
    module, start = library / "mutants_map.py", library / "mutants_map.pth"
    for path in (folder, folder / "context"):
        path.touch()
        path.chmod(0o777)  # some tests run the agent as another user
    try:
        shutil.copy(Path(__file__).with_name("mutants_map.py"), module)
        call = (str(folder), str(tree / "agent"))
        start.write_text(f"import mutants_map; mutants_map.start{call!r}\n")
        yield
    finally:
        start.unlink(missing_ok=True)
        module.unlink(missing_ok=True)


def _lines(tree: Path, folder: Path, seconds: dict[str, float]) -> dict[str, set[str]]:
    """`module:line` and its tests; what was made for several tests counts for all of a file."""
    of_file: defaultdict[str, set[str]] = defaultdict(set)
    of_line: defaultdict[str, set[str]] = defaultdict(set)
    for test in seconds:
        of_file[test.partition("::")[0]].add(test)
    for path in folder.glob("lines*"):
        data = CoverageData(str(path))
        data.read()
        for name in data.measured_files():
            for line, contexts in data.contexts_by_lineno(name).items():
                tests = of_line[f"{os.path.relpath(name, tree)}:{line}"]
                for context in contexts:
                    tests |= of_file.get(context, {context} & seconds.keys())
    return of_line


def _first(of_line: dict[str, set[str]]) -> dict[str, list[str]]:
    """For each line the tests that are most about its module, by the share of their lines there;
    each function with one set of parameters before any with the next.
    """
    everywhere = Counter(test for tests in of_line.values() for test in tests)
    here = Counter((_module(line), test) for line, tests in of_line.items() for test in tests)
    chosen = {}
    for line, tests in of_line.items():
        times: Counter[str] = Counter()
        turns = []
        for share, test in sorted((-here[_module(line), t] / everywhere[t], t) for t in tests):
            function = _PARAMETERS.sub("", test)
            turns.append((times[function], share, test))
            times[function] += 1
        chosen[line] = [test for _, _, test in sorted(turns)[:_MOST_TESTS]]
    return chosen


def _module(line: str) -> str:
    return line.partition(":")[0]


def tests_for(mutant: Mutant, known: dict[str, Any], most: float) -> list[str]:
    """The tests of the mutant's line, together at most so many seconds, but one at least."""
    tests = list(known["lines"].get(f"{mutant.module}:{mutant.line}", ()))
    if mutant.module.startswith(tuple(known["covers"])):
        tests += [test for test in known["seconds"] if test not in tests]
    chosen: list[str] = []
    for test in tests:
        if not chosen or known["seconds"][test] <= most:
            chosen.append(test)
            most -= known["seconds"][test]
    return sorted(chosen, key=lambda test: float(known["seconds"][test]))


def judge(tree: Path, known: dict[str, Any], mutant: Mutant, most: float) -> dict[str, Any]:
    """Tries the tests of the mutant's line; `killed_by` is the one that fails, and fails again."""
    path, start = tree / mutant.module, time.monotonic()
    before, tests = path.read_text(), tests_for(mutant, known, most)
    limit = 30 + 3 * sum(known["seconds"][test] for test in tests)
    try:
        _write(path, mutant.source)
        killed_by, unsteady = _killer(tree, tests, limit)
    finally:
        _write(path, before)
    # Too long, or pytest itself failed: it must do better without the mutant.
    if killed_by.startswith("exit") and run_tests(tree, tests, limit, "-x")[0] not in (0, 1):
        killed_by, unsteady = "", tests
    seconds = round(time.monotonic() - start, 1)
    return {"killed_by": killed_by, "tests": len(tests), "unsteady": unsteady, "seconds": seconds}


def _killer(tree: Path, tests: Sequence[str], limit: float) -> tuple[str, list[str]]:
    """The test that fails twice, or pytest's exit code; and the tests that failed only once."""
    once: list[str] = []
    while tests:
        code, failed = run_tests(tree, tests, limit, "-x")
        if code == 0:
            break
        if not failed:
            return f"exit code {code}", once
        if run_tests(tree, failed, limit)[0] != 0:
            return failed[0], once
        once += failed
        tests = [test for test in tests if test not in once]
    return "", once


def _write(path: Path, text: str) -> None:
    """Also removes what was compiled: a mutant may have the size and the second of another."""
    path.write_text(text)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink(missing_ok=True)


def run(tree: Path, arguments: argparse.Namespace) -> None:
    """Judges what no run with this map has judged and none has killed; writes each result."""
    known, out = json.loads(arguments.map.read_text()), arguments.out
    state, stage, results = state_of(tree), arguments.map.stem, load(out)
    if {known["state"], *(one["state"] for one in results)} != {state}:
        raise SystemExit(f"{arguments.map} or {out} was made from another state of {tree}")
    done = {one["name"] for one in results if one["killed_by"] or one["stage"] == stage}
    for mutant in sample(tree, arguments.count, arguments.seed):
        if mutant.name in done:
            continue
        with (arguments.lock or arguments.map).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = judge(tree, known, mutant, arguments.seconds)
        about = {"name": mutant.name, "module": mutant.module, "stage": stage, "state": state}
        with out.open("a") as file:
            file.write(json.dumps({**about, **result}) + "\n")


def load(out: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Killed and tried for each module, and the survivors; the last result of a mutant counts."""
    last = {one["name"]: one for one in results}
    killed = [one for one in last.values() if one["killed_by"]]
    tried, hit = (Counter(one["module"] for one in some) for some in (last.values(), killed))
    lines = [f"{module}: {hit[module]} of {number}" for module, number in sorted(tried.items())]
    share = 100 * len(killed) / max(1, len(last))
    lines.append(f"killed: {len(killed)} of {len(last)} ({share:.1f} %)")
    left = sorted(name for name, one in last.items() if not one["killed_by"])
    return "\n".join(
        [*lines, *(f"survived: {name} ({last[name]['tests']} tests)" for name in left)]
    )


def main() -> None:
    """See the module's docstring."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the source is restored on the way out
    signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup has it ignored, also by tests
    parser = argparse.ArgumentParser(description="count the built-in faults that the tests find")
    parser.add_argument("command", choices=("map", "run", "show"))
    parser.add_argument("tests", nargs="*", help="map: paths, relative to the tree")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tree", type=Path, default=Path.cwd())
    parser.add_argument("--covers", action="append", default=[], metavar="PREFIX", help="map")
    parser.add_argument("--map", type=Path, help="run")
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="run: tests of one mutant")
    parser.add_argument("--lock", type=Path, help="run: held while a mutant is tried")
    arguments = parser.parse_intermixed_args()
    tree = arguments.tree.resolve()
    if arguments.command == "map":
        arguments.out.write_text(json.dumps(make_map(tree, arguments.tests, arguments.covers)))
        return
    if arguments.command == "run":
        run(tree, arguments)
    print(summary(load(arguments.out)))


if __name__ == "__main__":
    main()
