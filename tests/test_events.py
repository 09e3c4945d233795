"""The events, and the page that lists them: both say the same."""

from __future__ import annotations

import ast
import dataclasses
import re

import pytest

from agent import daemon_events, errors, events
from agent.errors import EXIT_HELD, KeysyncError
from agent.log import LEVELS
from tests.support.machine import REPOSITORY

PAGE = (REPOSITORY / "docs" / "events.md").read_text(encoding="utf-8")
COMMON = {"timestamp", "level", "event", "service", "version", "host", "instance_id"}
SECTION = "In every line of a cycle"
KINDS_FROM = (
    "providers/vast.py",
    "core/guards.py",
    "adapters/http_errors.py",
    "adapters/credential.py",
    "service/additions.py",
    "service/report.py",
)


EVENTS: dict[str, type[events.Event]] = {
    kind.name: kind
    for module in (events, daemon_events)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, events.Event) and "name" in vars(kind)
}


def _rows(text: str) -> list[list[str]]:
    """The cells of the tables in a piece of the page, headings left out."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def _fields(text: str) -> list[str]:
    return [row[0].strip("`") for row in _rows(text)]


@dataclasses.dataclass(frozen=True)
class Documented:
    level: str
    fields: list[str]
    text: str


def _documented() -> dict[str, Documented]:
    """Each event of the page; what stands at the top of its section holds for it as well."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        shared, *parts = re.split(r"^### ", section, flags=re.MULTILINE)
        for part in parts:
            heading = re.match(r"`([a-z_.]+)` \(([a-z]+)\)\n", part)
            assert heading, part[:60]
            assert heading[1] not in found
            fields = _fields(shared) + _fields(part)
            if not shared.startswith("The agent itself"):
                fields = _fields(_section(SECTION)) + fields
            found[heading[1]] = Documented(heading[2], fields, part[heading.end() :].strip())
    return found


def _section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


DOCUMENTED = _documented()


def test_list_and_code_are_equal() -> None:
    """Logs: docs/events.md lists every event there is, and none else."""
    assert sorted(DOCUMENTED) == sorted(EVENTS)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_fields(name: str) -> None:
    """Logs: with its level and every field in the order of the line, each with a meaning."""
    assert DOCUMENTED[name].fields == list(EVENTS[name].fields)
    assert DOCUMENTED[name].level == EVENTS[name].level
    assert DOCUMENTED[name].text


def test_every_row_has_a_meaning() -> None:
    """Logs: no field is listed without words about it."""
    for row in _rows(PAGE):
        assert all(row), row


def test_common_fields() -> None:
    """Logs: what the renderer adds is documented too, and no event has a field of that name."""
    assert set(_fields(_section("In every line"))) == COMMON
    for kind in EVENTS.values():
        assert COMMON.isdisjoint(kind.fields)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_names(name: str) -> None:
    """Logs: a name is noun.past_verb, its level a level, and it is a frozen value."""
    noun, _, verb = name.partition(".")
    assert re.fullmatch("[a-z]+", noun)
    irregular = ("held", "set_aside", "still_authorized", "locked_out")
    assert re.fullmatch("[a-z_]+ed", verb) or verb in irregular
    assert EVENTS[name].level in LEVELS
    assert EVENTS[name].__doc__
    with pytest.raises(AttributeError, match="frozen"):
        EVENTS[name]().level = "debug"  # type: ignore[misc]  # reason: what is tested


def test_contract() -> None:
    """Logs: the names that are promised exist."""
    promised = {
        *("sync.completed", "sync.failed", "sync.held"),
        *("key.added", "key.adopted", "key.removed", "key.rejected"),
        *("key.reappeared", "key.still_authorized"),
    }
    assert promised <= set(EVENTS)


def _raised_kinds() -> dict[str, int]:
    """The kinds of failures that stand in the code, with their exit codes."""
    codes = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, KeysyncError)
    } | {"Held": EXIT_HELD}
    found = {"busy": errors.Busy.exit_code}
    for path in KINDS_FROM:
        for node in ast.walk(ast.parse((REPOSITORY / "agent" / path).read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in codes:
                [kind] = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
                found[str(kind)] = codes[node.func.id]  # type: ignore[attr-defined]  # reason: the line above found its id
    return found


def test_kinds() -> None:
    """Commands: every kind of failure is listed with the exit code that it has."""
    rows = {row[0].strip("`"): int(row[1]) for row in _rows(_section("Kinds"))}
    assert rows == _raised_kinds()
