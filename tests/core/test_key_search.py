"""The search of `targets: auto`, which must find whatever sshd reads as a known key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given

from agent.core.authorized_keys import AuthorizedKeys, parse_line
from agent.core.key_search import mentions_tag_or_key
from agent.core.public_key import PublicKey
from tests.core.support import (
    TAG,
    blob_of,
    ed25519,
    ed25519_blob,
    fields,
    growth_of_cost,
    joined,
    rsa_blob,
    text_of,
)
from tests.core.test_authorized_keys import DATA, KEY, OTHER_KEY, documents

KNOWN = frozenset({ed25519(1).fingerprint})


@pytest.mark.parametrize(
    "data",
    [
        KEY,
        KEY + b" me\n",
        b"# words\n" + OTHER_KEY + b"\nrestrict " + KEY + b"\r\n",
        b"# " + KEY,
        OTHER_KEY + b" " + TAG + b"\n",
        b"words " + TAG,
    ],
)
def test_a_file_that_mentions_a_known_key_or_the_tag_is_found(data: bytes) -> None:
    """Incident 33: the platform's copies of root's lines, and keys from before keysync came."""
    assert mentions_tag_or_key(data, KNOWN)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\0", OTHER_KEY, KEY[:-6], DATA[:40], b"AAAA" * 5000, b"AAAA" + b"A" * 21]
)
def test_a_file_of_others_keys_is_not_found(data: bytes) -> None:
    """Configuration: whoever has nothing of the account's is no target."""
    assert not mentions_tag_or_key(data, KNOWN)
    assert not mentions_tag_or_key(data, {})


def test_a_known_key_whose_name_is_damaged_is_no_failure() -> None:
    """State: whatever the state says, the search goes on."""
    assert not mentions_tag_or_key(OTHER_KEY, {"SHA256:x", "", "x"})


@given(documents)
def test_every_key_that_a_document_holds_is_found(data: bytes) -> None:
    """Configuration: the quick search overlooks no key."""
    for line in AuthorizedKeys.parse(data).lines:
        if line.key:
            assert mentions_tag_or_key(data, {line.key.fingerprint})


_OTHER_NAMES = (b"rsa", b"RSA", b"rsa-sha2-256", b"ED25519", b"ed25519", b"ed25519-sk")


def _spellings(line: bytes) -> Iterator[bytes]:
    """Lines that sshd may or may not read as the same key."""
    name, data = line.split(b" ")[:2]
    for ignored in (b"\r", b"\v", b"\f", b"\r\v\f"):
        yield name + b" " + ignored.join((data[:3], data[3:30], data[30:], b""))
    parts = fields(blob_of(line))
    for inside in _OTHER_NAMES:
        yield text_of(joined([inside, *parts[1:]]), name=name).encode()
    for at, part in enumerate(parts):
        for spelled in (part + b"\0", b"\0" + part, b"\0\0" + part):
            yield text_of(joined([*parts[:at], spelled, *parts[at + 1 :]]), name=name).encode()


def test_a_known_key_is_found_in_every_spelling(keys: Mapping[str, bytes]) -> None:
    """R5: what sshd reads as a deleted key makes its account a target, however it is spelled."""
    found = Counter[str]()
    for name, line in keys.items():
        fingerprint = PublicKey.from_blob(blob_of(line)).fingerprint
        for spelled in _spellings(line):
            for text in (spelled, b"restrict\t" + spelled + b" comment"):
                key = parse_line(text).key
                if key and key.fingerprint == fingerprint:
                    found[name] += 1
                    assert mentions_tag_or_key(b"# words\r\n" + text, {fingerprint}), text
    assert min(found.values()) >= 2 * 5  # what is ignored, and a NUL behind the name
    assert found["rsa-2048"] >= 2 * (5 + 3 + 4)  # other names, and zeros before both numbers
    assert found["ed25519"] >= 2 * (5 + 2)


@pytest.mark.parametrize(
    "line",
    [
        text_of(ed25519_blob(2)),
        text_of(rsa_blob(1024)),
        text_of(joined([b"ssh-rsa", b"\0\1", b"\0" * 500 + b"\1" * 200])),
        "AAAA" + "B" * 20,
    ],
)
def test_the_search_costs_no_more_for_each_line_of_a_longer_file(line: str) -> None:
    """G12: a big file of other keys does not hold up the cycle."""
    text = line.encode() + b"\n"
    growth = growth_of_cost(lambda data: mentions_tag_or_key(data, KNOWN), text * 2_000, times=4)
    assert growth < 10  # 4 when linear, 16 when quadratic
