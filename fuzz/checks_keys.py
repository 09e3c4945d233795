"""What holds for any bytes that are read as a key, as a pasted entry or as an options field."""

from __future__ import annotations

import unicodedata

from agent.core.authorized_keys import LineKind, managed_line, parse_line
from agent.core.key_entry import fingerprints_in, parse_entry
from agent.core.options import end_of_options, parse_options
from agent.core.public_key import PublicKey
from agent.core.wire import InvalidKey
from fuzz import oracle

_FLOOR = 2048


def blob(data: bytes) -> None:
    """A key or InvalidKey; a key is canonical, and others read it and name it alike."""
    try:
        key = PublicKey.from_blob(data)
    except InvalidKey as error:
        _tells_nothing(error)
        return
    assert PublicKey.from_blob(key.blob) == key
    assert key.fingerprint == oracle.fingerprint(key.blob)
    if key.known_type:  # what follows the name of another type is for sshd alone to read
        assert oracle.fields(key.blob)[0].decode() == key.key_type
    line = key.line("me")
    assert all(0x20 <= byte < 0x7F for byte in line)
    assert parse_line(line).key == key
    written = oracle.rewritten(key.line())
    assert written is None or written == key.line()


def _tells_nothing(error: InvalidKey) -> None:
    """G10: a reason and a sentence, and nothing of the text."""
    assert error.reason.replace("_", "").isalnum()
    assert error.detail.isprintable()
    assert "AAAA" not in str(error)


def entry(data: bytes) -> None:
    """G2: a strong canonical key with a harmless comment, or InvalidKey that quotes nothing."""
    text = data.decode("utf-8", "surrogateescape")
    seen = fingerprints_in(text)
    try:
        key, comment = parse_entry(text, _FLOOR)
    except InvalidKey as error:
        _tells_nothing(error)
        return
    assert key.fingerprint in seen
    assert key.flaw is None
    assert key.key_type != "ssh-rsa" or key.bits >= _FLOOR
    assert text.split()[:2] == key.line().decode().split()
    line = managed_line(key, comment)
    assert (line.kind, line.key, line.options) == (LineKind.MANAGED, key, None)
    written = line.raw.decode("utf-8")
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in written)
    assert written.split(" ")[:2] == text.split()[:2]


_NEGATABLE = frozenset(
    {
        *("agent-forwarding", "port-forwarding", "pty", "touch-required", "user-rc"),
        *("verify-required", "x11-forwarding"),
    }
)
_OTHERS = frozenset(
    {
        *("cert-authority", "command", "environment", "expiry-time", "from", "permitlisten"),
        *("permitopen", "principals", "restrict", "tunnel"),
    }
)


def options(data: bytes) -> None:
    """Names from sshd(8) only; case, empty options and what follows the field change nothing."""
    end = end_of_options(data)
    if end is None:
        return
    field = data[:end]
    found = parse_options(field)
    assert {name.removeprefix("no-") for name in found.names} <= _NEGATABLE | _OTHERS
    assert found.problem is None or found.problem.isprintable()
    assert not (found.problem and found.opens_session)
    assert parse_options(b"," + field) == found
    assert end == len(data) or data[end : end + 1] in (b" ", b"\t")
    assert end_of_options(field + b" " + data) == end
    again = parse_options(b"no-pty," + field + b",restrict")
    assert again.problem == found.problem
    if found.problem is None:
        assert again.names == ("no-pty", *found.names, "restrict")
