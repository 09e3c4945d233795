"""The project's errors as exceptions, and the table of their kinds and exit codes."""

from __future__ import annotations

import ast
import errno
from collections.abc import Iterator
from pathlib import Path

from agent.adapters.files.os_errors import failed
from agent.errors import (
    EXIT_HELD,
    LOCKOUT_KINDS,
    REFUSED_KINDS,
    AnswerUnusable,
    Busy,
    CredentialRejected,
    KeysyncError,
    TargetFailed,
    TemporaryFailure,
    exit_code_of,
)
from tests.support.machine import REPOSITORY


def test_a_secret_that_was_taken_out_of_the_message_is_out_of_the_error() -> None:
    """Incident 28, G10: neither the text nor the representation has what the message lost."""
    error = TargetFailed("k", "Bearer SECRET", "h")
    error.message = "Bearer (hidden)"
    assert str(error) == "Bearer (hidden)"
    assert "SECRET" not in repr(error)


def test_a_held_lock_has_an_exit_code_of_its_own_kind() -> None:
    """Incident 28: it may be tried again, and says nothing about the API."""
    assert Busy("busy", "m", "h").exit_code == 75


CLASSES = {kind.__name__: kind for kind in KeysyncError.__subclasses__()}
HELD = LOCKOUT_KINDS | REFUSED_KINDS


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in (REPOSITORY / "agent").rglob("*.py"):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def _raised() -> set[tuple[str, str]]:
    """The class and the kind of every error, and of every guard's answer, that agent/ makes."""
    found = {
        (call.func.id, str(call.args[0].value))
        for _, tree in _trees()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in {*CLASSES, "Held"}
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }
    of_the_system = (failed(OSError(number, ""), "write", "/k") for number in errno.errorcode)
    return found | {("TargetFailed", error.kind) for error in of_the_system}


def test_every_kind_that_is_raised_is_in_the_table() -> None:
    """Exit codes: errors.py lists each kind with its class."""
    declared = {(name, kind) for name, error in CLASSES.items() for kind in error.kinds}
    declared |= {("Held", kind) for kind in HELD}
    assert len(declared) > 60
    assert _raised() <= declared


def test_every_kind_in_the_table_is_raised() -> None:
    """Exit codes: the table has no kind that nothing else in agent/ names."""
    named = {
        node.value
        for path, tree in _trees()
        if path.name != "errors.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
    }
    assert HELD.union(*(error.kinds for error in CLASSES.values())) <= named


def test_a_kind_alone_tells_the_exit_code() -> None:
    """Exit codes: the state keeps the kind of the last cycle's failure, and `status` needs the
    code.
    """
    cycle = (AnswerUnusable, TemporaryFailure, Busy, CredentialRejected)
    for error in cycle:
        assert {exit_code_of(kind) for kind in error.kinds} == {error.exit_code}
    others = TargetFailed.kinds - AnswerUnusable.kinds
    assert {exit_code_of(kind) for kind in others} == {TargetFailed.exit_code}
    assert {exit_code_of(kind) for kind in HELD} == {EXIT_HELD}
    assert exit_code_of("a kind of another version") == TargetFailed.exit_code
    assert AnswerUnusable.kinds & TargetFailed.kinds == {"too_large"}
