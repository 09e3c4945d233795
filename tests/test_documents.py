"""The documents are true: the files, verbs and tests they name exist, the picture of the
architecture shows the real imports, and CI and pre-commit run what `make check` runs.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

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


_ARROW = re.compile(r"^[ │├└─]*([a-z/]+) ─*→ (.+)$", re.MULTILINE)
_SHARED = {"core", "errors", "providers"}  # every room may import them
_PART_OF = {
    "config_file": "config",
    "config_options": "config",
    "config_yaml": "config",
    "daemon_events": "events",
    "event_base": "events",
}


def test_the_picture_shows_the_imports() -> None:
    """docs/architecture.md: its arrows are exactly the imports between the rooms."""
    arrows = _ARROW.findall((REPOSITORY / "docs/architecture.md").read_text())
    drawn = {room: set(targets.split(", ")) - {"nothing"} for room, targets in arrows}
    real: dict[str, set[str]] = {}
    for path in (REPOSITORY / "agent").rglob("*.py"):
        room = _room(path.relative_to(REPOSITORY).with_suffix("").parts)
        real.setdefault(room, set()).update(_imported_rooms(path) - {room})
    del real["__init__"], real["__main__"]
    assert real.pop("core") <= {"errors"}
    assert not real.pop("errors")
    assert real.pop("providers") <= {"core", "errors"}
    assert drawn == {room: targets - _SHARED for room, targets in real.items()}


def _imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [tuple(name.split(".")) for name in names]
    return {_room(found) for found in parts if found[0] == "agent"} - {"__init__"}


def _room(module: tuple[str, ...]) -> str:
    """`core` for agent/core/plan, `adapters/files` for what is in there."""
    if module[1:3] == ("adapters", "files"):
        return "adapters/files"
    name = module[1]
    if (REPOSITORY / "agent" / name).is_dir() or (REPOSITORY / "agent" / f"{name}.py").exists():
        return _PART_OF.get(name, name)
    return "__init__"  # a name of the package itself, as __version__


def _check_commands() -> list[str]:
    """The linters of `make check`, as the Makefile writes them."""
    makefile = (REPOSITORY / "Makefile").read_text()
    rule = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert rule
    return re.findall(r"-m ((?:ruff|mypy).*)$", rule[1], re.MULTILINE)


def test_pre_commit_runs_the_linters_of_make_check() -> None:
    """CONTRIBUTING: the same linters, from .venv, so that there is no second version."""
    [repo] = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    entries = [hook["entry"] for hook in repo["hooks"]]
    assert len(entries) == 3
    assert entries == [f".venv/bin/python -m {command}" for command in _check_commands()]
    assert all(hook["language"] == "system" for hook in repo["hooks"])
    assert not any(hook["pass_filenames"] for hook in repo["hooks"])


def test_ci_runs_what_everybody_runs() -> None:
    """CONTRIBUTING: the workflow calls .ci/run as root, and .ci/run calls `make check`."""
    # YAML 1.1 reads the key `on` as true.
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    assert set(workflow[True]) == {"push", "pull_request"}
    [job] = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["sudo .ci/run"]
    assert "exec make check" in (REPOSITORY / ".ci/run").read_text()


def _places(name: str, document: Path) -> list[Path]:
    folders = [REPOSITORY, document.parent]
    if name.startswith(_IN_AGENT):
        folders.append(REPOSITORY / "agent")
    return [folder / name for folder in folders if (folder / name).exists()]
