"""What holds for any answer of the API, any ledger on disk and any config_file."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import tempfile
from pathlib import Path

from agent import config_file
from agent.adapters.state import StateDirectory
from agent.core.answer import Answer
from agent.core.key_entry import parse_entry
from agent.core.wire import InvalidKey
from agent.errors import (
    AnswerUnusable,
    ConfigInvalid,
    CredentialRejected,
    KeysyncError,
    TemporaryFailure,
)
from agent.providers.vast import read_listing

_FLOOR = 2048


def listing(data: bytes) -> None:
    """G1 and G2: a whole listing or a named failure; no key comes from an entry that is refused."""
    try:
        found = read_listing(Answer(200, data), _FLOOR)
    except (AnswerUnusable, CredentialRejected) as error:
        _is_told_well(error)
        return
    answer = json.loads(data)
    entries = answer["ssh_keys"] if isinstance(answer, dict) else answer
    live = [entry for entry in entries if not entry.get("deleted_at")]
    good = [entry for entry in live if _accepted(entry)]
    assert len(found.rejected) == len(live) - len(good)
    assert {listed.key.blob for listed in found.keys} == {_accepted(entry) for entry in good}
    assert len({listed.key.blob for listed in found.keys}) == len(found.keys)
    for rejected in found.rejected:
        assert rejected.detail.isprintable()
    for listed in found.keys:
        assert b"\n" not in listed.key.line(listed.comment)
    assert found.listed_but_malformed <= found.present


def _accepted(entry: dict[str, object]) -> bytes | None:
    """The blob of an entry that passes the door by itself."""
    texts = [entry.get(name) for name in ("key", "public_key", "ssh_key")]
    text = next((text for text in texts if isinstance(text, str)), None)
    if text is None:
        return None
    try:
        return parse_entry(text, _FLOOR)[0].blob
    except InvalidKey:
        return None


def answer(data: bytes) -> None:
    """G1: any other status is a named failure with one printable sentence."""
    status = 100 + int.from_bytes(data[:2], "big") % 500
    if status == 200:
        return
    failure: KeysyncError | None = None
    try:
        read_listing(Answer(status, data[2:]), _FLOOR)
    except KeysyncError as error:
        failure = error
    assert isinstance(failure, (AnswerUnusable, TemporaryFailure, CredentialRejected))
    assert str(status) in failure.message
    _is_told_well(failure)


def _says_what_to_do(error: KeysyncError) -> None:
    assert error.message
    assert error.hint


def _is_told_well(error: KeysyncError) -> None:
    assert error.kind.replace("_", "").isalpha()
    assert error.message.isprintable()
    assert error.hint.isprintable()


@functools.cache
def _here() -> Path:
    """One folder for all inputs of a process; libFuzzer's own is removed by fuzz.__main__."""
    folder = tempfile.TemporaryDirectory(prefix="keysync-fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def state(data: bytes) -> None:
    """A ledger that is sound is written back as it was read; any other is a reason, not a crash."""
    folder = _here() / "state"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "state.json").write_bytes(data)
    directory = StateDirectory(str(folder))
    ledger, problem = directory.load()
    if problem is not None:
        assert dataclasses.replace(ledger, account_id=None) == type(ledger)()
        return
    directory.save(ledger)
    assert directory.load() == (ledger, None)


def config(data: bytes) -> None:
    """A configuration, or ConfigInvalid with its problems."""
    path = _here() / "config.yaml"
    path.write_bytes(data)
    try:
        found = config_file.load(str(path), {})
    except ConfigInvalid as error:
        _says_what_to_do(error)
        return
    assert found.targets is None or found.targets
    for pin in found.pins:
        assert b"\n" not in pin.key.line(pin.comment)
