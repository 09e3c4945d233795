"""What the documents name is there: a table of tests that no longer exist would prove nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
_MADE = {"agent/share/runtime.lock"}  # in the wheel alone
_FILE = re.compile(
    r"(?<![\w/])(?:agent|adapters|core|providers|service|tests|tools|bench|docs|systemd)/[\w/.-]*\w"
)
_IN_AGENT = ("adapters/", "core/", "providers/", "service/")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    """A path with an ending, as the documents write it: from the root or from agent/."""
    named = {name for name in _FILE.findall(document.read_text()) if "." in Path(name).name}
    missing = [name for name in sorted(named - _MADE) if not _places(name, document)]
    assert not missing


_INCIDENT = re.compile(r"^\| (\d+) \|.*\| (.*) \|$", re.MULTILINE)
_CITED = re.compile(r"incidents?\s+(\d+(?:(?:,| and)\s+\d+)*)", re.IGNORECASE)


def test_every_incident_is_cited_where_its_test_is_said_to_be() -> None:
    """docs/incidents.md: each file in the last column names the incident's number."""
    rows = _INCIDENT.findall((REPOSITORY / "docs/incidents.md").read_text())
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    named = {(number, file) for number, text in rows for file in re.findall("`(tests/.*?)`", text)}
    cited = {
        (number, file)
        for file in {file for _, file in named}
        for numbers in _CITED.findall((REPOSITORY / file).read_text())
        for number in re.findall(r"\d+", numbers)
    }
    assert {number for number, _ in named} == {number for number, _ in rows}
    assert not named - cited


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_verb_that_is_named_exists(document: Path) -> None:
    """`make VERB` in a document is a rule of the Makefile."""
    rules = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", document.read_text())) <= rules


def _places(name: str, document: Path) -> list[Path]:
    folders = [REPOSITORY, document.parent]
    if name.startswith(_IN_AGENT):
        folders.append(REPOSITORY / "agent")
    return [folder / name for folder in folders if (folder / name).exists()]
