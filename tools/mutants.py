"""Mutation run: builds small faults into a copy of `agent/` and counts those that the tests find.

    .venv/bin/python tools/mutants.py --count 320 --seed 1 --out results.jsonl
    .venv/bin/python tools/mutants.py --out results.jsonl --resume
    .venv/bin/python tools/mutants.py --tree OLD --python OLD/.venv/bin/python --out old.jsonl

Each result is one JSON line. A mutant is killed when pytest fails, or exceeds the time of
its stage. A stage is used only if it passes without a mutant, which is tried once.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_FAST = ("tests/core", "tests/adapters", "tests/service", "tests/cli", "tests/network")
_LAST = ("tests/e2e", "tests/attacks")
_COPY_IGNORES = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis")
_NO_TESTS = (4, 5)  # exit codes of pytest: a path that is missing, nothing collected


class Mutant(NamedTuple):
    """A fault: `module` relative to the tree, the line in it, and the module's new source."""

    module: str
    line: int
    operator: str
    source: str
    diff: str

    @property
    def name(self) -> str:
        """What identifies the mutant in a file of results."""
        return f"{self.module}:{self.line} {self.operator} {self.diff}"


class Stage(NamedTuple):
    """Some paths of tests, and the seconds that they may take."""

    name: str
    paths: tuple[str, ...]
    seconds: float
    options: tuple[str, ...] = ()


def _expressions(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Compare):
        other = copy.deepcopy(node)
        other.ops[0] = _SWAPS[type(node.ops[0])]()
        yield "comparison", other
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and-or", ast.BoolOp(swapped, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        assert isinstance(node.value, int | float)
        yield "constant+1", ast.Constant(node.value + 1)
        yield "constant-1", ast.Constant(node.value - 1)


def _statements(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    if isinstance(node, ast.If):
        for value in (True, False):
            yield f"if-{value}", ast.If(ast.Constant(value), node.body, node.orelse)
    elif isinstance(node, ast.Return) and node.value is not None:
        for constant in (None, True, False):
            yield f"return-{constant}", ast.Return(ast.Constant(constant))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "delete-call", ast.Pass()
    elif isinstance(node, ast.Assign | ast.AugAssign | ast.Raise | ast.Delete):
        yield "delete-statement", ast.Pass()


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def mutants_of(text: str, module: str) -> list[Mutant]:
    """Each fault that can be built into the bodies of the functions of one module."""
    tree = ast.parse(text)
    plain = ast.unparse(tree)
    found: dict[str, Mutant] = {}
    for function in _functions(tree):
        for parent in ast.walk(function):
            for place, node, at in _children(parent):
                if parent is function and place != "body":
                    continue
                for operator, other in _replacements(node):
                    source = _with(tree, parent, place, at, other)
                    if source is not None and source != plain and source not in found:
                        line, diff = getattr(node, "lineno", 0), _diff(plain, source)
                        found[source] = Mutant(module, line, operator, source, diff)
    return list(found.values())


def _children(parent: ast.AST) -> Iterator[tuple[str, ast.AST, int | None]]:
    for place, value in ast.iter_fields(parent):
        if isinstance(value, ast.AST):
            yield place, value, None
        elif isinstance(value, list):
            yield from (
                (place, one, at) for at, one in enumerate(value) if isinstance(one, ast.AST)
            )


def _replacements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.expr):
        yield from _expressions(node)
    elif isinstance(node, ast.stmt):
        yield from _statements(node)


def _with(
    tree: ast.Module, parent: ast.AST, place: str, at: int | None, other: ast.AST
) -> str | None:
    """The source with one node replaced; None when it does not compile."""
    value = getattr(parent, place)
    old = value if at is None else value[at]
    try:
        _set(parent, place, at, other)
        source = ast.unparse(ast.fix_missing_locations(tree))
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return None
    finally:
        _set(parent, place, at, old)
    return source


def _set(parent: ast.AST, place: str, at: int | None, value: ast.AST) -> None:
    if at is None:
        setattr(parent, place, value)
    else:
        getattr(parent, place)[at] = value


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return " | ".join(line[0] + line[1:].strip() for line in changed[:4])


def sample(tree: Path, count: int, seed: int) -> list[Mutant]:
    """`count` mutants, over the modules of agent/ in proportion to their functions."""
    chance = random.Random(seed)  # noqa: S311  # reason: a sample, not a secret
    texts = {str(p.relative_to(tree)): p.read_text() for p in sorted(tree.glob("agent/**/*.py"))}
    places = [name for name, text in texts.items() for _ in _functions(ast.parse(text))]
    quota = Counter(places[int((at + 0.5) * len(places) / count)] for at in range(count))
    chosen: list[Mutant] = []
    for name, number in sorted(quota.items()):
        every = mutants_of(texts[name], name)
        chosen += chance.sample(every, min(number, len(every)))
    chance.shuffle(chosen)  # a run that is stopped has a sample of all modules
    return chosen


