"""tools/mutants.py tells a fault that the tests find from one that they do not."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tools.mutants import load, main, state_of, summary

TOY = "def covered(a):\n    return not a\n\n\ndef unused(a):\n    return a\n"
TEST = """import subprocess, sys

def test_the_process():
    code = "from agent.toy import covered; assert covered(0) is True and covered(1) is False"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0
"""
TEST_ID = "tests/test_toy.py::test_the_process"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clean checkout whose one test starts a process."""
    tree = tmp_path / "toy"
    files = {"agent/__init__.py": "", "agent/toy.py": TOY, "tests/test_toy.py": TEST}
    for name, text in {**files, ".gitignore": ".venv\n__pycache__\n"}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    venv.create(tree / ".venv", with_pip=False, symlinks=True)
    [library] = tree.glob(".venv/lib/python*/site-packages")
    (library / "a.pth").write_text(f"{tree}\n{sysconfig.get_path('purelib')}\n")
    git = ["git", "-C", str(tree), "-c", "user.name=toy", "-c", "user.email=toy"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "toy"]):
        subprocess.run([*git, *words], check=True)
    return tree


def test_a_toy_package(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTRIBUTING: the mutation run kills what a process of a test shows, and lists the rest."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # so that pytest starts quickly
    known, out = tree.parent / "map.json", tree.parent / "results.jsonl"
    common = ["mutants", "--tree", str(tree), "--map", str(known), "--count", "2"]
    monkeypatch.setattr(sys, "argv", [*common, "--out", str(known), "map", "tests"])
    main()
    assert json.loads(known.read_text())["lines"]["agent/toy.py:2"] == [TEST_ID]
    monkeypatch.setattr(sys, "argv", [*common, "--out", str(out), "run"])
    main()
    results = load(out)
    assert {(one["name"].split()[0], one["killed_by"]) for one in results} == {
        ("agent/toy.py:2", TEST_ID),
        ("agent/toy.py:6", ""),
    }
    assert "survived: agent/toy.py:6" in summary(results)
    main()
    assert load(out) == results, "what was judged is not judged again"
    state_of(tree)  # the sources are as they were
