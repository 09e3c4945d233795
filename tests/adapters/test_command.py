"""What the programs that keysync starts are told (G10)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.adapters import command
from tests.support.marks import leaks

_RECORDER = """\
#!/bin/sh
tr '\\0' '\\n' </proc/$$/environ >"${0%/*}/told"
echo done
"""
_SECRET = "0123456789abcdef0123456789abcdef-of-the-console"


@pytest.mark.parametrize("start", [command.run, command.output_of])
@pytest.mark.parametrize("program", ["useradd", "systemctl"])
def test_no_program_is_told_an_api_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, start: object
) -> None:
    """G10: neither the account's key nor the instance's own is in a child's environment."""
    fake = tmp_path / program
    fake.write_text(_RECORDER)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("VAST_API_KEY", _SECRET)
    monkeypatch.setenv("CONTAINER_API_KEY", _SECRET[::-1])
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert callable(start)
    start(program, "--system")
    told = (tmp_path / "told").read_text()
    assert "LANG=C.UTF-8\n" in told
    assert leaks(told, api_key=_SECRET) == []
    assert leaks(told, api_key=_SECRET[::-1]) == []
    assert "API_KEY" not in told
