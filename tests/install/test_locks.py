"""requirements/*.lock: whole, without an address, what keysync's metadata allows, and enough."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.locks import REQUIREMENTS, pins_here, read_pins
from tests.support.machine import REPOSITORY
from tests.support.wheels import build_wheel, locked_wheels

_WITH_EXTRAS = r"(?m)^([a-z0-9-]+)\[([a-z0-9,-]+)\]=="
LOCKS = sorted(path.stem for path in REQUIREMENTS.iterdir())


def test_the_locks_are_these() -> None:
    """A new file here needs its place in tools/lock.sh and in these tests."""
    assert LOCKS == ["audit", "build", "clients", "dev", "runtime"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_address(name: str) -> None:
    """Mirrors and private indexes work unchanged, and none is imposed on whoever installs."""
    text = (REQUIREMENTS / f"{name}.lock").read_text()
    assert "://" not in text
    options = set(re.findall(r"(?m)^\s*(-\S+?)(?:[=\s]|$)", text))
    assert options == {"--hash"}


@pytest.mark.parametrize("name", LOCKS)
def test_every_library_has_hashes(name: str) -> None:
    """pip checks each file; a pin without a hash, or with a range, would be a hole."""
    pins = read_pins(name)
    assert pins
    assert [pin for pin in pins if not pin.hashes] == []
    lines = (REQUIREMENTS / f"{name}.lock").read_text().splitlines()
    assert sum(bool(line) and line[0] not in " #" for line in lines) == len(pins)


def test_the_runtime_lock_is_what_the_metadata_allows() -> None:
    """What the wheel requires is locked, each within its range."""
    versions = {pin.name: pin.version for pin in read_pins("runtime")}
    desired = [Requirement(text) for text in requires("keysync") or ()]
    assert len(desired) >= 5
    for requirement in desired:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("name", ["dev", "build"])
def test_the_tests_run_on_what_users_get(name: str) -> None:
    """The same version of a library, with the same hashes, in every lock that is installed."""
    known = {(pin.name, pin.marker): pin for pin in [*read_pins("runtime"), *read_pins("dev")]}
    names = {pin.name for pin in known.values()}
    assert [
        pin
        for pin in read_pins(name)
        if pin.name in names and known.get((pin.name, pin.marker), pin) != pin
    ] == []
    assert {pin.name for pin in read_pins("runtime")} <= {pin.name for pin in read_pins("dev")}


def test_extras_stay_named() -> None:
    """A pin without its extra is no pin for pip: it would take the newest version there is, and
    refuse it for its missing hash.
    """
    text = (REQUIREMENTS / "dev.lock").read_text()
    locked = {match[1]: match[2].split(",") for match in re.finditer(_WITH_EXTRAS, text)}
    desired = {
        (canonicalize_name(requirement.name), extra)
        for pin in pins_here("dev")
        for requirement in map(Requirement, requires(pin.name) or ())
        if not requirement.marker or requirement.marker.evaluate({"extra": ""})
        for extra in requirement.extras
    }
    assert ("coverage", "toml") in desired
    assert [one for one in desired if one[1] not in locked.get(one[0], [])] == []


@pytest.fixture(scope="module")
def runtime_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the runtime lock and keysync's wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("runtime")
    wheels = folder / "wheels"
    wheels.mkdir()
    for wheel in locked_wheels():
        (wheels / wheel.name).symlink_to(wheel)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_NO_COMPILE": "1"}
    pip: list[str | Path] = [python, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    for what in (
        ("--require-hashes", "-r", REQUIREMENTS / "runtime.lock"),
        ("--no-deps", build_wheel(folder)),
    ):
        subprocess.run([*pip, *what], check=True, env=os.environ | offline)
    return python


def _imported() -> set[str]:
    """Every module that agent/ imports, at import time or later."""
    found: set[str] = set()
    for path in (REPOSITORY / "agent").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
    return found


def test_the_agent_needs_the_runtime_lock_alone(runtime_python: Path) -> None:
    """Every module of the agent, and every import within its functions, works in an environment
    that holds the locked libraries alone.
    """
    names = _imported()
    assert {"apscheduler", "httpx", "structlog", "yaml"} <= {
        name.partition(".")[0] for name in names
    }
    code = (
        "import importlib, pkgutil, sys, agent\n"
        "found = [one.name for one in pkgutil.walk_packages(agent.__path__, 'agent.')]\n"
        "assert len(found) > 30\n"
        "for name in [*found, *sys.argv[1:]]:\n"
        "    if not name.endswith('__main__'): importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [runtime_python, "-I", "-W", "error", "-c", code, *sorted(names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_runtime_lock_holds_nothing_that_is_not_needed(runtime_python: Path) -> None:
    """pip finds every requirement met, and there is not one package more than the lock names."""
    pip: list[str | Path] = [runtime_python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "check"], check=True, capture_output=True)
    listed = subprocess.run(
        [*pip, "freeze", "--exclude", "keysync"], check=True, capture_output=True, text=True
    ).stdout
    found = {
        (canonicalize_name(name), version)
        for name, _, version in (line.partition("==") for line in listed.splitlines())
    }
    assert found == {(pin.name, pin.version) for pin in pins_here("runtime")}
