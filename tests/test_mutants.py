"""tools/mutants.py tells a fault that the tests find from one that they do not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.mutants import run, summary


def test_a_toy_package(tmp_path: Path) -> None:
    """CONTRIBUTING: the mutation run kills what is tested, and lists what is not."""
    tree, out = tmp_path / "toy", tmp_path / "results.jsonl"
    for name, text in {
        "agent/__init__.py": "",
        "agent/toy.py": ("def covered(a):\n    return not a\n\n\ndef unused(a):\n    return a\n"),
        "tests/core/test_toy.py": (
            "from agent.toy import covered\n\n\ndef test_it():\n    assert covered(0) is True\n"
            "    assert covered(1) is False\n"
        ),
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    options = argparse.Namespace(
        tree=tree,
        python=sys.executable,
        count=50,
        seed=1,
        stages="mapped",
        directory=tmp_path,
        out=out,
        resume=True,
    )
    results = run(options)
    outcomes = {(one["line"], bool(one["killed_by"])) for one in results}
    assert outcomes == {(2, True), (6, False)}
    assert "survived: agent/toy.py:6 return-None" in summary(results)
    lines = out.read_text()
    assert run(options) == results  # resumed: nothing is left to do
    assert out.read_text() == lines