def stages(tree: Path, module: str) -> list[Stage]:
    """The tests of the module first, then the fast ones, then the slow ones."""
    name = module.removesuffix(".py").replace("/", ".")
    package, _, stem = name.rpartition(".")
    imports = (f"from {name} import", f"import {name}", f"from {package} import {stem}")
    mapped = sorted(
        str(path.relative_to(tree))
        for path in tree.glob("tests/**/test_*.py")
        if (path.name.startswith(f"test_{stem}") or any(i in path.read_text() for i in imports))
        and str(path.relative_to(tree)).split("/")[1] not in ("attacks", "systemd", "install")
    )
    fast = ("-n", "2", "-m", "not attack and not slow and not systems", "--hypothesis-profile=fast")
    bounded = ("-n", "2", "-m", "not slow and not sweep and not systems")
    every = (
        Stage("mapped", tuple(mapped), 180.0),
        Stage("fast", _there(tree, _FAST), 400.0, fast),
        Stage("last", _there(tree, _LAST), 600.0, bounded),
    )
    return [stage for stage in every if stage.paths]


def _there(tree: Path, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if (tree / path).exists())


def passes(tree: Path, python: str, stage: Stage) -> bool:
    """Whether the tests of the stage pass in time. Raises SystemExit when there are none."""
    words = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *stage.options]
    process = subprocess.Popen(
        [*words, *stage.paths],
        cwd=tree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
    )
    try:
        code = process.wait(stage.seconds)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code in _NO_TESTS:
        raise SystemExit(f"pytest ran no tests (exit code {code}) for: {' '.join(stage.paths)}")
    return code == 0


@functools.cache
def is_usable(tree: Path, python: str, stage: Stage) -> bool:
    """Whether the stage passes on the tree as it is, so that a failure means a mutant was found."""
    usable = passes(tree, python, stage)
    if not usable:
        print(f"left out, fails without a mutant: {' '.join(stage.paths)}", file=sys.stderr)
    return usable


def judge(tree: Path, python: str, mutant: Mutant, names: Sequence[str]) -> str:
    """The stage that kills the mutant; empty when it survives them all."""
    path = tree / mutant.module
    before = path.read_text()
    for stage in stages(tree, mutant.module):
        if stage.name not in names or not is_usable(tree, python, stage):
            continue
        try:
            path.write_text(mutant.source)
            if not passes(tree, python, stage):
                return stage.name
        finally:
            path.write_text(before)
    return ""


def summary(results: Sequence[dict[str, object]]) -> str:
    """Killed and survived for each module, and the survivors."""
    lines = []
    for module in sorted({str(one["module"]) for one in results}):
        mine = [one for one in results if one["module"] == module]
        lines.append(f"{module}: {sum(bool(one['killed_by']) for one in mine)} of {len(mine)}")
    killed = sum(bool(one["killed_by"]) for one in results)
    share = 100 * killed / max(1, len(results))
    lines.append(f"killed: {killed} of {len(results)} ({share:.1f} %)")
    lines += [
        f"survived: {one['module']}:{one['line']} {one['operator']}: {one['diff']}"
        for one in results
        if not one["killed_by"]
    ]
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Judges the sample in a copy of the tree; each result is written when it is known."""
    out: Path = arguments.out
    if out.exists() and not arguments.resume:
        raise SystemExit(f"{out} exists; continue that run with --resume, or name another file")
    results = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {one["name"] for one in results}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(arguments.tree, tree, ignore=_COPY_IGNORES, symlinks=True)
        for mutant in sample(tree, arguments.count, arguments.seed):
            if mutant.name in done:
                continue
            start = time.monotonic()
            killed_by = judge(tree, arguments.python, mutant, arguments.stages.split(","))
            result = {"name": mutant.name, **mutant._asdict(), "killed_by": killed_by}
            del result["source"]
            result["seconds"] = round(time.monotonic() - start, 1)
            results.append(result)
            with out.open("a") as file:
                file.write(json.dumps(result) + "\n")
    return results


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="count the built-in faults that the tests find")
    parser.add_argument("--tree", type=Path, default=Path.cwd(), help="the checkout to copy")
    parser.add_argument("--python", default=sys.executable, help="with the tree's test libraries")
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", default="mapped,fast,last", help="which of mapped,fast,last")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="for the copy")  # noqa: S108  # reason: only the parent of a private directory
    parser.add_argument("--out", type=Path, required=True, help="results, a JSON object a line")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    print(summary(run(parser.parse_args())))


if __name__ == "__main__":
    main()
