"""Whether a replaced API key is noticed without reading it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.adapters.credential import sources_signature

NOWHERE = "/nonexistent/api_key"  # these tests do not depend on an installation on this machine


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("another")


def _rename(path: Path) -> None:
    new = path.with_name("new")
    new.write_text(path.read_text())
    new.rename(path)


def _write_in_place(path: Path) -> None:
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(0, 0))  # also with the times of the file set back


CHANGES: list[Callable[[Path], object]] = [
    _rename,
    _write_in_place,
    Path.unlink,
    lambda path: path.chmod(0o644),
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_the_key_file_shows(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """API key: replaced, written to, deleted, or its mode mended."""
    path = tmp_path / "api_key"
    path.write_text("secret")
    path.chmod(0o600)
    before = sources_signature(str(path), {})
    assert sources_signature(str(path), {}) == before
    change(path)
    assert sources_signature(str(path), {}) != before


@pytest.mark.parametrize("name", [".config/vastai/vast_api_key", ".vast_api_key"])
def test_a_key_that_comes_to_any_place_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """API key: without api.key_file every place that is looked at counts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before = sources_signature(None, {}, NOWHERE)
    _create(tmp_path / name)
    assert sources_signature(None, {}, NOWHERE) != before


def test_the_installed_file_counts(tmp_path: Path) -> None:
    """API key: the file that `keysync install` makes is one of the places."""
    installed = tmp_path / "etc" / "api_key"
    before = sources_signature(None, {}, str(installed))
    _create(installed)
    assert sources_signature(None, {}, str(installed)) != before


def test_the_credential_of_systemd_counts(tmp_path: Path) -> None:
    """API key: $CREDENTIALS_DIRECTORY/api_key is one of the places."""
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    before = sources_signature(None, environment, NOWHERE)
    _create(tmp_path / "api_key")
    assert sources_signature(None, environment, NOWHERE) != before


def test_with_a_key_file_no_other_place_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API key: api.key_file is the only place when it is configured; ~ is the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before = sources_signature("~/key", {})
    _create(tmp_path / ".vast_api_key")
    assert sources_signature("~/key", {}) == before
    _create(tmp_path / "key")
    assert sources_signature("~/key", {}) != before
