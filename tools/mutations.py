"""The faults of a mutation run: one place in the body of one function, written otherwise."""

from __future__ import annotations

import ast
import copy
import random
from collections import Counter
from collections.abc import Iterator
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


class Mutant(NamedTuple):
    """A fault: `module` relative to the tree, the line in it, and the module's new source."""

    module: str
    line: int
    operator: str
    diff: str
    source: str

    @property
    def name(self) -> str:
        """What identifies the mutant in a file of results."""
        return f"{self.module}:{self.line} {self.operator}: {self.diff}"


def sample(tree: Path, count: int, seed: int) -> list[Mutant]:
    """`count` mutants, over the modules of agent/ in proportion to their functions."""
    chance = random.Random(seed)  # noqa: S311  # reason: a sample, not a secret
    texts = {str(p.relative_to(tree)): p.read_text() for p in sorted(tree.glob("agent/**/*.py"))}
    places = [name for name, text in texts.items() for _ in _functions(text)]
    quota = Counter(places[int((at + 0.5) * len(places) / count)] for at in range(count))
    chosen: list[Mutant] = []
    for name, number in sorted(quota.items()):
        every = mutants_of(texts[name], name)
        chosen += chance.sample(every, min(number, len(every)))
    chance.shuffle(chosen)  # a run that is stopped has a sample of all modules
    return chosen


def mutants_of(text: str, module: str) -> list[Mutant]:
    """Each fault that can be built into the functions of one module."""
    found: dict[str, Mutant] = {}
    for function in _functions(text):
        for node in (inner for statement in function.body for inner in _inner(statement)):
            for operator, old, new in _replacements(node):
                source, before = _replaced(text, old, new)
                if source != text and source not in found and _compiles(source):
                    diff = f"{' '.join(before.split())} -> {new}"
                    found[source] = Mutant(module, old.lineno, operator, diff, source)
    return list(found.values())


def _functions(text: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def _inner(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, but no parts of an f-string: Python 3.11 misplaces them."""
    if not isinstance(node, ast.JoinedStr):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _inner(child)


def _replacements(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """For each fault its kind, the node that it replaces, and the new text."""
    if isinstance(node, ast.expr):
        for operator, other in _expressions(node):
            yield operator, node, f"({ast.unparse(other)})"
    elif isinstance(node, ast.If):
        yield "if-True", node.test, "True"
        yield "if-False", node.test, "False"
    elif isinstance(node, ast.Return) and node.value is not None:
        for constant in (None, True, False):
            yield f"return-{constant}", node, f"return {constant}"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "delete-call", node, "pass"
    elif isinstance(node, ast.Assign | ast.AugAssign | ast.Raise | ast.Delete):
        yield "delete-statement", node, "pass"


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


def _replaced(text: str, node: ast.expr | ast.stmt, new: str) -> tuple[str, str]:
    """The text with one node replaced, and what stood there; the other lines stay as they are."""
    lines = text.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    data = b"".join(lines)
    return (data[:start] + new.encode() + data[end:]).decode(), data[start:end].decode()


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True
